#pragma once
#include "gemm.h"

namespace lowrank::cuda {

// The product's first term plus the carry, by cublasLt: no bias, no other term. False: nothing has been queued, since there is no cublasLt
// or it has no algorithm for this.
bool lt_multiply(Queue& queue, const Gemm& product);
// Whether lt_multiply would do it.
bool lt_can(Queue& queue, const Gemm& product);

}  // namespace lowrank::cuda
