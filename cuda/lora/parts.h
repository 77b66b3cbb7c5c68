// The parts of a joined projection: where each begins in the columns of y, in the ranks, in the flat B.
#pragma once
#include "../../native/ops/lora_linear.h"
#include "../gpu.cuh"

namespace lowrank::cuda {

struct Part {
  int32_t i = 0;
  int64_t column = 0, out = 0;  // of y
  int64_t rank0 = 0, rank = 0;
  int64_t padded0 = 0;  // where its ranks begin when each part is given a multiple of eight
  int64_t b0 = 0;       // of the flat B

  GPU_HOST_FN int64_t padded() const { return (rank + 7) / 8 * 8; }
};

struct PartList {
  Part at[kMaxParts];
  int32_t count = 0;

  GPU_HOST_FN int64_t ranks() const { return count == 0 ? 0 : at[count - 1].rank0 + at[count - 1].rank; }
  GPU_HOST_FN int64_t padded() const { return count == 0 ? 0 : at[count - 1].padded0 + at[count - 1].padded(); }
  GPU_HOST_FN int part_of_place(int64_t padded) const {
    int part = 0;
    for (int i = 1; i < kMaxParts; ++i) {
      if (i < count && padded >= at[i].padded0) part = i;
    }
    return part;
  }
  GPU_HOST_FN int part_of_rank(int64_t rank) const {
    int part = 0;
    for (int i = 1; i < kMaxParts; ++i) {
      if (i < count && rank >= at[i].rank0) part = i;
    }
    return part;
  }
  // The rank in the place `padded`, or -1.
  GPU_HOST_FN int64_t rank_at(int64_t padded) const {
    for (int i = 0; i < kMaxParts; ++i) {
      if (i >= count || padded < at[i].padded0 || padded >= at[i].padded0 + at[i].padded()) continue;
      return padded - at[i].padded0 < at[i].rank ? at[i].rank0 + padded - at[i].padded0 : -1;
    }
    return -1;
  }
};

inline PartList parts_of(const Weight& w, const LoraParts& parts) {
  PartList list;
  Part part;
  for (part.i = 0; part.i < w.parts; ++part.i) {
    part.out = w.out[part.i], part.rank = parts.rank[part.i];
    list.at[list.count++] = part;
    part.column += part.out, part.rank0 += part.rank, part.padded0 += part.padded(), part.b0 += part.out * part.rank;
  }
  return list;
}

}  // namespace lowrank::cuda
