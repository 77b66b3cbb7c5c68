#include "plan.h"

#include <stdio.h>

namespace lowrank::cpu::LOWRANK_ISA {

Plan plan_gemm(const Gemm& gemm) {
  Plan plan{};
  for (int i = 0; i < gemm.left_count; ++i)
    if (gemm.lefts[i].lie == Lie::rows) plan.width += gemm.lefts[i].k;
  plan.panel_size = (plan.width * kTileRows + kPanelSlack + 15) / 16 * 16;
  const int64_t all = panels_of(gemm.m);
  const int64_t fit = kPackedBytes / (plan.panel_size * 4);
  const int64_t least = 128 / kTileRows + 1;  // expanding B for fewer rows costs more than memory
  const int64_t most = plan.width == 0 ? all : fit < least ? least : fit;
  plan.turns = all == 0 ? 0 : (all + most - 1) / most;
  if (plan.turns == 0) return plan;
  plan.turn_rows = (gemm.m + plan.turns - 1) / plan.turns;
  plan.panels = panels_of(plan.turn_rows);
  return plan;
}

namespace {

// Stretches of k of about equal length, none above kMaxDepth; whole cache lines of 16-bit numbers, but for the last.
int64_t depth_of(int64_t k) {
  const int64_t count = (k + kMaxDepth - 1) / kMaxDepth;
  return count <= 1 ? k : ((k + count - 1) / count + 31) / 32 * 32;
}

}  // namespace

int64_t list_slabs(const Columns& columns, Slab* slabs) {
  int64_t count = 0;
  bool can_ride = false;
  for (int p = 0; p < columns.count; ++p) {
    const Product& product = columns.products[p];
    if (product.mask.on() || product.k == 0) continue;
    if (can_ride && product.k <= kMaxRide) {
      if (slabs != nullptr) slabs[count - 1].product[1] = p, slabs[count - 1].k[1] = product.k;
      can_ride = false;
      continue;
    }
    const int64_t depth = depth_of(product.k);
    for (int64_t k = 0; k < product.k; k += depth, ++count)
      if (slabs != nullptr) slabs[count] = {{p, p}, {k, 0}, {product.k - k < depth ? product.k - k : depth, 0}};
    can_ride = true;
  }
  if (count > 0) return count;
  if (slabs != nullptr) slabs[0] = {};
  return 1;
}

void format_plan(const Gemm& gemm, char* text, size_t size) {
  const Plan plan = plan_gemm(gemm);
  int64_t n = 0, blocks = 0, slabs = 0;
  for (int c = 0; c < gemm.column_count; ++c) {
    const Columns& columns = gemm.columns[c];
    n += columns.n;
    slabs += list_slabs(columns, nullptr);
    for (int64_t left = columns.n; left > 0; left -= next_block(left)) ++blocks;
  }
  snprintf(text, size,
           "gemm %lldx%lldx%lld (sides %d): tile %dx%d, %lld turns of %lld rows in %lld panels, %lld blocks of at most %lld columns, %lld slabs of at most %lld",
           static_cast<long long>(gemm.m), static_cast<long long>(n), static_cast<long long>(plan.width), gemm.side_count, kTileRows, kTileCols,
           static_cast<long long>(plan.turns), static_cast<long long>(plan.turn_rows), static_cast<long long>(plan.panels),
           static_cast<long long>(blocks), static_cast<long long>(kMaxBlock), static_cast<long long>(slabs), static_cast<long long>(kMaxDepth));
}

}  // namespace lowrank::cpu::LOWRANK_ISA
