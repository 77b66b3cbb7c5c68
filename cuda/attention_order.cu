#include "attention_order.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kThreads = 256;

template <class T>
GPU_FN int32_t length_of(const AttentionView<T>& view, TilesOf of, int32_t size, int32_t tile) {
  const Sight sight = of == TilesOf::rows ? sight_of_rows(view, tile * size, size) : sight_of_keys(view, tile * size, size);
  return sight.end - sight.begin;
}

// A thread finds the place of one tile: how many are longer, or as long and before it.
template <class T>
__global__ void __launch_bounds__(kThreads) order_tiles(GPU_ARGUMENT AttentionView<T> view, TilesOf of, int32_t size, int32_t count, int32_t* order) {
  GPU_SHARED(shared);
  auto* lengths = reinterpret_cast<int32_t*>(shared);
  const auto thread = static_cast<int32_t>(threadIdx.x), tile = static_cast<int32_t>(blockIdx.x) * kThreads + thread;
  const int32_t own = tile < count ? length_of(view, of, size, tile) : 0;
  int32_t place = 0;
  for (int32_t first = 0; first < count; first += kThreads) {
    if (first + thread < count) lengths[thread] = length_of(view, of, size, first + thread);
    __syncthreads();
    for (int32_t i = 0; i < kThreads && first + i < count; ++i) place += lengths[i] > own || (lengths[i] == own && first + i < tile);
    __syncthreads();
  }
  if (tile < count) order[place] = tile;
}

}  // namespace

template <class T>
TileOrder longest_first(Queue& queue, const AttentionView<T>& view, TilesOf of, int32_t size, int32_t kv_heads) {
  const int64_t length = of == TilesOf::rows ? static_cast<int64_t>(view.tokens) * view.group : view.tokens;
  const auto count = static_cast<int32_t>(tiles_of(length, size));
  const bool sorts = view.sequences.count > 1 && static_cast<int64_t>(count) * kv_heads > queue.multiprocessors();
  auto* tiles = sorts ? queue.scratch_for<int32_t>(count) : nullptr;
  if (tiles != nullptr) GPU_LAUNCH((order_tiles<T>), tiles_of(count, kThreads), kThreads, kThreads * sizeof(int32_t), queue.stream(), view, of, size, count, tiles);
  return {tiles, count, Divisor{kv_heads}};
}

template TileOrder longest_first(Queue&, const AttentionView<f16>&, TilesOf, int32_t, int32_t);
template TileOrder longest_first(Queue&, const AttentionView<bf16>&, TilesOf, int32_t, int32_t);

}  // namespace lowrank::cuda
