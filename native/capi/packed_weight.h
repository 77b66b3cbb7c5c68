// Frozen weights in the caller's memory, laid out as core/frozen_weight does for the addon.
#pragma once
#include "../core/backend.h"

namespace lowrank::capi {

// Whether a weight is as it is stored, or exactly as lowrank_pack leaves one for this backend.
bool is_as_packed(const Weight& weight, const Backend& backend);

}  // namespace lowrank::capi
