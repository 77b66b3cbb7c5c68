// The gradient in 16 bits on tensor cores, in the two passes of attention_grad.cu. Tiles of the other side come by in two buffers: while
// one is worked on, the next is on its way. dk and dv are made from scores [keys, rows], so that p and ds are left factors as they are.
//
// Shapes, from 255 registers a thread and 99 KiB of shared memory on sm_86 and sm_89:
//   dq       accumulates kD/2 registers for each 16 rows; scores and slopes of kPart keys take kPart/2 each. 32 rows a warp up to kD = 128
//            (there 160 registers and addresses), with tiles of 32 keys: 96 KiB at 128. At 256: 16 rows, tiles of 16 keys, 96 KiB.
//   dk, dv   both accumulate: 32 keys a warp up to kD = 64; 16 keys and eight warps up to 128, tiles of 32 rows: 96.5 KiB. At 256 the two
//            would take all registers: one block makes dv, another dk, and the scores are made twice.
//   A tile may be worked on in parts, so that fewer scores are held; a part costs no barrier.
#include "attention_backward.cuh"
#include "attention_mma.cuh"
#include "attention_order.cuh"

namespace lowrank::cuda {

namespace {

template <int kD>
struct QueryShape {
  static constexpr int kTiles = kD <= 128 ? 2 : 1, kWarps = 4, kThreads = 32 * kWarps;
  static constexpr int kRows = kWarps * 16 * kTiles, kKeys = kD <= 128 ? 32 : 16, kPart = kD <= 64 ? kKeys : 16;
  static constexpr int kShared = kTileBytes<kD, 2 * kRows + 4 * kKeys>;
};

template <int kD>
struct KeyShape {
  static constexpr int kTiles = kD <= 64 ? 2 : 1, kWarps = kD > 64 && kD <= 128 ? 8 : 4, kThreads = 32 * kWarps;
  static constexpr int kKeys = kWarps * 16 * kTiles, kRows = kD <= 128 ? 32 : 16, kPart = kD <= 96 && kTiles == 1 ? kRows : 16;
  static constexpr int kStage = kTileBytes<kD, 2 * kRows> + kRows * static_cast<int>(sizeof(RowStats));
  static constexpr int kShared = kTileBytes<kD, 2 * kKeys> + 2 * kStage;
};

enum class Makes { both, values, keys };

// Scores, in units of ln 2 times `factor`, and slopes (dy.v) become p and ds; -inf becomes 0.
GPU_FN void differentiate(float& score, float& slope, float factor, const RowStats& row) {
  score = ptx::exp2_approximate(fmaf(score, factor, -row.lse));
  slope = score * (slope - row.delta);
}

template <int kTiles, int kColumns>
GPU_FN void differentiate_rows(float (&scores)[kTiles][kColumns][4], float (&slopes)[kTiles][kColumns][4], float factor, const RowStats (&stats)[kTiles][2]) {
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) differentiate(scores[t][n][i], slopes[t][n][i], factor, stats[t][i / 2]);
    }
  }
}

// The same for scores [keys, rows]; the rows' numbers lie in shared memory.
template <int kTiles, int kColumns>
GPU_FN void differentiate_keys(float (&scores)[kTiles][kColumns][4], float (&slopes)[kTiles][kColumns][4], float factor, const RowStats* stats) {
  GPU_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    const int column = n * 8 + static_cast<int>(lane_id()) % 4 * 2;
    const RowStats rows[2] = {stats[column], stats[column + 1]};
    GPU_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) differentiate(scores[t][n][i], slopes[t][n][i], factor, rows[i % 2]);
    }
  }
}

template <int kTiles>
GPU_FN void fill(float (&factors)[kTiles][2], float factor) {
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) factors[t][0] = factors[t][1] = factor;
}

// Block (kv head, tile of rows): dq.
template <class T, int kD>
__global__ void __launch_bounds__(QueryShape<kD>::kThreads, 2) query_grad_flash(GPU_ARGUMENT AttendGrad<T> p, GPU_ARGUMENT TileOrder order) {
  using Shape = QueryShape<kD>;
  constexpr int kTiles = Shape::kTiles, kRows = Shape::kRows, kKeys = Shape::kKeys, kPart = Shape::kPart, kThreads = Shape::kThreads;
  GPU_SHARED(shared);
  const RowTile<kD> queries{shared}, slopes_of_y{shared + kTileBytes<kD, kRows>};
  unsigned char* stages = shared + kTileBytes<kD, 2 * kRows>;
  const AttentionView<T>& view = p.view;
  const int32_t g = order.kv_head(), row = order.tile<TilesOf::rows>() * kRows, own = static_cast<int32_t>(warp_id()) * 16 * kTiles;
  fetch_rows<kRows, kThreads>(queries, grouped_rows(view, view.q, view.q_pitch, g), row, view.rows(), view.size);
  fetch_rows<kRows, kThreads>(slopes_of_y, grouped_rows(view, p.dy, p.dy_pitch, g), row, view.rows(), view.size);
  const Sight range = sight_of_rows(view, row, kRows);
  const auto stage = [&](int which, int part) { return RowTile<kD>{stages + (2 * which + part) * kTileBytes<kD, kKeys>}; };
  const auto fetch_stage = [&](int which, int32_t key) {
    const int64_t head = static_cast<int64_t>(g) * view.size;
    fetch_rows<kKeys, kThreads>(stage(which, 0), EvenRows<T>{view.k + head, view.kv_pitch}, key, range.end, view.size);
    fetch_rows<kKeys, kThreads>(stage(which, 1), EvenRows<T>{view.v + head, view.kv_pitch}, key, range.end, view.size);
    ptx::cp_async_commit();
  };

  fetch_stage(0, range.begin);
  const auto sight_of = [&](int32_t m) { return sight_of_row(view, m); };
  Sights<kTiles> sights;
  sights_of_thread(sights, row + own, sight_of);
  RowStats stats[kTiles][2];
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int32_t m = row + own + t * 16 + h * 8 + static_cast<int32_t>(lane_id()) / 4;
      stats[t][h] = m < view.rows() ? p.stats_of(g)[m] : RowStats{0, 0};
    }
  }
  const WarpSight sight = sight_of_warp(row + own, 16 * kTiles, view.rows() - 1, sight_of);
  const float factor = view.scale * kLog2E;
  Fragments<kTiles, kD> totals;
  clear(totals);
  int which = 0;
  for (int32_t key = range.begin; key < range.end; key += kKeys, which ^= 1) {
    ptx::cp_async_wait<0>();
    __syncthreads();
    if (key + kKeys < range.end) fetch_stage(which ^ 1, key + kKeys);
    GPU_NO_UNROLL
    for (int part = 0; part < kKeys; part += kPart) {
      if (!sight.sees_any(key + part, kPart)) continue;
      const RowTile<kD> keys = stage(which, 0).from_row(part);
      Fragments<kTiles, kPart> scores, slopes;
      multiply_rows<T>(scores, queries, own, keys);
      multiply_rows<T>(slopes, slopes_of_y, own, stage(which, 1).from_row(part));
      if (!sight.sees_all(key + part, kPart)) mask(scores, sights, key + part, range.end);
      differentiate_rows(scores, slopes, factor, stats);
      LeftFragments<kTiles, kPart> left;
      as_left<T>(left, slopes);
      add_weighted_rows<T>(totals, left, keys);
    }
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  float factors[kTiles][2];
  fill(factors, view.scale);
  store_rows<T>(queries, own, totals, factors, view.size, [&](int i) { return view.row_of(p.dq, p.dqkv_pitch, row + i, g); });
}

// Block (kv head, tile of keys): dk and dv, or one of them. The rows that see the keys come by.
template <class T, int kD, Makes kMakes>
__global__ void __launch_bounds__(KeyShape<kD>::kThreads, 256 / KeyShape<kD>::kThreads) key_grad_flash(GPU_ARGUMENT AttendGrad<T> p, GPU_ARGUMENT TileOrder order) {
  using Shape = KeyShape<kD>;
  constexpr int kTiles = Shape::kTiles, kRows = Shape::kRows, kKeys = Shape::kKeys, kPart = Shape::kPart, kThreads = Shape::kThreads;
  constexpr bool kMakesKeys = kMakes != Makes::values, kMakesValues = kMakes != Makes::keys;
  GPU_SHARED(shared);
  const RowTile<kD> keys{shared}, values{shared + kTileBytes<kD, kKeys>};
  unsigned char* stages = shared + kTileBytes<kD, 2 * kKeys>;
  const AttentionView<T>& view = p.view;
  const int32_t g = order.kv_head(), key = order.tile<TilesOf::keys>() * kKeys, own = static_cast<int32_t>(warp_id()) * 16 * kTiles;
  const int64_t head = static_cast<int64_t>(g) * view.size;
  const Sight range = sight_of_keys(view, key, kKeys);
  const auto stage = [&](int which, int part) { return RowTile<kD>{stages + which * Shape::kStage + part * kTileBytes<kD, kRows>}; };
  const auto stats_of_stage = [&](int which) { return reinterpret_cast<RowStats*>(stage(which, 2).base); };
  const auto fetch_stage = [&](int which, int32_t row) {
    const int i = static_cast<int>(threadIdx.x) * 2;
    if (i < kRows) ptx::cp_async16(stats_of_stage(which) + i, p.stats_of(g) + row + i, true);
    __syncwarp();  // ldmatrix and mma want the warp together
    fetch_rows<kRows, kThreads>(stage(which, 0), grouped_rows(view, view.q, view.q_pitch, g), row, view.rows(), view.size);
    fetch_rows<kRows, kThreads>(stage(which, 1), grouped_rows(view, p.dy, p.dy_pitch, g), row, view.rows(), view.size);
    ptx::cp_async_commit();
  };
  const auto key_row = [&](auto* base, int64_t pitch, int i) { return key + i < view.sequences.tokens ? base + head + (key + i) * pitch : nullptr; };

  fetch_rows<kKeys, kThreads>(keys, EvenRows<T>{view.k + head, view.kv_pitch}, key, view.sequences.tokens, view.size);
  if (kMakesKeys) fetch_rows<kKeys, kThreads>(values, EvenRows<T>{view.v + head, view.kv_pitch}, key, view.sequences.tokens, view.size);
  fetch_stage(0, range.begin);
  const auto sight_of = [&](int32_t j) { return sight_of_key(view, j); };
  Sights<kTiles> sights;
  sights_of_thread(sights, key + own, sight_of);
  const WarpSight sight = sight_of_warp(key + own, 16 * kTiles, view.sequences.tokens - 1, sight_of);
  const float factor = view.scale * kLog2E;
  Fragments<kTiles, kMakesKeys ? kD : 16> dk;
  Fragments<kTiles, kMakesValues ? kD : 16> dv;
  clear(dk);
  clear(dv);
  int which = 0;
  for (int32_t row = range.begin; row < range.end; row += kRows, which ^= 1) {
    ptx::cp_async_wait<0>();
    __syncthreads();
    if (row + kRows < range.end) fetch_stage(which ^ 1, row + kRows);
    GPU_NO_UNROLL
    for (int part = 0; part < kRows; part += kPart) {
      if (!sight.sees_any(row + part, kPart)) continue;
      const RowTile<kD> queries = stage(which, 0).from_row(part), slopes_of_y = stage(which, 1).from_row(part);
      Fragments<kTiles, kPart> scores, slopes;
      multiply_rows<T>(scores, keys, own, queries);
      if constexpr (kMakesKeys) multiply_rows<T>(slopes, values, own, slopes_of_y);
      else clear(slopes);
      if (!sight.sees_all(row + part, kPart)) mask(scores, sights, row + part, range.end);
      differentiate_keys(scores, slopes, factor, stats_of_stage(which) + part);
      LeftFragments<kTiles, kPart> left;
      if constexpr (kMakesValues) {
        as_left<T>(left, scores);
        add_weighted_rows<T>(dv, left, slopes_of_y);
      }
      if constexpr (kMakesKeys) {
        as_left<T>(left, slopes);
        add_weighted_rows<T>(dk, left, queries);
      }
    }
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  float factors[kTiles][2];
  if constexpr (kMakesKeys) {
    fill(factors, view.scale);
    store_rows<T>(keys, own, dk, factors, view.size, [&](int i) { return key_row(p.dk, p.dqkv_pitch, i); });
  }
  if constexpr (kMakesValues) {
    fill(factors, 1.0f);
    store_rows<T>(values, own, dv, factors, view.size, [&](int i) { return key_row(p.dv, p.dqkv_pitch, i); });
  }
}

template <int kD, class T>
void launch_query_grad(Queue& queue, const AttendGrad<T>& p) {
  using Shape = QueryShape<kD>;
  const TileOrder order = longest_first(queue, p.view, TilesOf::rows, Shape::kRows, p.heads / p.view.group);
  allow_shared(query_grad_flash<T, kD>, Shape::kShared);
  GPU_LAUNCH((query_grad_flash<T, kD>), order.blocks(), Shape::kThreads, Shape::kShared, queue.stream(), p, order);
}

template <int kD, Makes kMakes, class T>
void launch_key_grad(Queue& queue, const AttendGrad<T>& p) {
  using Shape = KeyShape<kD>;
  const TileOrder order = longest_first(queue, p.view, TilesOf::keys, Shape::kKeys, p.heads / p.view.group);
  allow_shared(key_grad_flash<T, kD, kMakes>, Shape::kShared);
  GPU_LAUNCH((key_grad_flash<T, kD, kMakes>), order.blocks(), Shape::kThreads, Shape::kShared, queue.stream(), p, order);
}

}  // namespace

template <class T>
bool attend_grad_on_tensor_cores(Queue& queue, const AttendGrad<T>& p) {
  const bool aligned = in_pieces(p.view) && in_pieces(p.dy, p.dy_pitch) && in_pieces(p.dq, p.dqkv_pitch) && in_pieces(p.dk, p.dqkv_pitch) && in_pieces(p.dv, p.dqkv_pitch);
  if (!aligned || !(p.view.scale > 0)) return false;
  with_head_size(p.view.size, [&](auto size) {
    constexpr int kD = decltype(size)::value;
    launch_query_grad<kD>(queue, p);
    if constexpr (kD <= 128) {
      launch_key_grad<kD, Makes::both>(queue, p);
    } else {
      launch_key_grad<kD, Makes::values>(queue, p);
      launch_key_grad<kD, Makes::keys>(queue, p);
    }
  });
  return true;
}

template bool attend_grad_on_tensor_cores(Queue&, const AttendGrad<f16>&);
template bool attend_grad_on_tensor_cores(Queue&, const AttendGrad<bf16>&);

}  // namespace lowrank::cuda
