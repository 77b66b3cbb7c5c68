// dq of the gradient in 16 bits on tensor cores. Tiles of keys and values come by in two buffers: while one is worked on, the next is on its
// way.
//
// Shapes, from 255 registers a thread (168 up to kD = 64, for three blocks on sm_80 and sm_90) and 99 KiB of shared memory on sm_86 and sm_89:
// dq accumulates kD/2 registers for each 16 rows; scores and slopes of 16 keys take 8 each. 32 rows a warp up to kD = 128, with tiles of 32
// keys, so that each fragment read from shared memory serves two mma: 98 KiB at 128. At 256: 16 rows, tiles of 16 keys.
#include "attention_flash_grad.cuh"

namespace lowrank::cuda {

namespace {

template <int kD>
struct QueryShape {
  static constexpr int kTiles = kD <= 128 ? 2 : 1, kBlocks = kD <= 64 ? 3 : 2;  // of a multiprocessor, which their registers must fit
  static constexpr int kRows = kGradWarps * 16 * kTiles, kKeys = kD <= 128 ? 32 : 16;
  static constexpr int kShared = kTileBytes<kD, 2 * kRows + 4 * kKeys> + kRows * static_cast<int>(sizeof(Sight) + sizeof(RowStats)) + static_cast<int>(sizeof(Place));
};

// Scores and slopes (dy.v) of rows: slopes become ds.
template <int kTiles, int kColumns>
GPU_FN void differentiate_rows(const float (&scores)[kTiles][kColumns][4], float (&slopes)[kTiles][kColumns][4], float factor, const RowStats* stats) {
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    const RowStats rows[2] = {stats[t * 16 + lane_id() / 4], stats[t * 16 + 8 + lane_id() / 4]};
    GPU_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) {
        slopes[t][n][i] = probability_of(scores[t][n][i], factor, rows[i / 2]) * (slopes[t][n][i] - rows[i / 2].delta);
      }
    }
  }
}

// Block (kv head, tile of rows): dq.
template <class T, int kD>
__global__ void __launch_bounds__(kGradThreads, QueryShape<kD>::kBlocks)
query_grad_flash(GPU_ARGUMENT AttendGrad<T> p, GPU_ARGUMENT GradRows<T, kD> rows, GPU_ARGUMENT TileOrder order, float factor) {
  using Shape = QueryShape<kD>;
  constexpr int kTiles = Shape::kTiles, kRows = Shape::kRows, kKeys = Shape::kKeys;
  GPU_SHARED(shared);
  const RowTile<kD> queries{shared}, slopes_of_y{shared + kTileBytes<kD, kRows>};
  unsigned char* stages = shared + kTileBytes<kD, 2 * kRows>;
  auto* sights = reinterpret_cast<Sight*>(stages + kTileBytes<kD, 4 * kKeys>);
  auto* stats = reinterpret_cast<RowStats*>(sights + kRows);
  auto* place = reinterpret_cast<Place*>(stats + kRows);
  const AttentionView<T>& view = p.view;
  order.find<TilesOf::rows>(place, kRows);
  const int32_t own = static_cast<int32_t>(warp_id()) * 16 * kTiles;
  fetch_rows<kRows, kGradThreads>(queries, rows.of(place->g), place->first, view.rows(), view.size);
  const Sight range = sight_of_rows(view, place->first, kRows);
  const auto stage = [&](int which, int part) { return RowTile<kD>{stages + (2 * which + part) * kTileBytes<kD, kKeys>}; };
  const auto fetch_stage = [&](int which, int32_t key) {
    fetch_rows<kKeys, kGradThreads>(stage(which, 0), key_rows(view, place->g), key, range.end, view.size);
    ptx::cp_async_commit();
  };

  fetch_stage(0, range.begin);
  find_sights<kRows, kGradThreads>(sights, place->first, view.rows() - 1, [&](int32_t m) { return sight_of_row(view, m); });
  for (auto i = static_cast<int32_t>(threadIdx.x); i < kRows; i += kGradThreads) {
    const int32_t m = place->first + i;
    stats[i] = m < view.rows() ? p.stats_of(place->g)[m] : RowStats{0, 0};
  }
  __syncthreads();
  const WarpSight<16 * kTiles> sight{sights + own};
  Fragments<kTiles, kD> totals;
  clear(totals);
  int which = 0;
  for (int32_t key = range.begin; key < range.end; key += kKeys, which ^= 1) {
    ptx::cp_async_wait<0>();
    __syncthreads();
    if (key + kKeys < range.end) fetch_stage(which ^ 1, key + kKeys);
    if (!sight.sees_any(key, kKeys)) continue;
    const RowTile<kD> keys = stage(which, 0), values = stage(which, 1);
    Fragments<kTiles, kKeys> scores, slopes;
    multiply_rows<T>(scores, queries, own, keys);
    multiply_rows<T>(slopes, slopes_of_y, own, values);
    if (!sight.sees_all(key, kKeys)) mask(scores, sight, key);
    differentiate_rows(scores, slopes, factor, stats + own);
    LeftFragments<kTiles, kKeys> left;
    as_left<T>(left, slopes);
    add_weighted_rows<T>(totals, left, keys);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  float factors[kTiles][2];
  fill(factors, view.scale);
  store_rows<T>(queries, own, totals, factors, view.size, [&](int i) { return view.row_of(p.dq, p.dqkv_pitch, place->first + i, place->g); });
}

template <int kD, class T>
void launch_query_grad(Queue& queue, const AttendGrad<T>& p) {
  using Shape = QueryShape<kD>;
  const TileOrder order = longest_first(queue, p.view, TilesOf::rows, Shape::kRows, p.heads / p.view.group);
  allow_shared(query_grad_flash<T, kD>, Shape::kShared);
  GPU_LAUNCH((query_grad_flash<T, kD>), order.blocks(), kGradThreads, Shape::kShared, queue.stream(), p, grad_rows<kD>(p), order, p.view.scale * kLog2E);
}

}  // namespace

template <class T>
void query_grad_on_tensor_cores(Queue& queue, const AttendGrad<T>& p) {
  with_head_size(p.view.size, [&](auto size) { launch_query_grad<decltype(size)::value>(queue, p); });
}

template void query_grad_on_tensor_cores(Queue&, const AttendGrad<f16>&);
template void query_grad_on_tensor_cores(Queue&, const AttendGrad<bf16>&);

}  // namespace lowrank::cuda
