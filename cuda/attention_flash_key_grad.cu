// dk and dv of heads up to 128 in 16 bits on tensor cores: a warp makes p, ds, dv and dk of its own keys, and waits for others once in 64 rows.
// Rows of q and dy come by in two buffers: while one is worked on, the next is on its way.
//
// Shapes, from 255 registers a thread (168 up to kD = 32, for three blocks on sm_80 and sm_90): dk and dv take kD registers for each 16 keys,
// the keys and values, left factors that never change, kD/2; scores and slopes of 16 rows 16. 32 keys a warp up to kD = 64, so that each
// fragment read from shared memory serves four mma; 16 keys up to 128. Keys and values come to where the buffers are, and are in registers
// before the first rows come.
#include "attention_flash_key_grad.cuh"

namespace lowrank::cuda {

namespace {

// Of kRows that come at once, kTurn are worked on at a time: 32 at 96 alone, which has registers for it (236 of 255 on sm_90, 224 with 16).
// With 32 keys a warp 32 rows spill, and at 128 16 rows take 254.
template <int kD>
struct KeyShape {
  static constexpr int kTiles = kD <= 64 ? 2 : 1, kBlocks = kD <= 32 ? 3 : 2;
  static constexpr int kKeys = kGradWarps * 16 * kTiles, kRows = 64, kTurn = kD == 96 ? 32 : 16;
  static constexpr int kStage = kTileBytes<kD, 2 * kRows>;
  static constexpr int kShared = 2 * kStage + 2 * kRows * static_cast<int>(sizeof(RowStats)) + kKeys * static_cast<int>(sizeof(Sight)) + static_cast<int>(sizeof(Place));
  static_assert(kTileBytes<kD, 2 * kKeys> <= 2 * kStage);
  static_assert(kKeys % kRows == 0 && kStatsPad % kRows == 0);  // the numbers of kRows rows are there, whichever tile's first row they begin with
};

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

// A warp's: its keys and values, which never change, what they see, and what is summed.
template <int kD>
struct OwnKeys {
  static constexpr int kTiles = KeyShape<kD>::kTiles;
  LeftFragments<kTiles, kD> keys, values;
  WarpSight<16 * kTiles> sight;
  Fragments<kTiles, kD> dk, dv;
};

// What kTurn rows add to dk and dv: those of q from `turn` of a stage on, in the batch from `row` on, and of dy kRows behind them.
template <class T, int kD, class Lane>
GPU_FN void add_turn(OwnKeys<kD>& own, const Lane& on_columns, const Lane& on_rows, const RowStats* stats, int32_t row, int turn, float factor) {
  constexpr int kTiles = KeyShape<kD>::kTiles, kRows = KeyShape<kD>::kRows, kTurn = KeyShape<kD>::kTurn;
  if (!own.sight.sees_any(row, kTurn)) return;
  Fragments<kTiles, kTurn> scores, slopes;
  multiply_left<T>(scores, own.keys, on_columns, turn);
  multiply_left<T>(slopes, own.values, on_columns, kRows + turn);
  if (!own.sight.sees_all(row, kTurn)) mask(scores, own.sight, row);
  differentiate_keys(scores, slopes, factor, stats);
  LeftFragments<kTiles, kTurn> left;
  as_left<T>(left, scores);
  add_weighted_rows<T>(own.dv, left, on_rows, kRows + turn);
  as_left<T>(left, slopes);
  add_weighted_rows<T>(own.dk, left, on_rows, turn);
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
  const int32_t first = static_cast<int32_t>(warp_id()) * 16 * kTiles;
  const RowTile<kD> keys{shared}, values{shared + kTileBytes<kD, kKeys>};
  fetch_rows<kKeys, kGradThreads>(keys, key_rows(view, place->g), place->first, view.sequences.tokens, view.size);
  ptx::cp_async_commit();
  find_sights<kKeys, kGradThreads>(sights, place->first, view.sequences.tokens - 1, [&](int32_t j) { return sight_of_key(view, j); });
  ptx::cp_async_wait<0>();
  __syncthreads();
  OwnKeys<kD> own;
  load_left(own.keys, keys, first);
  load_left(own.values, values, first);
  own.sight = {sights + first};
  clear(own.dk);
  clear(own.dv);
  __syncthreads();  // rows come where keys were

  const auto stage = [&](int which) { return RowTile<kD>{shared + which * Shape::kStage}; };
  using Lane = typename RowTile<kD>::TightLane;
  int which = 0;
  fetch_queries<kRows>(p, rows, place, sights[0].begin, stage(0), stats);
  for (int32_t row = sights[0].begin; row < sights[kKeys - 1].end; row += kRows, which ^= 1) {
    ptx::cp_async_wait<0>();
    __syncthreads();
    if (row + kRows < sights[kKeys - 1].end) fetch_queries<kRows>(p, rows, place, row + kRows, stage(which ^ 1), stats + (which ^ 1) * kRows);
    const auto on_columns = stage(which).template as_columns<Lane>(), on_rows = stage(which).template as_rows<Lane>();
    GPU_UNROLL
    for (int turn = 0; turn < kRows; turn += kTurn) add_turn<T>(own, on_columns, on_rows, stats + which * kRows + turn, row + turn, turn, factor);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  store_keys(p, place, p.dk, view.scale, keys, first, own.dk);
  store_keys(p, place, p.dv, 1.0f, values, first, own.dv);
}

template <int kD, class T>
void launch_key_grad(Queue& queue, const AttendGrad<T>& p) {
  using Shape = KeyShape<kD>;
  const TileOrder order = longest_first(queue, p.view, TilesOf::keys, Shape::kKeys, p.heads / p.view.group);
  allow_shared(key_grad_flash<T, kD>, Shape::kShared);
  GPU_LAUNCH((key_grad_flash<T, kD>), order.blocks(), kGradThreads, Shape::kShared, queue.stream(), p, grad_rows<kD>(p), order, p.view.scale * kLog2E);
}

}  // namespace

template <class T>
void key_grad_on_tensor_cores(Queue& queue, const AttendGrad<T>& p) {
  with_head_size(p.view.size, [&](auto size) {
    if constexpr (decltype(size)::value <= kAlone) launch_key_grad<decltype(size)::value>(queue, p);
  });
}

template void key_grad_on_tensor_cores(Queue&, const AttendGrad<f16>&);
template void key_grad_on_tensor_cores(Queue&, const AttendGrad<bf16>&);

}  // namespace lowrank::cuda
