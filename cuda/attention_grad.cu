// Two passes, so that every gradient has one owner and nothing is atomic: tiles of queries make dq, tiles of keys make dk and dv. Both make
// the scores anew from lse; that is 7 products where a pass that adds dq atomically would need 5.
#include "attention_tiles.cuh"
#include "attention_backward.cuh"
#include "dtypes.cuh"
#include "kernels.h"

namespace lowrank::cuda {

namespace {

// kLanes lanes are a row of queries, or of the zeros behind the last. Block (rows, kv head).
template <int kCount, int kLanes, class T>
__global__ void __launch_bounds__(kTileThreads) make_stats(GPU_ARGUMENT AttendGrad<T> p, const T* y, int64_t y_pitch, const float* lse, RowStats* stats) {
  const AttentionView<T>& view = p.view;
  check_offsets(view.sequences);
  const auto g = static_cast<int32_t>(blockIdx.y), m = static_cast<int32_t>((blockIdx.x * kTileThreads + threadIdx.x) / kLanes);
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  if (m >= p.stats_pitch) return;  // whole warps: kStatsPad
  RowStats row{0, 0};
  if (m < view.rows()) {
    const T* dy = view.row_of(p.dy, p.dy_pitch, m, g);
    y = view.row_of(y, y_pitch, m, g);
    for (int32_t i = lane * kCount; i < view.size; i += kLanes * kCount) {
      const Floats<kCount> a = load<kCount>(dy + i), b = load<kCount>(y + i);
      GPU_UNROLL
      for (int j = 0; j < kCount; ++j) row.delta = fmaf(a.at[j], b.at[j], row.delta);
    }
    if (lane == 0) row.lse = lse[view.scalar_of(m, g, p.heads)] * kLog2E;
  }
  __syncwarp();
  GPU_UNROLL
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) row.delta += __shfl_xor_sync(kAllLanes, row.delta, lanes);
  if (lane == 0) stats[g * p.stats_pitch + m] = row;
}

// Scores and slopes (dy.v) become p and ds.
GPU_FN void differentiate(float& score, float& slope, float factor, const RowStats& row, bool seen) {
  score = seen ? exp2f(score * factor - row.lse) : 0.0f;
  slope = seen ? score * (slope - row.delta) : 0.0f;
}

// Block (tile of rows, kv head, group of slices): dq.
template <int kSlices, class T>
__global__ void __launch_bounds__(kTileThreads, 1) query_grad_tiles(GPU_ARGUMENT AttendGrad<T> p) {
  GPU_SHARED(shared);
  auto* slabs = reinterpret_cast<float*>(shared);
  float* slopes_turned = slabs + 2 * kSlabFloats;
  const AttentionView<T>& view = p.view;
  const auto g = static_cast<int32_t>(blockIdx.y);
  const int32_t row = static_cast<int32_t>(gridDim.x - 1 - blockIdx.x) * kTile, column = static_cast<int32_t>(blockIdx.z) * kSlices * kTile;
  const int64_t head = static_cast<int64_t>(g) * view.size;
  const float factor = view.scale * kLog2E;

  Sight sight[4];
  RowStats stats[4];
  Sums totals[kSlices];
  clear(totals);
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    sight[i] = sight_of_row(view, row + tile_row() + i);
    stats[i] = p.stats_of(g)[row + tile_row() + i];
  }
  const Sight range = sight_of_rows(view, row, kTile);
  for (int32_t key = range.begin; key < range.end; key += kTile) {
    const auto at = [&](const T* base) {
      return [=, &view](int i) { return key + i < range.end ? base + head + (key + i) * view.kv_pitch : nullptr; };
    };
    Sums scores, slopes;
    multiply_rows([&](int i) { return view.query(row + i, g); }, at(view.k), view.size, slabs, scores);
    multiply_rows([&](int i) { return view.row_of(p.dy, p.dy_pitch, row + i, g); }, at(view.v), view.size, slabs, slopes);
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) {
      GPU_UNROLL
      for (int j = 0; j < 4; ++j) {
        differentiate(scores[i][j], slopes[i][j], factor, stats[i], sight[i].sees(key + tile_column() + j));
      }
    }
    store_turned(slopes_turned, slopes);
    __syncthreads();
    add_weighted_rows(slopes_turned, at(view.k), range.end - key < kTile ? range.end - key : kTile, column, view.size, slabs, totals);
  }
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    T* dq = view.row_of(p.dq, p.dqkv_pitch, row + tile_row() + i, g);
    if (dq != nullptr) store_row(dq, totals, i, column, view.size, view.scale);
  }
}

// Block (tile of keys, kv head, group of slices): dk and dv. Scores are made as [keys, rows].
template <int kSlices, class T>
__global__ void __launch_bounds__(kTileThreads, 1) key_grad_tiles(GPU_ARGUMENT AttendGrad<T> p) {
  GPU_SHARED(shared);
  auto* slabs = reinterpret_cast<float*>(shared);
  float* turned = slabs + 2 * kSlabFloats;
  const AttentionView<T>& view = p.view;
  const auto g = static_cast<int32_t>(blockIdx.y), key = static_cast<int32_t>(blockIdx.x) * kTile;
  const int32_t column = static_cast<int32_t>(blockIdx.z) * kSlices * kTile;
  const int64_t head = static_cast<int64_t>(g) * view.size;
  const float factor = view.scale * kLog2E;

  Sight sight[4];
  Sums dk[kSlices], dv[kSlices];
  clear(dk);
  clear(dv);
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) sight[i] = sight_of_key(view, key + tile_row() + i);
  const auto key_row = [&](const T* base) {
    return [=, &view](int i) { return key + i < view.sequences.tokens ? base + head + (key + i) * view.kv_pitch : nullptr; };
  };
  const Sight range = sight_of_keys(view, key, kTile);
  for (int32_t row = range.begin; row < range.end; row += kTile) {
    const auto query = [&](int i) { return view.query(row + i, g); };
    const auto slope = [&](int i) { return view.row_of(p.dy, p.dy_pitch, row + i, g); };
    Sums scores, slopes;
    multiply_rows(key_row(view.k), query, view.size, slabs, scores);
    multiply_rows(key_row(view.v), slope, view.size, slabs, slopes);
    GPU_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int32_t m = row + tile_column() + j;
      const RowStats stats = p.stats_of(g)[m];
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) differentiate(scores[i][j], slopes[i][j], factor, stats, sight[i].sees(m));
    }
    const int32_t deep = range.end - row < kTile ? range.end - row : kTile;
    store_turned(turned, scores);
    __syncthreads();
    add_weighted_rows(turned, slope, deep, column, view.size, slabs, dv);
    store_turned(turned, slopes);
    __syncthreads();
    add_weighted_rows(turned, query, deep, column, view.size, slabs, dk);
  }
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int64_t j = key + tile_row() + i;
    if (j >= view.sequences.tokens) continue;
    store_row(p.dk + head + j * p.dqkv_pitch, dk, i, column, view.size, view.scale);
    store_row(p.dv + head + j * p.dqkv_pitch, dv, i, column, view.size, 1.0f);
  }
}

constexpr int kShared = (2 * kSlabFloats + kScoreFloats) * sizeof(float);

template <int kSlices, class T>
void launch_query_grad(Queue& queue, const AttendGrad<T>& p) {
  const AttentionView<T>& view = p.view;
  const dim3 grid(tiles_of(static_cast<int64_t>(view.tokens) * view.group, kTile), static_cast<unsigned>(p.heads / view.group), tiles_of(view.size, kSlices * kTile));
  GPU_LAUNCH((query_grad_tiles<kSlices, T>), grid, kTileThreads, kShared, queue.stream(), p);
}

template <int kSlices, class T>
void launch_key_grad(Queue& queue, const AttendGrad<T>& p) {
  const AttentionView<T>& view = p.view;
  const dim3 grid(tiles_of(view.tokens, kTile), static_cast<unsigned>(p.heads / view.group), tiles_of(view.size, kSlices * kTile));
  GPU_LAUNCH((key_grad_tiles<kSlices, T>), grid, kTileThreads, kShared, queue.stream(), p);
}

// A block holds up to 256 columns of dq, or 128 of dk and of dv: more are further blocks that make the scores again.
template <class T>
void attend_grad(Queue& queue, const AttendGrad<T>& p) {
  if constexpr (sizeof(T) == 2) {
    if (attend_grad_on_tensor_cores(queue, p)) return;
    launch_query_grad<kFallbackSlices>(queue, p);
    launch_key_grad<kFallbackSlices>(queue, p);
  } else if (p.view.size <= kTile) {
    launch_query_grad<1>(queue, p);
    launch_key_grad<1>(queue, p);
  } else {
    if (p.view.size <= 2 * kTile) launch_query_grad<2>(queue, p);
    else launch_query_grad<4>(queue, p);
    launch_key_grad<2>(queue, p);
  }
}

}  // namespace

void attention_grad(const AttentionGrad& op, Queue& queue) {
  const int64_t tokens = op.qkv.rows(), heads = op.heads.query, kv_heads = op.heads.key_value, size = op.heads.size(op.qkv);
  const int64_t stats_pitch = (tokens * heads / kv_heads + kStatsPad - 1) / kStatsPad * kStatsPad;
  with_activation(op.qkv.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    Report* report = queue.watch({"attention_grad: offsets", tokens, Says::rising});
    auto* stats = queue.scratch_for<RowStats>(kv_heads * stats_pitch);
    if (report == nullptr || stats == nullptr || tokens == 0) return;
    const auto view = view_of_batch<T>(op.qkv, op.offsets, op.heads, op.window, op.scale, report);
    T* dk = op.dqkv.as<T>() + heads * size;
    const AttendGrad<T> p{view, op.dy.as<T>(), op.dy.pitch, stats, stats_pitch, op.dqkv.as<T>(), dk, dk + kv_heads * size, op.dqkv.pitch, static_cast<int32_t>(heads)};
    const Rows<const T> y{op.y.as<T>(), op.y.pitch}, dy{p.dy, p.dy_pitch};
    by_packs<kPack<T>>(size, [&](auto count) {
      const auto launch = [&](auto lanes) {
        constexpr int kCount = decltype(count)::value, kLanes = decltype(lanes)::value;
        const dim3 grid(tiles_of(stats_pitch, kTileThreads / kLanes), static_cast<unsigned>(kv_heads));
        GPU_LAUNCH((make_stats<kCount, kLanes, T>), grid, kTileThreads, 0, queue.stream(), p, y.data, y.pitch, op.lse.f32(), stats);
      };
      if (size <= 8 * count.value) launch(Count<8>{});
      else if (size <= 16 * count.value) launch(Count<16>{});
      else launch(Count<32>{});
    }, y, dy);
    attend_grad(queue, p);
  });
}

}  // namespace lowrank::cuda
