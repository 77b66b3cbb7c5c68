#pragma once

namespace lowrank::cuda {

// Which ops can't run yet, as a sentence; empty when all can.
const char* missing_ops();

}  // namespace lowrank::cuda
