// Skinny products of a z that isn't there yet: it is made on the way, and stored. So nobody reads it again for them.
#pragma once
#include "skinny.h"

namespace lowrank::cuda {

// z = swiglu(x) [rows, cols]; or, where dy is given, its gradient dgate | dup [rows, 2 cols]. Rows of x and z are as many as the product's.
struct Gated {
  const void* x = nullptr;  // gate | up [rows, 2 cols]
  int64_t x_pitch = 0;
  const void* dy = nullptr;  // [rows, cols]
  int64_t dy_pitch = 0;
  void* z = nullptr;  // may be x
  int64_t z_pitch = 0;
  int64_t rows = 0, cols = 0;
};

// Whether these can: everything in whole pieces, and as few ranks as a block has room for. Elsewhere z is made first.
bool can_make_u(const Gated& gated, const PartList& parts);
bool can_make_v_and_db(const Gated& gated, const PartList& parts);

// As `skinny` makes them of a product whose z is not given: of its only window; of its parts.
void skinny_swiglu(Queue& queue, const Gated& gated, const Skinny& product, const SkinnyRows& rows);
void skinny_swiglu_grad(Queue& queue, const Gated& gated, const Skinny& product, const SkinnyRows& rows, const SkinnyColumns& columns);

}  // namespace lowrank::cuda
