// A product that is extended along k by the ranks of an adapter, and by a bias: in borders where W has one that is wide enough, in matrices
// of their own elsewhere.
#pragma once
#include "../gemm/matrices.h"
#include "spread.h"

namespace lowrank::cuda {

struct Extended {
  DType dtype = DType::bf16;
  int64_t rows = 0;
  Halves left;              // [rows, long]: x or dy
  const Tensor* lender = nullptr;  // whose border `left` has, unless it is a copy's
  int64_t deep = 0;         // k without the extension
  const Weight* w = nullptr;
  bool forward = true;      // against W^T, else W
  PartList parts;           // none: no adapter
  Ranked of_rows;           // u or v: [rows, ranks]
  Ranked of_columns;        // B or A: for each column of C
  void* c = nullptr;
  int64_t c_pitch = 0;
  const float* bias = nullptr;
  const void* carry = nullptr;
  int64_t carry_pitch = 0;
};

// Where the extension lies. What is to be spread there before the product, by whoever launches for it anyway: nothing where there is no place.
struct Extension {
  Frozen w;
  bool good = false;  // else the op has been failed
  bool in_borders = false, with_bias = false;
  Halves left;  // in borders: the left factor, or room for a copy of one that has no border
  Spread of_rows, of_columns;
};
Extension extension_of(Queue& queue, const Extended& product);

void multiply_extended(Queue& queue, const Extended& product, const Extension& extension);
// With everything that has to be spread.
void multiply_extended(Queue& queue, const Extended& product);

}  // namespace lowrank::cuda
