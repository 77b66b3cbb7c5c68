#include "gemm.h"

#include "lt.h"

namespace lowrank::cuda {

namespace {

// The first term alone, which is added to what the others, the bias and the carry have made of C.
Gemm heaviest_of(const Gemm& product, bool others) {
  Gemm g = product;
  g.count = 1;
  g.bias = nullptr;
  if (others) g.carry = g.c, g.carry_pitch = g.c_pitch;
  return g;
}

Gemm others_of(const Gemm& product) {
  Gemm g = product;
  for (int i = 1; i < g.count; ++i) g.terms[i - 1] = g.terms[i];
  --g.count;
  return g;
}

}  // namespace

// cublasLt takes one term and adds it to one matrix. The rest is small: it is made first, so that what C loses when it is rounded on the
// way is little beside what is rounded at the end. Its kernels for sm_90 round the product too before they add C to it, as PyTorch does
// for a linear and a sum behind it.
void gemm(Queue& queue, const Gemm& product) {
  if (product.m == 0 || product.n == 0) return;
  const bool others = product.count > 1 || product.bias != nullptr;
  const Gemm heaviest = heaviest_of(product, others);
  if ((others && product.c_is_f32 != 0) || !lt_can(queue, heaviest)) return gemm_tiles(queue, product);
  if (others) gemm_tiles(queue, others_of(product));
  if (!lt_multiply(queue, heaviest)) gemm_tiles(queue, heaviest);
}

}  // namespace lowrank::cuda
