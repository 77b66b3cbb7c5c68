// Packed sequences: their offsets checked, and cut into pieces that are work for one task.
#pragma once
#include "kernel.h"

namespace lowrank::cpu::LOWRANK_ISA {
namespace {

inline bool offsets_fit(const char* op, const Tensor& offsets, int64_t tokens, const Context& context) {
  const int32_t* at = offsets.i32();
  const int64_t last = offsets.count() - 1;
  for (int64_t s = 0; s <= last; ++s) {
    const int64_t least_value = s == 0 ? 0 : at[s - 1];
    const int64_t most_value = s == 0 ? 0 : tokens;
    if (at[s] >= least_value && at[s] <= most_value) continue;
    context.fail(context.self, "ERR_RANGE", "%s: offsets must rise from 0 to T = %lld (element %lld is %d%s)", op,
                 static_cast<long long>(tokens), static_cast<long long>(s), at[s], s > 0 && at[s] < at[s - 1] ? ", less than the one before" : "");
    return false;
  }
  if (at[last] == tokens) return true;
  context.fail(context.self, "ERR_RANGE", "%s: offsets must rise from 0 to T = %lld (the last, element %lld, is %d)", op,
               static_cast<long long>(tokens), static_cast<long long>(last), at[last]);
  return false;
}

// Tokens begin .. end-1, of a sequence.
struct Piece {
  int32_t begin, end, sequence, sequence_end;
};

struct Pieces {
  const Piece* list;
  int64_t count;
  int64_t chunk;  // pieces of one task
};

constexpr int64_t kTokensOfTask = 32;  // short sequences are taken together until they have this many

// Pieces of `step` tokens, the last of a sequence shorter. No memory: none, and the op has failed.
inline Pieces cut_sequences(const Tensor& offsets, int64_t step, const Context& context) {
  const int32_t* at = offsets.i32();
  const int64_t sequences = offsets.count() - 1, tokens = at[sequences];
  Piece* list = context.scratch_for<Piece>(-1, sequences + tokens / step + 1);
  int64_t count = 0;
  for (int64_t s = 0; list != nullptr && s < sequences; ++s) {
    for (int64_t begin = at[s]; begin < at[s + 1]; begin += step) {
      const int64_t end = begin + step < at[s + 1] ? begin + step : at[s + 1];
      list[count++] = {static_cast<int32_t>(begin), static_cast<int32_t>(end), at[s], at[s + 1]};
    }
  }
  const int64_t chunk = tokens > 0 ? kTokensOfTask * count / tokens : 1;
  return {list, count, chunk < 1 ? 1 : chunk};
}

// body(piece, kv head, worker), the last pieces first: within a sequence they have the most keys, and a long task is best begun early.
template <class Body>
LOWRANK_INLINE void for_pieces(const Context& context, const Pieces& pieces, int64_t kv_heads, const Body& body) {
  const int64_t chunks = (pieces.count + pieces.chunk - 1) / pieces.chunk;
  context.parallel_for(chunks * kv_heads, [&](int64_t task, int worker) {
    const int64_t end = pieces.count - task / kv_heads * pieces.chunk;
    for (int64_t i = end - 1; i >= 0 && i >= end - pieces.chunk; --i) body(pieces.list[i], task % kv_heads, worker);
  });
}

}  // namespace
}  // namespace lowrank::cpu::LOWRANK_ISA
