#include "attention_forward.cuh"
#include "attention_tiles.cuh"
#include "dtypes.cuh"
#include "kernels.h"

namespace lowrank::cuda {

namespace {

// A row's running maximum, in units of ln 2, and sum; equal in the 16 threads that share the row.
struct Running {
  float maximum[4], sum[4];
};

GPU_FN float max_of_row(float value) {
  for (int lanes = 8; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, lanes));
  return value;
}
GPU_FN float sum_of_row(float value) {
  for (int lanes = 8; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}

// Scores become probabilities relative to the row's new maximum; what was summed before shrinks.
template <int kSlices>
GPU_FN void soften_row(Sums& scores, Running& running, Sums (&totals)[kSlices], int i, float factor, int32_t first, int32_t position, int32_t key) {
  float most = running.maximum[i];
  GPU_UNROLL
  for (int j = 0; j < 4; ++j) {
    const bool seen = key + j >= first && key + j <= position;
    scores[i][j] = seen ? scores[i][j] * factor : -INFINITY;
    most = fmaxf(most, scores[i][j]);
  }
  most = max_of_row(most);
  const float shrink = exp2f(running.maximum[i] - most);
  float sum = 0;
  GPU_UNROLL
  for (int j = 0; j < 4; ++j) sum += scores[i][j] = exp2f(scores[i][j] - most);
  running.maximum[i] = most;
  running.sum[i] = running.sum[i] * shrink + sum_of_row(sum);
  GPU_UNROLL
  for (int slice = 0; slice < kSlices; ++slice) {
    GPU_UNROLL
    for (int j = 0; j < 4; ++j) totals[slice][i][j] *= shrink;
  }
}

template <int kSlices, class T>
GPU_FN void write_row(const Attend<T>& p, const Running& running, const Sums (&totals)[kSlices], int i, int32_t m, int32_t g, int32_t run, int column) {
  const AttentionView<T>& view = p.view;
  if (m >= view.rows()) return;
  const int64_t at = view.scalar_of(m, g, p.heads);
  const bool writes_scalars = column == 0 && tile_column() == 0;
  if (p.parts.runs == 1) {
    store_row(view.row_of(p.y, p.y_pitch, m, g), totals, i, column, view.size, 1.0f / running.sum[i]);
    if (p.lse != nullptr && writes_scalars) p.lse[at] = running.maximum[i] * kLn2 + logf(running.sum[i]);
    return;
  }
  const int64_t part = run * static_cast<int64_t>(view.tokens) * p.heads + at;
  store_row(p.parts.y + part * view.size, totals, i, column, view.size, 1.0f);
  if (!writes_scalars) return;
  p.parts.maxima[part] = running.maximum[i];
  p.parts.sums[part] = running.sum[i];
}

// Block (tile of rows, kv head, run and group of slices of columns). Tiles with the most keys come first.
template <int kSlices, class T>
__global__ void __launch_bounds__(kTileThreads, 1) attend_tiles(GPU_ARGUMENT Attend<T> p) {
  GPU_SHARED(shared);
  auto* slabs = reinterpret_cast<float*>(shared);
  float* probabilities = slabs + 2 * kSlabFloats;
  const AttentionView<T>& view = p.view;
  check_offsets(view.sequences);
  const auto g = static_cast<int32_t>(blockIdx.y), run = static_cast<int32_t>(blockIdx.z) % p.parts.runs;
  const int32_t row = static_cast<int32_t>(gridDim.x - 1 - blockIdx.x) * kTile, column = static_cast<int32_t>(blockIdx.z) / p.parts.runs * kSlices * kTile;
  const T* keys = view.k + static_cast<int64_t>(g) * view.size;
  const T* values = view.v + static_cast<int64_t>(g) * view.size;
  const float factor = view.scale * kLog2E;

  Running running;
  int32_t first[4], position[4];
  Sums totals[kSlices];
  clear(totals);
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    running.maximum[i] = kLowest, running.sum[i] = 0;
    position[i] = view.position_of(row + tile_row() + i);
    first[i] = view.first_key(position[i]);
  }
  const Sight range = p.keys_of_run(sight_of_rows(view, row, kTile), run);
  for (int32_t key = range.begin; key < range.end; key += kTile) {
    const auto at = [&](const T* base) {
      return [=, &view](int i) { return key + i < range.end ? base + (key + i) * view.kv_pitch : nullptr; };
    };
    Sums scores;
    multiply_rows([&](int i) { return view.query(row + i, g); }, at(keys), view.size, slabs, scores);
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int32_t last = position[i] < range.end ? position[i] : range.end - 1;
      soften_row(scores, running, totals, i, factor, first[i], last, key + tile_column());
    }
    store_turned(probabilities, scores);
    __syncthreads();
    const int32_t deep = range.end - key < kTile ? range.end - key : kTile;
    add_weighted_rows(probabilities, at(values), deep, column, view.size, slabs, totals);
  }
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) write_row(p, running, totals, i, row + tile_row() + i, g, run, column);
}

constexpr int kShared = (2 * kSlabFloats + kScoreFloats) * sizeof(float);

template <int kSlices, class T>
void launch_tiles(Queue& queue, const Attend<T>& p) {
  const AttentionView<T>& view = p.view;
  const unsigned kv_heads = static_cast<unsigned>(p.heads / view.group), columns = tiles_of(view.size, kSlices * kTile);
  const dim3 grid(tiles_of(static_cast<int64_t>(view.tokens) * view.group, kTile), kv_heads, columns * static_cast<unsigned>(p.parts.runs));
  GPU_LAUNCH((attend_tiles<kSlices, T>), grid, kTileThreads, kShared, queue.stream(), p);
}

// A row of y out of its parts, in the order of the runs; a block is a row.
template <class T>
__global__ void __launch_bounds__(kTile) join_parts(GPU_ARGUMENT Attend<T> p) {
  const int32_t token = static_cast<int32_t>(blockIdx.x) / p.heads, head = static_cast<int32_t>(blockIdx.x) % p.heads;
  const int64_t pitch = static_cast<int64_t>(p.view.tokens) * p.heads, row = blockIdx.x;
  float most = kLowest, sum = 0;
  for (int32_t run = 0; run < p.parts.runs; ++run) most = fmaxf(most, p.parts.maxima[run * pitch + row]);
  for (int32_t run = 0; run < p.parts.runs; ++run) sum += exp2f(p.parts.maxima[run * pitch + row] - most) * p.parts.sums[run * pitch + row];
  T* y = p.y + token * p.y_pitch + static_cast<int64_t>(head) * p.view.size;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < p.view.size; i += kTile) {
    float total = 0;
    for (int32_t run = 0; run < p.parts.runs; ++run) {
      total += exp2f(p.parts.maxima[run * pitch + row] - most) * p.parts.y[(run * pitch + row) * p.view.size + i];
    }
    y[i] = from_f32<T>(total / sum);
  }
}

template <class T>
void attend_without_tensor_cores(Queue& queue, const Attend<T>& p) {
  if constexpr (sizeof(T) == 2) {
    launch_tiles<kFallbackSlices>(queue, p);
  } else {
    if (p.view.size <= kTile) launch_tiles<1>(queue, p);
    else if (p.view.size <= 2 * kTile) launch_tiles<2>(queue, p);
    else launch_tiles<4>(queue, p);
  }
}

}  // namespace

template <class T>
void attend(Queue& queue, const Attend<T>& p) {
  bool done = false;
  if constexpr (sizeof(T) == 2) done = attend_on_tensor_cores(queue, p);
  if (!done) attend_without_tensor_cores(queue, p);
  if (p.parts.runs == 1) return;
  GPU_LAUNCH((join_parts<T>), static_cast<unsigned>(p.view.tokens * p.heads), kTile, 0, queue.stream(), p);
}

template void attend(Queue&, const Attend<float>&);
template void attend(Queue&, const Attend<f16>&);
template void attend(Queue&, const Attend<bf16>&);

void attention(const Attention& op, Queue& queue) {
  with_activation(op.qkv.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    Report* report = queue.watch({"attention: offsets", op.qkv.rows(), Says::rising});
    if (report == nullptr || op.qkv.rows() == 0) return;
    const auto view = view_of_batch<T>(op.qkv, op.offsets, op.heads, op.window, op.scale, report);
    attend<T>(queue, {view, op.y.as<T>(), op.y.pitch, op.lse.f32(), static_cast<int32_t>(op.heads.query), {nullptr, nullptr, nullptr, 1, 0}});
  });
}

}  // namespace lowrank::cuda
