#include "plan.h"

#include <stdio.h>

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

bool is_frozen(const Gemm& gemm, int left) {
  for (int c = 0; c < gemm.column_count; ++c)
    for (int p = 0; p < gemm.columns[c].count; ++p)
      if (gemm.columns[c].products[p].left == left && gemm.columns[c].products[p].right.frozen) return true;
  return false;
}

Words words_of(FrozenProducts frozen) {
  switch (frozen) {
    case FrozenProducts::f32: return Words::f32;
    case FrozenProducts::pairs: return Words::bf16_pairs;
    case FrozenProducts::tiles:
    case FrozenProducts::emulated_tiles: return Words::bf16_tiles;
  }
  return Words::f32;
}

const char* name_of(Words words) {
  switch (words) {
    case Words::f32: return "f32";
    case Words::bf16_pairs: return "bf16";
    case Words::bf16_tiles: return "bf16 by AMX";
  }
  return "";
}

}  // namespace

Words left_words(const Gemm& gemm, const Plan& plan, int i) { return is_frozen(gemm, i) ? plan.words : Words::f32; }

Plan plan_gemm(const Gemm& gemm, FrozenProducts frozen) {
  Plan plan{};
  plan.words = words_of(frozen);
  plan.emulated = frozen == FrozenProducts::emulated_tiles;
  for (int i = 0; i < gemm.left_count; ++i)
    plan.width += count_words(left_words(gemm, plan, i), gemm.lefts[i].k);
  plan.panel_size = (plan.width * kTileRows + kPanelSlack + 15) / 16 * 16;
  const int64_t all = panels_of(gemm.m);
  const int64_t fit = kPackedBytes / (plan.panel_size * 4);
  const int64_t least = 128 / kTileRows + 1;  // expanding B for fewer rows costs more than memory
  const int64_t most = fit < least ? least : fit;
  plan.turns = all == 0 ? 0 : (all + most - 1) / most;
  if (plan.turns == 0) return plan;
  plan.turn_rows = (gemm.m + plan.turns - 1) / plan.turns;
  plan.panels = panels_of(plan.turn_rows);
  return plan;
}

namespace {

// Stretches of k of about equal length, none above kMaxDepth words; whole cache lines of 16-bit numbers, but for the last.
int64_t depth_of(Words words, int64_t k) {
  const int64_t most = words == Words::f32 ? kMaxDepth : 2 * kMaxDepth, count = (k + most - 1) / most;
  return count <= 1 ? k : ((k + count - 1) / count + 31) / 32 * 32;
}

// Slabs that are counted, or written too.
struct SlabList {
  Slab* slabs;        // nullptr: only counted
  int64_t count = 0;
  int64_t riders = 0;

  void add(const Slab& slab) {
    if (slabs != nullptr) slabs[count] = slab;
    ++count;
  }
  void ride(int64_t slab, int product, int64_t k0, int64_t k) {
    if (slabs != nullptr) slabs[slab].product[1] = product, slabs[slab].k0[1] = k0, slabs[slab].k[1] = k;
    ++riders;
  }
};

void list_unmasked(const Columns& columns, Words frozen, SlabList& list) {
  int64_t free_slab = -1;  // of the product before: nobody rides there yet
  for (int p = 0; p < columns.count; ++p) {
    const Product& product = columns.products[p];
    if (product.mask.on() || product.k == 0) continue;
    if (free_slab >= 0 && product.k <= kMaxRide && !product.right.frozen) {
      list.ride(free_slab, p, 0, product.k);
      free_slab = -1;
      continue;
    }
    const Words words = product.right.frozen ? frozen : Words::f32;
    const int64_t depth = depth_of(words, product.k), first = list.count;
    for (int64_t k = 0; k < product.k; k += depth) list.add({{p, p}, {k, 0}, {product.k - k < depth ? product.k - k : depth, 0}, words});
    // AMX leaves it a pass of its own, which costs least where C begins.
    free_slab = words != Words::bf16_tiles ? list.count - 1 : list.riders == 0 ? 0 : first;
  }
}

// Masked products, in stretches that can ride: each on a slab of the others, or, where these run out or somebody rides on one already, on an
// empty one.
void list_masked(const Columns& columns, SlabList& list) {
  int64_t slab = list.riders > 0 ? list.count : 0;
  for (int p = 0; p < columns.count; ++p) {
    const Product& product = columns.products[p];
    if (!product.mask.on()) continue;
    for (int64_t k = 0; k < product.k; k += kMaxRide, ++slab) {
      if (slab == list.count) list.add({{p, p}, {0, 0}, {0, 0}, Words::f32});
      list.ride(slab, p, k, product.k - k < kMaxRide ? product.k - k : kMaxRide);
    }
  }
}

}  // namespace

int64_t list_slabs(const Columns& columns, Words frozen, Slab* slabs) {
  SlabList list{slabs};
  list_unmasked(columns, frozen, list);
  list_masked(columns, list);
  if (list.count == 0) list.add({});
  return list.count;
}

void format_plan(const Gemm& gemm, const Plan& plan, int threads, char* text, size_t size) {
  long long n = 0, k = 0, blocks = 0, slabs = 0;
  for (int i = 0; i < gemm.left_count; ++i) k += gemm.lefts[i].k;
  for (int c = 0; c < gemm.column_count; ++c) {
    n += gemm.columns[c].n, slabs += list_slabs(gemm.columns[c], plan.words, nullptr);
    for (int64_t left = gemm.columns[c].n; left > 0; left -= next_block(left, threads)) ++blocks;
  }
  snprintf(text, size, "gemm %lldx%lldx%lld, %s: tile %dx%d, %lld turns of %lld rows in %lld panels, %lld blocks of at most %lld columns, %lld slabs of at most %lld words, %d sides",
           static_cast<long long>(gemm.m), n, k, name_of(plan.words), kTileRows, kTileCols, static_cast<long long>(plan.turns),
           static_cast<long long>(plan.turn_rows), static_cast<long long>(plan.panels), blocks, static_cast<long long>(kMaxBlock), slabs,
           static_cast<long long>(kMaxDepth), gemm.side_count);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
