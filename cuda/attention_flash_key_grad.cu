// dk and dv of the gradient in 16 bits on tensor cores. Rows of q and dy come by in two buffers: while one is worked on, the next is on its
// way. Scores are made as [keys, rows], so that p and ds are left factors as they are.
//
// Shapes, from 255 registers a thread (168 up to kD = 32, for three blocks on sm_80 and sm_90):
//   alone     a warp makes p, ds, dv and dk of its own keys, and waits for others once in 64 rows. dk and dv take kD registers for each 16 keys,
//             the keys and values, left factors that never change, kD/2; scores and slopes of 16 rows 16. 32 keys up to kD = 64, so that each
//             fragment read from shared memory serves four mma; 16 keys up to 128. Keys and values come to where the buffers are, and are
//             in registers before the first rows come.
//   in pairs  at 256 dk and dv of 16 keys would take all registers. Two warps share them: one makes p and dv, another ds and dk, and p goes from
//             one to the other by shared memory. Keys and values are read anew for each tile of rows.
#include <type_traits>

#include "attention_flash_grad.cuh"

namespace lowrank::cuda {

namespace {

// Up to this size a warp works alone.
constexpr int kAlone = 128;

// Of kRows that come at once, kTurn are worked on at a time.
template <int kD>
struct KeyShape {
  static constexpr int kTiles = kD <= 64 ? 2 : 1, kBlocks = kD <= 32 ? 3 : 2;
  static constexpr int kKeys = kGradWarps * 16 * kTiles, kRows = 64, kTurn = kD == 96 ? 32 : 16;
  static constexpr int kStage = kTileBytes<kD, 2 * kRows>;
  static constexpr int kShared = 2 * kStage + 2 * kRows * static_cast<int>(sizeof(RowStats)) + kKeys * static_cast<int>(sizeof(Sight)) + static_cast<int>(sizeof(Place));
  static_assert(kTileBytes<kD, 2 * kKeys> <= 2 * kStage);
};

template <int kD>
struct PairShape {
  static constexpr int kTiles = kD <= 128 ? 2 : 1, kPairs = kGradWarps / 2;
  static constexpr int kKeys = kPairs * 16 * kTiles, kRows = kD <= 128 ? 32 : 16;
  static constexpr int kStage = kTileBytes<kD, 2 * kRows> + kRows * static_cast<int>(sizeof(RowStats));
  static constexpr int kExchange = kKeys * kRows * static_cast<int>(sizeof(float));
  static constexpr int kShared = kTileBytes<kD, 2 * kKeys> + 2 * kStage + kExchange + kKeys * static_cast<int>(sizeof(Sight)) + 2 * static_cast<int>(sizeof(Place));
};

// Of two rows that lie one behind the other.
struct alignas(16) TwoStats {
  RowStats rows[2];
};

// body(t, n, rows) for each fragment of a matrix [keys, rows]: rows are those of its two columns, whose numbers lie in shared memory.
template <int kTiles, int kColumns, class Body>
GPU_FN void for_fragments(const RowStats* stats, const Body& body) {
  GPU_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    const int column = n * 8 + static_cast<int>(lane_id()) % 4 * 2;
    const TwoStats two = *reinterpret_cast<const TwoStats*>(stats + column);
    GPU_UNROLL
    for (int t = 0; t < kTiles; ++t) body(t, n, two.rows);
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

// Scores and slopes (dy.v) of keys: scores become p, slopes ds.
template <int kTiles, int kColumns>
GPU_FN void differentiate_keys(float (&scores)[kTiles][kColumns][4], float (&slopes)[kTiles][kColumns][4], float factor, const RowStats* stats) {
  for_fragments<kTiles, kColumns>(stats, [&](int t, int n, const RowStats (&rows)[2]) {
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) {
      scores[t][n][i] = probability_of(scores[t][n][i], factor, rows[i % 2]);
      slopes[t][n][i] = scores[t][n][i] * (slopes[t][n][i] - rows[i % 2].delta);
    }
  });
}

// Block (kv head, tile of keys): dk and dv. The rows that see the keys come by.
template <class T, int kD>
__global__ void __launch_bounds__(kGradThreads, KeyShape<kD>::kBlocks)
key_grad_flash(GPU_ARGUMENT AttendGrad<T> p, GPU_ARGUMENT GradRows<T, kD> rows, GPU_ARGUMENT TileOrder order, float factor) {
  using Shape = KeyShape<kD>;
  constexpr int kTiles = Shape::kTiles, kRows = Shape::kRows, kKeys = Shape::kKeys, kTurn = Shape::kTurn;
  GPU_SHARED(shared);
  auto* stats = reinterpret_cast<RowStats*>(shared + 2 * Shape::kStage);
  auto* sights = reinterpret_cast<Sight*>(stats + 2 * kRows);
  auto* place = reinterpret_cast<Place*>(sights + kKeys);
  const AttentionView<T>& view = p.view;
  order.find<TilesOf::keys>(place, kKeys);
  const int32_t own = static_cast<int32_t>(warp_id()) * 16 * kTiles;
  const RowTile<kD> keys{shared}, values{shared + kTileBytes<kD, kKeys>};
  fetch_rows<kKeys, kGradThreads>(keys, key_rows(view, place->g), place->first, view.sequences.tokens, view.size);
  ptx::cp_async_commit();
  find_sights<kKeys, kGradThreads>(sights, place->first, view.sequences.tokens - 1, [&](int32_t j) { return sight_of_key(view, j); });
  ptx::cp_async_wait<0>();
  __syncthreads();
  LeftFragments<kTiles, kD> left_keys, left_values;
  load_left(left_keys, keys, own);
  load_left(left_values, values, own);
  __syncthreads();  // rows come where they were
  const auto stage = [&](int which) { return RowTile<kD>{shared + which * Shape::kStage}; };
  const auto fetch_stage = [&](int which, int32_t row) {
    const int i = static_cast<int>(threadIdx.x) * 2;
    if (i < kRows) ptx::cp_async16(stats + which * kRows + i, p.stats_of(place->g) + row + i, true);
    __syncwarp();  // ldmatrix and mma want the warp together
    fetch_rows<kRows, kGradThreads>(stage(which), rows.of(place->g), row, view.rows(), view.size);
    ptx::cp_async_commit();
  };

  Fragments<kTiles, kD> dk, dv;
  clear(dk);
  clear(dv);
  const WarpSight<16 * kTiles> sight{sights + own};
  int which = 0;
  fetch_stage(0, sights[0].begin);
  for (int32_t row = sights[0].begin; row < sights[kKeys - 1].end; row += kRows, which ^= 1) {
    ptx::cp_async_wait<0>();
    __syncthreads();
    if (row + kRows < sights[kKeys - 1].end) fetch_stage(which ^ 1, row + kRows);
    const auto as_columns = stage(which).as_columns(), as_rows = stage(which).as_rows();  // q, and kRows behind it dy
    GPU_UNROLL
    for (int turn = 0; turn < kRows; turn += kTurn) {
      if (!sight.sees_any(row + turn, kTurn)) continue;
      Fragments<kTiles, kTurn> scores, slopes;
      multiply_left<T>(scores, left_keys, as_columns, turn);
      multiply_left<T>(slopes, left_values, as_columns, kRows + turn);
      if (!sight.sees_all(row + turn, kTurn)) mask(scores, sight, row + turn);
      differentiate_keys(scores, slopes, factor, stats + which * kRows + turn);
      LeftFragments<kTiles, kTurn> left;
      as_left<T>(left, scores);
      add_weighted_rows<T>(dv, left, as_rows, kRows + turn);
      as_left<T>(left, slopes);
      add_weighted_rows<T>(dk, left, as_rows, turn);
    }
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  const auto store = [&](T* to, const RowTile<kD>& tile, const Fragments<kTiles, kD>& totals, float scale) {
    float factors[kTiles][2];
    fill(factors, scale);
    store_rows<T>(tile, own, totals, factors, view.size, [&](int i) {
      const int32_t j = place->first + i;
      return j < view.sequences.tokens ? to + static_cast<int64_t>(place->g) * view.size + j * p.dqkv_pitch : nullptr;
    });
  };
  store(p.dk, keys, dk, view.scale);
  store(p.dv, values, dv, 1.0f);
}

// By value: of two tiles by reference the compiler keeps both in local memory.
template <int kD>
GPU_FN RowTile<kD> either(bool one, const RowTile<kD>& a, const RowTile<kD>& b) {
  return {one ? a.base : b.base};
}

// The same where a warp alone has too few registers. Warps `pair` and kPairs + pair share keys: one makes p and dv,
// the other ds and dk. What is cheap to find is found anew in each turn: registers are for fragments.
template <class T, int kD>
__global__ void __launch_bounds__(kGradThreads, kGradBlocks<kD>)
key_grad_flash_in_pairs(GPU_ARGUMENT AttendGrad<T> p, GPU_ARGUMENT GradRows<T, kD> rows, GPU_ARGUMENT TileOrder order, float factor) {
  using Shape = PairShape<kD>;
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
  fetch_rows<kKeys, kGradThreads>(keys, key_rows(view, place->g), key, view.sequences.tokens, view.size);
  const Sight range = sight_of_keys(view, key, kKeys);
  const auto stage = [&](int which, int part) { return RowTile<kD>{stages + which * Shape::kStage + part * kTileBytes<kD, kRows>}; };
  const auto stats_of_stage = [&](int which) { return reinterpret_cast<RowStats*>(stage(which, 2).base); };
  const auto fetch_stage = [&](int which, int32_t row) {
    const int i = static_cast<int>(threadIdx.x) * 2;
    if (i < kRows) ptx::cp_async16(stats_of_stage(which) + i, p.stats_of(place->g) + row + i, true);
    __syncwarp();  // ldmatrix and mma want the warp together
    fetch_rows<kRows, kGradThreads>(stage(which, 0), rows.of(place->g), row, view.rows(), view.size);
    ptx::cp_async_commit();
  };

  fetch_stage(0, range.begin);
  find_sights<kKeys, kGradThreads>(sights, key, view.sequences.tokens - 1, [&](int32_t j) { return sight_of_key(view, j); });
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
      ptx::bar_arrive(1 + pair, 64);  // the next ones are given behind the block's barrier, when these were taken
    } else {
      ptx::bar_sync(1 + pair, 64);
      take_probabilities(scores, stats_of_stage(which), given);
    }
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
void launch_key_grad(Queue& queue, const AttendGrad<T>& p) {
  using Shape = std::conditional_t<kD <= kAlone, KeyShape<kD>, PairShape<kD>>;
  const TileOrder order = longest_first(queue, p.view, TilesOf::keys, Shape::kKeys, p.heads / p.view.group);
  const GradRows<T, kD> rows = grad_rows<kD>(p);
  const float factor = p.view.scale * kLog2E;
  if constexpr (kD <= kAlone) {
    allow_shared(key_grad_flash<T, kD>, Shape::kShared);
    GPU_LAUNCH((key_grad_flash<T, kD>), order.blocks(), kGradThreads, Shape::kShared, queue.stream(), p, rows, order, factor);
  } else {
    allow_shared(key_grad_flash_in_pairs<T, kD>, Shape::kShared);
    GPU_LAUNCH((key_grad_flash_in_pairs<T, kD>), order.blocks(), kGradThreads, Shape::kShared, queue.stream(), p, rows, order, factor);
  }
}

}  // namespace

template <class T>
void key_grad_on_tensor_cores(Queue& queue, const AttendGrad<T>& p) {
  with_head_size(p.view.size, [&](auto size) { launch_key_grad<decltype(size)::value>(queue, p); });
}

template void key_grad_on_tensor_cores(Queue&, const AttendGrad<f16>&);
template void key_grad_on_tensor_cores(Queue&, const AttendGrad<bf16>&);

}  // namespace lowrank::cuda
