// What all attention kernels share: where queries, keys and values lie, and who sees whom.
//
// The H/G query heads that read one kv head lie side by side in a token's row, so they are treated as neighbouring rows of one matrix of
// queries: row m belongs to token m / group. A tile of queries is then a run of tokens with all of the group's heads, each tile of keys is
// read once for all of them, and dk and dv are sums over rows.
// Tiles are cut from the whole batch, whatever sequences lie in it: a tile's keys run from the first that its first row sees to its last
// row's own, and each row masks the rest. Short sequences share tiles, and the grid doesn't depend on what only the device knows.
#pragma once
#include "../native/ops/attention.h"
#include "divisor.cuh"
#include "pack.cuh"
#include "reports.cuh"

namespace lowrank::cuda {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;
// Where running maxima start: a masked score is -inf, and exp2(-inf - kLowest) is 0, not NaN.
constexpr float kLowest = -3e38f;

// Positions of one sequence behind the other; without offsets all are one sequence. Offsets that are wrong (`check_offsets` reports them)
// give wrong but harmless answers: begin_of(t) <= t and end_of(t) <= tokens.
struct Sequences {
  const int32_t* offsets;  // [count + 1] or nullptr
  int32_t count;
  int32_t tokens;
  Report* report;

  // The last sequence that begins at or before position t.
  GPU_FN int32_t sequence_of(int32_t t) const {
    int32_t low = 0, high = count;
    while (low < high) {
      const int32_t middle = (low + high + 1) / 2;
      if (offsets[middle] <= t) low = middle;
      else high = middle - 1;
    }
    return low;
  }
  GPU_FN int32_t begin_of(int32_t t) const {
    if (offsets == nullptr) return 0;
    const int32_t begin = offsets[sequence_of(t)];
    return begin < 0 || begin > t ? 0 : begin;
  }
  GPU_FN int32_t end_of(int32_t t) const {
    if (offsets == nullptr) return tokens;
    const int32_t sequence = sequence_of(t), end = sequence < count ? offsets[sequence + 1] : tokens;
    return end > tokens ? tokens : end;
  }
};

// Offsets rise from 0 to T. Done on the side by the blocks (x, 0, 0) of a launch.
GPU_FN void check_offsets(const Sequences& all) {
  if (all.offsets == nullptr || blockIdx.y + blockIdx.z > 0) return;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i <= all.count; i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int32_t at = all.offsets[i], least = i == 0 ? 0 : all.offsets[i - 1];
    const int32_t most = i == 0 ? 0 : all.tokens;
    const bool fits = at >= least && at <= most && (i < all.count || at == all.tokens);
    if (!fits) atomicMin(all.report, static_cast<Report>(i) << 32 | static_cast<uint32_t>(at));
  }
}

// Queries, keys and values of every head.
template <class T>
struct AttentionView {
  const T* q;        // of the first token: H heads of `size`, `q_pitch` from token to token
  const T* k;        // of position 0: G heads
  const T* v;
  int64_t q_pitch, kv_pitch;
  int32_t tokens;    // of queries
  int32_t start;     // the first one's position
  int32_t group, size;  // H/G, D
  Divisor by_group;
  int32_t window;    // 0: none
  float scale;
  Sequences sequences;  // of positions

  GPU_FN int32_t rows() const { return tokens * group; }
  // The position of row m; -1, which sees nothing, behind the last row.
  GPU_FN int32_t position_of(int32_t m) const { return m < rows() ? start + by_group.quotient(m) : -1; }
  // Position t sees keys first_key(t) .. t.
  GPU_FN int32_t first_key(int32_t t) const {
    if (t < 0) return 0;
    const int32_t begin = sequences.begin_of(t);
    return window > 0 && t - window + 1 > begin ? t - window + 1 : begin;
  }
  // Key j is seen by positions j .. last_query(j); by none if it isn't there.
  GPU_FN int32_t last_query(int32_t j) const {
    if (j >= sequences.tokens) return -1;
    const int32_t last = sequences.end_of(j) - 1;
    return window > 0 && last - window >= j ? j + window - 1 : last;
  }
  // Row m of kv head g; nullptr behind the last.
  GPU_FN const T* query(int32_t m, int32_t g) const { return row_of(q, q_pitch, m, g); }
  template <class U>
  GPU_FN U* row_of(U* base, int64_t pitch, int32_t m, int32_t g) const {
    if (m >= rows()) return nullptr;
    const int32_t token = by_group.quotient(m);
    return base + token * pitch + (static_cast<int64_t>(g) * group + m - token * group) * size;
  }
  // Where a number for each token and head lies: [tokens, H].
  GPU_FN int64_t scalar_of(int32_t m, int32_t g, int32_t heads) const {
    const int32_t token = by_group.quotient(m);
    return static_cast<int64_t>(token) * heads + g * group + m - token * group;
  }
};

// Of a row or a key: the others that it sees, or that see it.
struct Sight {
  int32_t begin, end;
  GPU_FN bool sees(int32_t other) const { return other >= begin && other < end; }
};

// What row m sees, in keys.
template <class T>
GPU_FN Sight sight_of_row(const AttentionView<T>& view, int32_t m) {
  const int32_t position = view.position_of(m);
  return {view.first_key(position), position + 1};
}

// What sees key j, in rows.
template <class T>
GPU_FN Sight sight_of_key(const AttentionView<T>& view, int32_t j) {
  return {j * view.group, (view.last_query(j) + 1) * view.group};
}

// What the rows [row, row + count) see between them. Both ends of a row's sight rise from row to row, as those of a key's do.
template <class T>
GPU_FN Sight sight_of_rows(const AttentionView<T>& view, int32_t row, int32_t count) {
  const int32_t last = row + count < view.rows() ? row + count - 1 : view.rows() - 1;
  return {sight_of_row(view, row).begin, sight_of_row(view, last).end};
}

// What sees any of the keys [key, key + count).
template <class T>
GPU_FN Sight sight_of_keys(const AttentionView<T>& view, int32_t key, int32_t count) {
  const int32_t last = key + count < view.sequences.tokens ? key + count - 1 : view.sequences.tokens - 1;
  return {sight_of_key(view, key).begin, sight_of_key(view, last).end};
}

// The joined projection of a batch.
template <class T>
AttentionView<T> view_of_batch(const Tensor& qkv, const Tensor& offsets, const Heads& heads, int64_t window, float scale, Report* report) {
  const int64_t size = heads.size(qkv), tokens = qkv.rows();
  const T* q = qkv.as<T>();
  const T* k = q + heads.query * size;
  const Sequences sequences{offsets.i32(), static_cast<int32_t>(offsets.count() - 1), static_cast<int32_t>(tokens), report};
  const auto group = static_cast<int32_t>(heads.query / heads.key_value);
  return {q, k, k + heads.key_value * size, qkv.pitch, qkv.pitch, static_cast<int32_t>(tokens), 0, group, static_cast<int32_t>(size), Divisor{group},
          window < tokens ? static_cast<int32_t>(window) : 0, scale, sequences};
}

inline unsigned tiles_of(int64_t count, int64_t tile) { return static_cast<unsigned>((count + tile - 1) / tile); }

}  // namespace lowrank::cuda
