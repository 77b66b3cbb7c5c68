// dk and dv of heads above 128: there both of 16 keys would take all registers of a warp, so two warps share keys, one makes p and dv, the
// other ds and dk, and p goes from one to the other by shared memory. Rows of q and dy come by in two buffers; keys and values are read anew
// for each tile of rows.
#include "attention_flash_key_grad.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kD = 256, kTiles = 1, kPairs = kGradWarps / 2, kBlocks = 2;
constexpr int kKeys = kPairs * 16 * kTiles, kRows = 16;
constexpr int kStage = kTileBytes<kD, 2 * kRows> + kRows * static_cast<int>(sizeof(RowStats));
constexpr int kExchange = kKeys * kRows * static_cast<int>(sizeof(float));
constexpr int kShared = kTileBytes<kD, 2 * kKeys> + 2 * kStage + kExchange + kKeys * static_cast<int>(sizeof(Sight)) + 2 * static_cast<int>(sizeof(Place));
static_assert(kKeys % kRows == 0 && kStatsPad % kRows == 0);  // the numbers of kRows rows are there, whichever tile's first row they begin with

using Tile = RowTile<kD>;

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

// By value: of two tiles by reference the compiler keeps both in local memory.
GPU_FN Tile either(bool one, const Tile& a, const Tile& b) { return {one ? a.base : b.base}; }

// Warps `pair` and kPairs + pair share keys. What is cheap to find is found anew in each turn: registers are for fragments.
template <class T>
__global__ void __launch_bounds__(kGradThreads, kBlocks)
key_grad_flash_in_pairs(GPU_ARGUMENT AttendGrad<T> p, GPU_ARGUMENT GradRows<T, kD> rows, GPU_ARGUMENT TileOrder order, float factor) {
  GPU_SHARED(shared);
  const Tile keys{shared}, values{shared + kTileBytes<kD, kKeys>};
  unsigned char* stages = shared + kTileBytes<kD, 2 * kKeys>;
  auto* sights = reinterpret_cast<Sight*>(stages + 2 * kStage);
  auto* place = reinterpret_cast<Place*>(sights + kKeys);
  auto* exchange = reinterpret_cast<float4*>(place + 2);  // aligned
  const AttentionView<T>& view = p.view;
  order.find<TilesOf::keys>(place, kKeys);
  const bool makes_values = warp_id() < kPairs;
  fetch_rows<kKeys, kGradThreads>(keys, key_rows(view, place->g), place->first, view.sequences.tokens, view.size);
  find_sights<kKeys, kGradThreads>(sights, place->first, view.sequences.tokens - 1, [&](int32_t j) { return sight_of_key(view, j); });
  __syncthreads();
  const auto stage = [&](int which, int part) { return Tile{stages + which * kStage + part * kTileBytes<kD, kRows>}; };
  const auto stats = [&](int which) { return reinterpret_cast<RowStats*>(stage(which, 2).base); };

  Fragments<kTiles, kD> totals;
  clear(totals);
  int which = 0;
  fetch_queries<kRows>(p, rows, place, sights[0].begin, stage(0, 0), stats(0));
  for (int32_t row = sights[0].begin; row < sights[kKeys - 1].end; row += kRows, which ^= 1) {
    ptx::cp_async_wait<0>();
    __syncthreads();
    if (row + kRows < sights[kKeys - 1].end) fetch_queries<kRows>(p, rows, place, row + kRows, stage(which ^ 1, 0), stats(which ^ 1));
    const int pair = ptx::made_here(static_cast<int>(warp_id())) % kPairs;
    const WarpSight<16 * kTiles> sight{sights + pair * 16 * kTiles};
    if (!sight.sees_any(row, kRows)) continue;
    const Tile queries = stage(which, 0), slopes_of_y = stage(which, 1);
    float4* given = exchange + pair * kRows / 8 * kTiles * 32;
    Fragments<kTiles, kRows> scores;  // or slopes
    multiply_rows<T>(scores, either(makes_values, keys, values), pair * 16 * kTiles, either(makes_values, queries, slopes_of_y));
    if (makes_values) {
      if (!sight.sees_all(row, kRows)) mask(scores, sight, row);
      give_probabilities(scores, factor, stats(which), given);
      ptx::bar_arrive(1 + pair, 64);  // the next ones are given behind the block's barrier, when these were taken
    } else {
      ptx::bar_sync(1 + pair, 64);
      take_probabilities(scores, stats(which), given);
    }
    LeftFragments<kTiles, kRows> left;
    as_left<T>(left, scores);
    add_weighted_rows<T>(totals, left, either(makes_values, slopes_of_y, queries));
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  const int32_t own = static_cast<int32_t>(warp_id()) % kPairs * 16 * kTiles;
  store_keys(p, place, p.dk + (makes_values ? p.dv - p.dk : 0), makes_values ? 1.0f : view.scale, either(makes_values, values, keys), own, totals);
}

}  // namespace

template <class T>
void key_grad_in_pairs_on_tensor_cores(Queue& queue, const AttendGrad<T>& p) {
  const TileOrder order = longest_first(queue, p.view, TilesOf::keys, kKeys, p.heads / p.view.group);
  allow_shared(key_grad_flash_in_pairs<T>, kShared);
  GPU_LAUNCH(key_grad_flash_in_pairs<T>, order.blocks(), kGradThreads, kShared, queue.stream(), p, grad_rows<kD>(p), order, p.view.scale * kLog2E);
}

template void key_grad_in_pairs_on_tensor_cores(Queue&, const AttendGrad<f16>&);
template void key_grad_in_pairs_on_tensor_cores(Queue&, const AttendGrad<bf16>&);

}  // namespace lowrank::cuda
