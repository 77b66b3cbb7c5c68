// The forward pass in 16 bits on tensor cores (FlashAttention-2's shape: Dao 2023). A block is a tile of rows of queries; keys and values
// come by in tiles of 64. While scores are made the values are on their way, while values are summed the next keys: one buffer each. The
// first tiles come together: in generation there may be no others.
//
// Shapes. 32 rows a warp (kTiles 2): each 256-byte fragment of keys or values that is read from shared memory serves two mma, else shared
// memory (128 bytes a clock) and not the tensor cores would be the limit on sm_80 and sm_90. Accumulators then take kD registers a
// thread, and the scores 64: up to kD = 128. At 128 a block has 65 KiB, so sm_80 and sm_90 hold two, sm_86 and sm_89 one; at 256
// (16 rows a warp) it has 97 KiB of their 99. Up to 64 three blocks fit on sm_80 and
// sm_90, so that while one makes exp2 others multiply.
#include "attention_forward.cuh"
#include "attention_mma.cuh"
#include "attention_order.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kKeys = 64;

template <int kTiles>
constexpr int kRows = kWarps * 16 * kTiles;

// Of a multiprocessor, which their registers must fit.
template <int kD>
constexpr int kBlocks = kD <= 64 ? 3 : 2;

template <int kTiles, int kD>
constexpr int kShared = kTileBytes<kD, kRows<kTiles> + 2 * kKeys> + kRows<kTiles> * static_cast<int>(sizeof(Sight)) + static_cast<int>(sizeof(Place));

template <class T, int kD>
using QueryRows = GroupedRows<T, kFetchStep<kThreads, kD>>;

// Of the rows that a thread holds a part of; rows 8 apart.
template <int kTiles>
struct Softmax {
  float maximum[kTiles][2];  // in units of ln 2
  float sum[kTiles][2];      // the thread's share
};

GPU_FN float max_of_quad(float value) {
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 1));
  return fmaxf(value, __shfl_xor_sync(kAllLanes, value, 2));
}
GPU_FN float sum_of_quad(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 1);
  return value + __shfl_xor_sync(kAllLanes, value, 2);
}

// The new maximum of one row; returns how much what was summed before shrinks.
template <int kTiles>
GPU_FN float raise_maximum(const float (&scores)[kTiles][kKeys / 8][4], float factor, Softmax<kTiles>& state, int t, int h) {
  float most = fmaxf(scores[t][0][2 * h], scores[t][0][2 * h + 1]);
  GPU_UNROLL
  for (int n = 1; n < kKeys / 8; ++n) most = fmaxf(most, fmaxf(scores[t][n][2 * h], scores[t][n][2 * h + 1]));
  most = fmaxf(state.maximum[t][h], max_of_quad(most) * factor);
  const float shrink = ptx::exp2_approximate(state.maximum[t][h] - most);
  state.maximum[t][h] = most;
  return shrink;
}

// Scores become probabilities relative to the new maxima; times `factor`, which is positive, they are in units of ln 2. Maxima rarely rise
// after the first tiles: totals are only touched where they did.
template <int kTiles, int kColumns>
GPU_FN void soften(float (&scores)[kTiles][kKeys / 8][4], float factor, Softmax<kTiles>& state, float (&totals)[kTiles][kColumns][4]) {
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    const float shrink[2] = {raise_maximum(scores, factor, state, t, 0), raise_maximum(scores, factor, state, t, 1)};
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) {
      float sum = 0;
      GPU_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        GPU_UNROLL
        for (int i = 2 * h; i < 2 * h + 2; ++i) sum += scores[t][n][i] = ptx::exp2_approximate(fmaf(scores[t][n][i], factor, -state.maximum[t][h]));
      }
      state.sum[t][h] = state.sum[t][h] * shrink[h] + sum;
    }
    if (!__any_sync(kAllLanes, shrink[0] != 1.0f || shrink[1] != 1.0f)) continue;
    GPU_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) totals[t][n][i] *= shrink[i / 2];
    }
  }
}

// What a run of keys gave, for join_parts.
template <int kTiles, int kColumns, class T>
GPU_FN void store_parts(const Attend<T>& p, const Softmax<kTiles>& state, const float (&totals)[kTiles][kColumns][4], int32_t row, int32_t g, int32_t run) {
  const int lane = static_cast<int>(lane_id());
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int32_t m = row + t * 16 + h * 8 + lane / 4;
      if (m >= p.view.rows()) continue;
      const int64_t part = run * static_cast<int64_t>(p.view.tokens) * p.heads + p.view.scalar_of(m, g, p.heads);
      if (lane % 4 == 0) p.parts.maxima[part] = state.maximum[t][h], p.parts.sums[part] = state.sum[t][h];
      GPU_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        const int column = n * 8 + lane % 4 * 2;
        if (column < p.view.size) store<2>(p.parts.y + part * p.view.size + column, Floats<2>{{totals[t][n][2 * h], totals[t][n][2 * h + 1]}});
      }
    }
  }
}

template <int kTiles, int kD, int kColumns, class T>
GPU_FN void store_result(const Attend<T>& p, const Softmax<kTiles>& state, const float (&totals)[kTiles][kColumns][4], const RowTile<kD>& tile, int32_t row, int32_t g) {
  const AttentionView<T>& view = p.view;
  const int32_t own = static_cast<int32_t>(warp_id()) * 16 * kTiles;
  float factors[kTiles][2];
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) {
      factors[t][h] = 1.0f / state.sum[t][h];
      const int32_t m = row + own + t * 16 + h * 8 + static_cast<int32_t>(lane_id()) / 4;
      if (p.lse == nullptr || lane_id() % 4 != 0 || m >= view.rows()) continue;
      p.lse[view.scalar_of(m, g, p.heads)] = state.maximum[t][h] * kLn2 + logf(state.sum[t][h]);
    }
  }
  store_rows<T>(tile, own, totals, factors, view.size, [&](int i) { return view.row_of(p.y, p.y_pitch, row + i, g); });
}

// Block (kv head, tile of rows; run).
template <class T, int kTiles, int kD>
__global__ void __launch_bounds__(kThreads, kBlocks<kD>)
attend_flash(GPU_ARGUMENT Attend<T> p, GPU_ARGUMENT QueryRows<T, kD> rows, GPU_ARGUMENT TileOrder order, float factor) {
  GPU_SHARED(shared);
  const RowTile<kD> queries{shared}, keys{queries.base + kTileBytes<kD, kRows<kTiles>>}, values{keys.base + kTileBytes<kD, kKeys>};
  auto* sights = reinterpret_cast<Sight*>(values.base + kTileBytes<kD, kKeys>);
  auto* place = reinterpret_cast<Place*>(sights + kRows<kTiles>);
  const AttentionView<T>& view = p.view;
  check_offsets(view.sequences);
  order.find<TilesOf::rows>(place, kRows<kTiles>);
  const int32_t own = static_cast<int32_t>(warp_id()) * 16 * kTiles;
  fetch_rows<kRows<kTiles>, kThreads>(queries, rows.of(place->g), place->first, view.rows(), view.size);
  const Sight range = p.keys_of_run(sight_of_rows(view, place->first, kRows<kTiles>), static_cast<int32_t>(blockIdx.y));
  const auto fetch = [&](const RowTile<kD>& tile, const T* base, int32_t key) {
    fetch_rows<kKeys, kThreads>(tile, EvenRows<T>{{base + static_cast<int64_t>(place->g) * view.size}, view.kv_pitch}, key, range.end, view.size);
    ptx::cp_async_commit();
  };

  fetch(keys, view.k, range.begin);
  fetch(values, view.v, range.begin);
  Softmax<kTiles> state;
  GPU_UNROLL
  for (int i = 0; i < 2 * kTiles; ++i) state.maximum[i / 2][i % 2] = kLowest, state.sum[i / 2][i % 2] = 0;
  find_sights<kRows<kTiles>, kThreads>(sights, place->first, view.rows() - 1, [&](int32_t m) {
    const Sight whole = sight_of_row(view, m);
    return Sight{whole.begin, whole.end < range.end ? whole.end : range.end};
  });
  __syncthreads();
  const WarpSight<16 * kTiles> sight{sights + own};
  Fragments<kTiles, kD> totals;
  clear(totals);
  for (int32_t key = range.begin; key < range.end; key += kKeys) {
    LeftFragments<kTiles, kKeys> probabilities;
    if (key == range.begin) ptx::cp_async_wait<1>();
    else ptx::cp_async_wait<0>();
    __syncthreads();
    if (key != range.begin) fetch(values, view.v, key);
    if (sight.sees_any(key, kKeys)) {
      Fragments<kTiles, kKeys> scores;
      multiply_rows<T>(scores, queries, own, keys);
      if (!sight.sees_all(key, kKeys)) mask(scores, sight, key);
      soften(scores, factor, state, totals);
      as_left<T>(probabilities, scores);
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
    if (key + kKeys < range.end) fetch(keys, view.k, key + kKeys);
    if (sight.sees_any(key, kKeys)) add_weighted_rows<T>(totals, probabilities, values);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    GPU_UNROLL
    for (int h = 0; h < 2; ++h) state.sum[t][h] = sum_of_quad(state.sum[t][h]);
  }
  if (p.parts.runs > 1) store_parts(p, state, totals, place->first + own, place->g, static_cast<int32_t>(blockIdx.y));
  else store_result(p, state, totals, queries, place->first, place->g);
}

template <int kTiles, int kD, class T>
void launch_flash(Queue& queue, const Attend<T>& p) {
  const TileOrder order = longest_first(queue, p.view, TilesOf::rows, kRows<kTiles>, p.heads / p.view.group);
  const QueryRows<T, kD> rows(p.view, Pitched<T>{p.view.q, p.view.q_pitch});
  const dim3 grid(order.blocks(), static_cast<unsigned>(p.parts.runs));
  const float factor = p.view.scale * kLog2E;
  allow_shared(attend_flash<T, kTiles, kD>, kShared<kTiles, kD>);
  GPU_LAUNCH((attend_flash<T, kTiles, kD>), grid, kThreads, (kShared<kTiles, kD>), queue.stream(), p, rows, order, factor);
}

}  // namespace

template <class T>
bool attend_on_tensor_cores(Queue& queue, const Attend<T>& p) {
  if (!in_pieces(p.view) || !in_pieces(p.y, p.y_pitch) || !(p.view.scale > 0)) return false;
  with_head_size(p.view.size, [&](auto size) {
    constexpr int kD = decltype(size)::value;
    // Few rows, as in generation: a small tile of queries leaves room for more blocks, and reading the cache is what takes the time.
    const bool few = static_cast<int64_t>(p.view.tokens) * p.view.group <= kRows<1>;
    if (kD > 128 || few) launch_flash<1, kD>(queue, p);
    else launch_flash<kD <= 128 ? 2 : 1, kD>(queue, p);
  });
  return true;
}

template bool attend_on_tensor_cores(Queue&, const Attend<f16>&);
template bool attend_on_tensor_cores(Queue&, const Attend<bf16>&);

}  // namespace lowrank::cuda
