// Generation. Few new tokens read the whole cache for a few rows of queries: memory is the limit, so the keys are cut into runs that many
// blocks read, and a second kernel joins what they found in the order of the runs. With many tokens there are blocks enough.
#include "attention_forward.cuh"
#include "dtypes.cuh"
#include "kernels.h"
#include "map.cuh"

namespace lowrank::cuda {

namespace {

// The new rows of the cache, from the joined projection.
template <class T>
struct WriteCache {
  Rows<const T> k;  // of the first token
  Rows<const T> v;
  Rows<T> k_cache;  // of position `start`
  Rows<T> v_cache;

  template <int kCount>
  GPU_FN void at(int64_t row, int64_t i) const {
    using Packed = Pack<T, kCount>;
    *reinterpret_cast<Packed*>(k_cache.at(row) + i) = *reinterpret_cast<const Packed*>(k.at(row) + i);
    *reinterpret_cast<Packed*>(v_cache.at(row) + i) = *reinterpret_cast<const Packed*>(v.at(row) + i);
  }
};

// A run is a tile of keys or more; there are at most 64 of them. The joining of parts reads 4 D bytes of each run for each row, where a run
// read 256 D and more for each kv head.
constexpr int64_t kMostRuns = 64, kLeastRun = 64, kMostSplitRows = 64;

struct Runs {
  int64_t count, keys;
};

// The same on every device, for the sake of the same bits.
Runs runs_of(int64_t rows, int64_t seen) {
  if (rows > kMostSplitRows) return {1, seen};
  const int64_t even = (seen + kMostRuns - 1) / kMostRuns, whole = (even + kLeastRun - 1) / kLeastRun * kLeastRun;
  return {(seen + whole - 1) / whole, whole};
}

// False: no memory, and the op has failed.
bool take_parts(Queue& queue, const Runs& runs, int64_t rows, int64_t size, AttentionParts& parts) {
  parts = {nullptr, nullptr, nullptr, static_cast<int32_t>(runs.count), static_cast<int32_t>(runs.keys)};
  if (runs.count == 1) return true;
  parts.maxima = queue.scratch_for<float>(runs.count * rows);
  parts.sums = queue.scratch_for<float>(runs.count * rows);
  parts.y = queue.scratch_for<float>(runs.count * rows * size);
  return parts.maxima != nullptr && parts.sums != nullptr && parts.y != nullptr;
}

}  // namespace

void attention_cache(const AttentionCache& op, Queue& queue) {
  const int64_t tokens = op.qkv.rows(), heads = op.heads.query, kv_heads = op.heads.key_value, size = op.heads.size(op.qkv), end = op.start + tokens;
  const auto group = static_cast<int32_t>(heads / kv_heads);
  const int64_t row = kv_heads * size, pitch = op.qkv.pitch, cache_pitch = op.k_cache.pitch;
  if (tokens == 0) return;
  with_activation(op.qkv.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const T* k = op.qkv.as<T>() + heads * size;
    T* k_cache = op.k_cache.as<T>();
    T* v_cache = op.v_cache.as<T>();
    const WriteCache<T> write{{k, pitch}, {k + row, pitch}, {k_cache + op.start * cache_pitch, cache_pitch}, {v_cache + op.start * cache_pitch, cache_pitch}};
    by_packs<kPack<T>>(row, [&](auto count) { map<decltype(count)::value>(queue, write, {tokens, row}); }, write.k, write.v, write.k_cache, write.v_cache);
    const int32_t window = op.window < end ? static_cast<int32_t>(op.window) : 0;
    const int64_t first = window > 0 && op.start - window + 1 > 0 ? op.start - window + 1 : 0;
    AttentionParts parts;
    if (!take_parts(queue, runs_of(tokens * group, end - first), tokens * heads, size, parts)) return;
    const AttentionView<T> view{op.qkv.as<T>(), k_cache, v_cache, pitch, cache_pitch, static_cast<int32_t>(tokens), static_cast<int32_t>(op.start),
                                group, static_cast<int32_t>(size), Divisor{group}, window, op.scale, {nullptr, 0, static_cast<int32_t>(end), nullptr}};
    attend<T>(queue, {view, op.y.as<T>(), op.y.pitch, nullptr, static_cast<int32_t>(heads), parts});
  });
}

}  // namespace lowrank::cuda
