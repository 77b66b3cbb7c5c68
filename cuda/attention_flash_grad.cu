// The gradient in 16 bits on tensor cores, in the two passes of attention_grad.cu. Tiles of the other side come by in two buffers: while
// one is worked on, the next is on its way. dk and dv are made from scores [keys, rows], so that p and ds are left factors as they are.
//
// Shapes, from 255 registers a thread (168 up to kD = 64, for three blocks on sm_80 and sm_90) and 99 KiB of shared memory on sm_86 and sm_89:
//   dq       accumulates kD/2 registers for each 16 rows; scores and slopes of 16 keys take 8 each. 32 rows a warp up to kD = 128, with tiles
//            of 32 keys, so that each fragment read from shared memory serves two mma: 98 KiB at 128. At 256: 16 rows, tiles of 16 keys.
//   dk, dv   would take all registers together, and leave a warp 16 keys. So two warps share 32 keys (at 256 16): one makes p and dv, another ds
//            and dk, and p goes from one to the other by shared memory. Keys and values, left factors that never change, are read anew for each
//            tile of rows: held in registers they left room for 16 rows at a time at kD = 128, which took 8 to 12 % longer on an H200.
#include "attention_backward.cuh"
#include "attention_mma.cuh"
#include "attention_order.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;

// Blocks of a multiprocessor, which their registers must fit.
template <int kD>
constexpr int kBlocks = kD <= 64 ? 3 : 2;

template <int kD>
struct QueryShape {
  static constexpr int kTiles = kD <= 128 ? 2 : 1;
  static constexpr int kRows = kWarps * 16 * kTiles, kKeys = kD <= 128 ? 32 : 16;
  static constexpr int kShared = kTileBytes<kD, 2 * kRows + 4 * kKeys> + kRows * static_cast<int>(sizeof(Sight) + sizeof(RowStats)) + static_cast<int>(sizeof(Place));
};

template <int kD>
struct KeyShape {
  static constexpr int kTiles = kD <= 128 ? 2 : 1, kPairs = kWarps / 2;
  static constexpr int kKeys = kPairs * 16 * kTiles, kRows = kD <= 128 ? 32 : 16;
  static constexpr int kStage = kTileBytes<kD, 2 * kRows> + kRows * static_cast<int>(sizeof(RowStats));
  static constexpr int kExchange = kKeys * kRows * static_cast<int>(sizeof(float));
  static constexpr int kShared = kTileBytes<kD, 2 * kKeys> + 2 * kStage + kExchange + kKeys * static_cast<int>(sizeof(Sight)) + 2 * static_cast<int>(sizeof(Place));
};

// What both passes fetch, with as many threads.
template <class T, int kD>
struct GradRows {
  GroupedRows<T, kFetchStep<kThreads, kD>> q, dy;
};

// Scores become p; times `factor` they are in units of ln 2. -inf becomes 0.
GPU_FN float probability_of(float score, float factor, const RowStats& row) { return ptx::exp2_approximate(fmaf(score, factor, -row.lse)); }

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

// body(t, n, rows) for each fragment of a matrix [keys, rows]: rows are those of its two columns, whose numbers lie in shared memory.
template <int kTiles, int kColumns, class Body>
GPU_FN void for_fragments(const RowStats* stats, const Body& body) {
  GPU_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    const int column = n * 8 + static_cast<int>(lane_id()) % 4 * 2;
    const RowStats rows[2] = {stats[column], stats[column + 1]};
    GPU_UNROLL
    for (int t = 0; t < kTiles; ++t) body(t, n, rows);
  }
}

// Scores become p, and a copy of it goes to the warp that makes dk.
template <int kTiles, int kColumns>
GPU_FN void give_probabilities(float (&scores)[kTiles][kColumns][4], float factor, const RowStats* stats, float4* exchange) {
  for_fragments<kTiles, kColumns>(stats, [&](int t, int n, const RowStats (&rows)[2]) {
    float(&p)[4] = scores[t][n];
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) p[i] = probability_of(p[i], factor, rows[i % 2]);
    exchange[(t * kColumns + n) * 32 + lane_id()] = {p[0], p[1], p[2], p[3]};
  });
}

// Slopes become ds.
template <int kTiles, int kColumns>
GPU_FN void take_probabilities(float (&slopes)[kTiles][kColumns][4], const RowStats* stats, const float4* exchange) {
  for_fragments<kTiles, kColumns>(stats, [&](int t, int n, const RowStats (&rows)[2]) {
    const float4 p = exchange[(t * kColumns + n) * 32 + lane_id()];
    float(&slope)[4] = slopes[t][n];
    slope[0] = p.x * (slope[0] - rows[0].delta), slope[1] = p.y * (slope[1] - rows[1].delta);
    slope[2] = p.z * (slope[2] - rows[0].delta), slope[3] = p.w * (slope[3] - rows[1].delta);
  });
}

template <int kTiles>
GPU_FN void fill(float (&factors)[kTiles][2], float factor) {
  GPU_UNROLL
  for (int t = 0; t < kTiles; ++t) factors[t][0] = factors[t][1] = factor;
}

// Block (kv head, tile of rows): dq.
template <class T, int kD>
__global__ void __launch_bounds__(kThreads, kBlocks<kD>)
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
  fetch_rows<kRows, kThreads>(queries, rows.q.of(place->g), place->first, view.rows(), view.size);
  fetch_rows<kRows, kThreads>(slopes_of_y, rows.dy.of(place->g), place->first, view.rows(), view.size);
  const Sight range = sight_of_rows(view, place->first, kRows);
  const auto stage = [&](int which, int part) { return RowTile<kD>{stages + (2 * which + part) * kTileBytes<kD, kKeys>}; };
  const auto fetch_stage = [&](int which, int32_t key) {
    const int64_t head = static_cast<int64_t>(place->g) * view.size;
    fetch_rows<kKeys, kThreads>(stage(which, 0), EvenRows<T>{view.k + head, view.kv_pitch}, key, range.end, view.size);
    fetch_rows<kKeys, kThreads>(stage(which, 1), EvenRows<T>{view.v + head, view.kv_pitch}, key, range.end, view.size);
    ptx::cp_async_commit();
  };

  fetch_stage(0, range.begin);
  find_sights<kRows, kThreads>(sights, place->first, view.rows() - 1, [&](int32_t m) { return sight_of_row(view, m); });
  for (auto i = static_cast<int32_t>(threadIdx.x); i < kRows; i += kThreads) {
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

// By value: of two tiles by reference the compiler keeps both in local memory.
template <int kD>
GPU_FN RowTile<kD> either(bool one, const RowTile<kD>& a, const RowTile<kD>& b) {
  return {one ? a.base : b.base};
}

// Block (kv head, tile of keys): dk and dv. The rows that see the keys come by. Warps `pair` and kPairs + pair share keys: one makes p and dv,
// the other ds and dk. What is cheap to find is found anew in each turn: registers are for fragments.
template <class T, int kD>
__global__ void __launch_bounds__(kThreads, kBlocks<kD>)
key_grad_flash(GPU_ARGUMENT AttendGrad<T> p, GPU_ARGUMENT GradRows<T, kD> rows, GPU_ARGUMENT TileOrder order, float factor) {
  using Shape = KeyShape<kD>;
  constexpr int kTiles = Shape::kTiles, kRows = Shape::kRows, kKeys = Shape::kKeys, kPairs = Shape::kPairs;
  GPU_SHARED(shared);
  const RowTile<kD> keys{shared}, values{shared + kTileBytes<kD, kKeys>};
  unsigned char* stages = shared + kTileBytes<kD, 2 * kKeys>;
  auto* sights = reinterpret_cast<Sight*>(stages + 2 * Shape::kStage);
  auto* place = reinterpret_cast<Place*>(sights + kKeys);
  auto* exchange = reinterpret_cast<float4*>(place + 2);  // aligned
  const AttentionView<T>& view = p.view;
  order.find<TilesOf::keys>(place, kKeys);
  const bool makes_values = warp_id() < kPairs;
  const int32_t key = place->first, own = static_cast<int32_t>(warp_id()) % kPairs * 16 * kTiles;
  const int64_t head = static_cast<int64_t>(place->g) * view.size;
  fetch_rows<kKeys, kThreads>(keys, EvenRows<T>{view.k + head, view.kv_pitch}, key, view.sequences.tokens, view.size);
  fetch_rows<kKeys, kThreads>(values, EvenRows<T>{view.v + head, view.kv_pitch}, key, view.sequences.tokens, view.size);
  const Sight range = sight_of_keys(view, key, kKeys);
  const auto stage = [&](int which, int part) { return RowTile<kD>{stages + which * Shape::kStage + part * kTileBytes<kD, kRows>}; };
  const auto stats_of_stage = [&](int which) { return reinterpret_cast<RowStats*>(stage(which, 2).base); };
  const auto fetch_stage = [&](int which, int32_t row) {
    const int i = static_cast<int>(threadIdx.x) * 2;
    if (i < kRows) ptx::cp_async16(stats_of_stage(which) + i, p.stats_of(place->g) + row + i, true);
    __syncwarp();  // ldmatrix and mma want the warp together
    fetch_rows<kRows, kThreads>(stage(which, 0), rows.q.of(place->g), row, view.rows(), view.size);
    fetch_rows<kRows, kThreads>(stage(which, 1), rows.dy.of(place->g), row, view.rows(), view.size);
    ptx::cp_async_commit();
  };

  fetch_stage(0, range.begin);
  find_sights<kKeys, kThreads>(sights, key, view.sequences.tokens - 1, [&](int32_t j) { return sight_of_key(view, j); });
  __syncthreads();
  Fragments<kTiles, kD> totals;
  clear(totals);
  int which = 0;
  for (int32_t row = range.begin; row < sights[kKeys - 1].end; row += kRows, which ^= 1) {
    ptx::cp_async_wait<0>();
    __syncthreads();
    if (row + kRows < sights[kKeys - 1].end) fetch_stage(which ^ 1, row + kRows);
    const int pair = ptx::made_here(static_cast<int>(warp_id())) % kPairs;
    const WarpSight<16 * kTiles> sight{sights + pair * 16 * kTiles};
    if (!sight.sees_any(row, kRows)) continue;
    const RowTile<kD> queries = stage(which, 0), slopes_of_y = stage(which, 1);
    float4* given = exchange + pair * kRows / 8 * kTiles * 32;
    Fragments<kTiles, kRows> scores;  // or slopes
    multiply_rows<T>(scores, either(makes_values, keys, values), pair * 16 * kTiles, either(makes_values, queries, slopes_of_y));
    if (makes_values) {
      if (!sight.sees_all(row, kRows)) mask(scores, sight, row);
      give_probabilities(scores, factor, stats_of_stage(which), given);
    }
    ptx::bar_sync(1 + pair, 64);
    if (!makes_values) take_probabilities(scores, stats_of_stage(which), given);
    LeftFragments<kTiles, kRows> left;
    as_left<T>(left, scores);
    add_weighted_rows<T>(totals, left, either(makes_values, slopes_of_y, queries));
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  float factors[kTiles][2];
  fill(factors, makes_values ? 1.0f : view.scale);
  T* to = p.dk + (makes_values ? p.dv - p.dk : 0) + static_cast<int64_t>(place->g) * view.size;
  store_rows<T>(either(makes_values, values, keys), own, totals, factors, view.size, [&](int i) {
    const int32_t j = place->first + i;
    return j < view.sequences.tokens ? to + j * p.dqkv_pitch : nullptr;
  });
}

template <int kD, class T>
void launch_query_grad(Queue& queue, const AttendGrad<T>& p) {
  using Shape = QueryShape<kD>;
  const TileOrder order = longest_first(queue, p.view, TilesOf::rows, Shape::kRows, p.heads / p.view.group);
  const GradRows<T, kD> rows{{p.view, p.view.q, p.view.q_pitch}, {p.view, p.dy, p.dy_pitch}};
  allow_shared(query_grad_flash<T, kD>, Shape::kShared);
  GPU_LAUNCH((query_grad_flash<T, kD>), order.blocks(), kThreads, Shape::kShared, queue.stream(), p, rows, order, p.view.scale * kLog2E);
}

template <int kD, class T>
void launch_key_grad(Queue& queue, const AttendGrad<T>& p) {
  using Shape = KeyShape<kD>;
  const TileOrder order = longest_first(queue, p.view, TilesOf::keys, Shape::kKeys, p.heads / p.view.group);
  const GradRows<T, kD> rows{{p.view, p.view.q, p.view.q_pitch}, {p.view, p.dy, p.dy_pitch}};
  allow_shared(key_grad_flash<T, kD>, Shape::kShared);
  GPU_LAUNCH((key_grad_flash<T, kD>), order.blocks(), kThreads, Shape::kShared, queue.stream(), p, rows, order, p.view.scale * kLog2E);
}

}  // namespace

template <class T>
bool attend_grad_on_tensor_cores(Queue& queue, const AttendGrad<T>& p) {
  const bool aligned = in_pieces(p.view) && in_pieces(p.dy, p.dy_pitch) && in_pieces(p.dq, p.dqkv_pitch) && in_pieces(p.dk, p.dqkv_pitch) && in_pieces(p.dv, p.dqkv_pitch);
  if (!aligned || !(p.view.scale > 0)) return false;
  with_head_size(p.view.size, [&](auto size) {
    constexpr int kD = decltype(size)::value;
    launch_query_grad<kD>(queue, p);
    launch_key_grad<kD>(queue, p);
  });
  return true;
}

template bool attend_grad_on_tensor_cores(Queue&, const AttendGrad<f16>&);
template bool attend_grad_on_tensor_cores(Queue&, const AttendGrad<bf16>&);

}  // namespace lowrank::cuda
