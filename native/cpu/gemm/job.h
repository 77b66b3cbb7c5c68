// A gemm on its way: what the files of this folder share beyond the description and the plan.
#pragma once
#include "plan.h"

namespace lowrank::cpu::LOWRANK_ISA {

// Rows of C that are being done: all of them, or as many as have room to be packed.
struct Turn {
  int64_t row, rows, panels;
};

// A gemm's plan and what was prepared of it.
struct Job {
  const Gemm* gemm;
  Plan plan;
  float* packed;              // [panels][panel_size], or one panel for each worker where there are no columns
  Block sides[kMaxParts];     // B of each side, expanded as a whole
  Slab* slabs[kMaxParts];
  int64_t slab_count[kMaxParts];
  int64_t offset[kMaxLefts];  // where each Left begins in a row of the panel, in words
};

// A worker's own.
struct Buffers {
  float* block;  // (kMaxDepth + kMaxRide) * kMaxBlock: B; or what an OuterSum needs
  float* panel;  // A after dropout
  float* wide;   // a panel of A as f32, where products take bf16 (see made_wide)
};

// Whether Left i is packed as f32 on its way to bf16: pairs come from there, and sides that take it as it is.
LOWRANK_INLINE bool made_wide(const Gemm& gemm, const Plan& plan, int i) {
  const Words words = left_words(gemm, plan, i);
  if (words != Words::bf16_tiles) return words == Words::bf16_pairs;
  for (int s = 0; s < gemm.side_count; ++s)
    if (gemm.sides[s].from == i && !gemm.sides[s].drop.on()) return true;
  return false;
}

// Floats of Buffers::wide.
LOWRANK_INLINE int64_t wide_size(const Gemm& gemm, const Plan& plan) {
  int64_t k = 0;
  for (int i = 0; i < gemm.left_count; ++i)
    if (made_wide(gemm, plan, i)) k += gemm.lefts[i].k;
  return k == 0 ? 0 : k * kTileRows + kPanelSlack;
}

// A block of C's columns, by all rows of a turn or by share `part` of `parts` of them.
struct Task {
  int64_t columns;
  int64_t n0, n;
  int64_t part, parts;
};

constexpr int64_t kTempCols = kTileCols;

LOWRANK_INLINE float* panel_at(const Job& job, int64_t p, int worker) {
  return job.packed + (job.gemm->column_count > 0 ? p : worker) * job.plan.panel_size;
}

// Packs panel p of A and takes the skinny products of its rows (panels.cpp).
void pack_panel(const Job& job, const Turn& turn, int64_t p, int worker, const Buffers& buffers);

// Does one block of C for the rows of the turn (blocks.cpp).
void run_task(const Job& job, const Task& task, const Turn& turn, const Buffers& buffers);

}  // namespace lowrank::cpu::LOWRANK_ISA
