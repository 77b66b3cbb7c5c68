#include "skinny_gated.h"

#include "../activation.cuh"
#include "../pack.cuh"
#include "skinny_sums.h"
#include "skinny_tiles.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kThreads = kSkinnyThreads, kStages = 2;

struct Launch {
  Gated gated;
  Factors factors;
  PartialSums sums;
  int32_t tiles_down;  // a block's
};

// Tiles of gate and up, and the side; h takes gate's place. A warp has 16 rows and all ranks.
template <int kRanks>
struct Forward {
  static constexpr int kRows = 128, kTilesAcross = 4, kMostAcross = 128;  // a block's, at least and at most
  static constexpr int kTile = tile_bytes(kRows), kStage = 2 * kTile + side_bytes(kRanks), kShared = kStages * kStage;
  static_assert(kShared <= kMostShared);
};

// Tiles of gate, up and dy, and a side each for gate and up, whose places dgate and dup take; the talls of both lie behind the stages. Four
// warps have gate's columns and four have up's: each has 16 rows or 16 columns of a tile, and all ranks.
template <int kRanks>
struct Backward {
  static constexpr int kRows = 64, kTilesAcross = 4, kColumns = kTilesAcross * kTileColumns, kMostDown = 4096 / kRows;
  static constexpr int kTile = tile_bytes(kRows), kSide = side_bytes(kRanks), kTall = tall_bytes(kRows, kRanks);
  static constexpr int kStage = 3 * kTile + 2 * kSide, kShared = kStages * kStage + 2 * kTall;
  static constexpr int kBlocks = kRanks == 16 ? 2 : 1;  // a multiprocessor: with more ranks, more than 128 registers are needed
  static_assert(kShared <= kMostShared);
};

template <class H>
GPU_FN H* numbers_of(unsigned char* tile, int row, int at) {
  return reinterpret_cast<H*>(piece_of<kPieces>(tile, row, at));
}

// h of a tile, of which as much is stored as there is. What the mask drops isn't there for u alone.
template <class H, int kTileRows>
GPU_FN void make_swiglu(const Gated& p, const Dropout& mask, unsigned char* gates, unsigned char* ups, int64_t row0, int64_t column0) {
  for_own_pieces<kTileRows>([&](int row, int at) {
    const int64_t t = row0 + row, column = column0 + at * kPiece;
    const Floats<kPiece> gate = load<kPiece>(numbers_of<H>(gates, row, at));
    Floats<kPiece> h = load<kPiece>(numbers_of<H>(ups, row, at));
    for (int e = 0; e < kPiece; ++e) h.at[e] = gated(gate.at[e], h.at[e]);
    if (t < p.rows && column < p.cols) store<kPiece>(static_cast<H*>(p.z) + t * p.z_pitch + column, h);
    if (mask.threshold != 0) {
      const PhiloxWords words = philox_of_eight(mask, t * p.cols + column);
      GPU_UNROLL
      for (int e = 0; e < kPiece; ++e) h.at[e] = is_kept(mask, words, e) ? h.at[e] : 0.0f;
    }
    store<kPiece>(numbers_of<H>(gates, row, at), h);
  });
}

// dgate and dup of a tile.
template <class H, int kTileRows>
GPU_FN void make_swiglu_grad(const Gated& p, unsigned char* gates, unsigned char* ups, unsigned char* dys, int64_t row0, int64_t column0) {
  for_own_pieces<kTileRows>([&](int row, int at) {
    const int64_t t = row0 + row, column = column0 + at * kPiece;
    Floats<kPiece> gate = load<kPiece>(numbers_of<H>(gates, row, at)), up = load<kPiece>(numbers_of<H>(ups, row, at));
    const Floats<kPiece> dy = load<kPiece>(numbers_of<H>(dys, row, at));
    for (int e = 0; e < kPiece; ++e) {
      const GatedGradient d = gated_gradient(dy.at[e], gate.at[e], up.at[e]);
      gate.at[e] = d.gate, up.at[e] = d.up;
    }
    if (t < p.rows && column < p.cols) {
      H* z = static_cast<H*>(p.z) + t * p.z_pitch + column;
      store<kPiece>(z, gate), store<kPiece>(z + p.cols, up);
    }
    store<kPiece>(numbers_of<H>(gates, row, at), gate), store<kPiece>(numbers_of<H>(ups, row, at), up);
  });
}

template <class H, int kRanks>
__global__ void __launch_bounds__(kThreads, 2) skinny_swiglu_tiles(GPU_ARGUMENT Launch p) {
  using S = Forward<kRanks>;
  GPU_SHARED(shared);
  const Gated& g = p.gated;
  const Window& window = p.sums.windows[0];
  const Dropout mask = current(window.mask);
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * S::kRows, column0 = static_cast<int64_t>(blockIdx.x) * p.sums.block_columns;
  const int64_t column_end = column0 + p.sums.block_columns < g.cols ? column0 + p.sums.block_columns : g.cols;
  const int wide = static_cast<int>((column_end - column0 + kTileColumns - 1) / kTileColumns);
  const auto stage_of = [&](int at) { return shared + at % kStages * S::kStage; };
  const auto bring = [&](int at) {
    if (at < wide) {
      const auto* gates = static_cast<const H*>(g.x);
      const int64_t column = column0 + at * kTileColumns;
      bring_tile<H, S::kRows>(stage_of(at), gates, g.x_pitch, row0, g.rows, column, column_end);
      bring_tile<H, S::kRows>(stage_of(at) + S::kTile, gates + g.cols, g.x_pitch, row0, g.rows, column, column_end);
      bring_side<H, kRanks>(p.factors, stage_of(at) + 2 * S::kTile, window, column, column_end);
    }
    ptx::cp_async_commit();
  };
  const int lane = static_cast<int>(lane_id()), warp = static_cast<int>(warp_id());
  float sums[1][kRanks / 8][4] = {};
  bring(0);
  GPU_NO_UNROLL
  for (int at = 0; at < wide; ++at) {
    unsigned char* stage = stage_of(at);
    __syncthreads();  // all are done with the stage that is filled next
    bring(at + 1);
    ptx::cp_async_wait<1>();
    make_swiglu<H, S::kRows>(g, mask, stage, stage + S::kTile, row0, column0 + at * kTileColumns);
    __syncthreads();  // h and the side are there for all
    add_by_rows<H, kRanks>(ptx::shared_at(stage), ptx::shared_at(stage + 2 * S::kTile), warp * 16, 0, window.ranks, sums);
  }
  GPU_UNROLL
  for (int n = 0; n < kRanks / 8; ++n) {
    float* to = p.sums.by_rows + blockIdx.x * g.rows * kRanks + n * 8 + lane % 4 * 2;
    give_sums<kRanks>(to, sums[0][n], row0 + warp * 16 + lane / 4, g.rows);
  }
}

template <class H, int kRanks>
__global__ void __launch_bounds__(kThreads, Backward<kRanks>::kBlocks) skinny_swiglu_grad_tiles(GPU_ARGUMENT Launch p) {
  using S = Backward<kRanks>;
  GPU_SHARED(shared);
  unsigned char* talls = shared + kStages * S::kStage;
  const Gated& g = p.gated;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * p.tiles_down * S::kRows, rows_left = (g.rows - row0 + S::kRows - 1) / S::kRows;
  const int64_t column0 = static_cast<int64_t>(blockIdx.x) * S::kColumns, column_end = column0 + S::kColumns < g.cols ? column0 + S::kColumns : g.cols;
  const int wide = static_cast<int>((column_end - column0 + kTileColumns - 1) / kTileColumns);
  const int high = rows_left < p.tiles_down ? static_cast<int>(rows_left) : p.tiles_down;
  int brought = 0, bring_down = 0, bring_across = 0;
  const auto bring = [&] {
    if (bring_down < high) {
      unsigned char* stage = shared + brought % kStages * S::kStage;
      const auto* gates = static_cast<const H*>(g.x);
      const int64_t row = row0 + bring_down * S::kRows, column = column0 + bring_across * kTileColumns;
      bring_tile<H, S::kRows>(stage, gates, g.x_pitch, row, g.rows, column, column_end);
      bring_tile<H, S::kRows>(stage + S::kTile, gates + g.cols, g.x_pitch, row, g.rows, column, column_end);
      bring_tile<H, S::kRows>(stage + 2 * S::kTile, static_cast<const H*>(g.dy), g.dy_pitch, row, g.rows, column, column_end);
      GPU_UNROLL
      for (int w = 0; w < 2; ++w) bring_side<H, kRanks>(p.factors, stage + 3 * S::kTile + w * S::kSide, p.sums.windows[w], w * g.cols + column, w * g.cols + column_end);
      if (++bring_across == wide) bring_across = 0, ++bring_down;
    }
    ++brought;
    ptx::cp_async_commit();
  };
  bring();
  const int lane = static_cast<int>(lane_id()), own = static_cast<int>(warp_id()) / 4, first = static_cast<int>(warp_id()) % 4 * 16;
  const Window& window = p.sums.windows[own];
  float by_columns[S::kTilesAcross][1][kRanks / 8][4] = {};
  int step = 0;
  GPU_NO_UNROLL
  for (int down = 0; down < high; ++down) {
    float by_rows[1][kRanks / 8][4] = {};
    GPU_UNROLL  // sums stay in registers only if it is known which
    for (int at = 0; at < S::kTilesAcross; ++at) {
      if (at >= wide) continue;
      unsigned char* stage = shared + step++ % kStages * S::kStage;
      __syncthreads();  // all are done with the stage that is filled next, and with the rows of the talls before
      if (at == 0) {
        GPU_UNROLL
        for (int w = 0; w < 2; ++w) bring_tall<H, kRanks, S::kRows>(p.factors, talls + w * S::kTall, p.sums.windows[w], row0 + down * S::kRows, g.rows);
        ptx::cp_async_commit();
      }
      bring();
      ptx::cp_async_wait<1>();
      make_swiglu_grad<H, S::kRows>(g, stage, stage + S::kTile, stage + 2 * S::kTile, row0 + down * S::kRows, column0 + at * kTileColumns);
      __syncthreads();  // z and its factors are there for all
      if (window.ranks == 0) continue;  // no adapter here
      add_by_rows<H, kRanks>(ptx::shared_at(stage + own * S::kTile), ptx::shared_at(stage + 3 * S::kTile + own * S::kSide), first, 0, window.ranks, by_rows);
      add_by_columns<H, kRanks, S::kRows, 1, 1>(ptx::shared_at(stage + own * S::kTile), ptx::shared_at(talls + own * S::kTall), first, 0, window.ranks, by_columns[at]);
    }
    GPU_UNROLL
    for (int n = 0; n < kRanks / 8; ++n) {
      float* to = p.sums.by_rows + (window.block0 + blockIdx.x) * g.rows * kRanks + n * 8 + lane % 4 * 2;
      give_sums<kRanks>(to, by_rows[0][n], row0 + down * S::kRows + first + lane / 4, g.rows);
    }
  }
  float* sums = p.sums.by_columns + (static_cast<int64_t>(blockIdx.y) * p.sums.blocks + window.block0 + blockIdx.x) * S::kColumns * kRanks;
  GPU_UNROLL
  for (int at = 0; at < S::kTilesAcross; ++at) {
    GPU_UNROLL
    for (int n = 0; n < kRanks / 8; ++n) {
      if (at < wide) give_sums<kRanks>(sums + n * 8 + lane % 4 * 2, by_columns[at][0][n], at * kTileColumns + first + lane / 4, S::kColumns);
    }
  }
}

bool in_whole_pieces(const Gated& g) {
  return g.rows > 0 && g.cols > 0 && g.cols % kPiece == 0 && is_aligned(g.x, g.x_pitch) && is_aligned(g.z, g.z_pitch) && is_aligned(g.dy, g.dy_pitch);
}

// A part's, though it has no ranks.
Window window_of(const Part& part) {
  Window window;
  window.column0 = part.column, window.columns = part.out;
  window.rank0 = static_cast<int32_t>(part.padded0), window.ranks = static_cast<int32_t>(part.padded());
  return window;
}

template <class H, int kRanks>
void run_forward(Queue& queue, Launch launch, const Skinny& product, const SkinnyRows& rows) {
  using S = Forward<kRanks>;
  PartialSums& sums = launch.sums;
  sums.ranks = kRanks;
  launch.tiles_down = cut_among_blocks(sums, {S::kRows, kTileColumns, S::kTilesAcross, S::kMostAcross, 1});
  if (!lay_out(queue, sums, true, false)) return;
  cudaFuncSetAttribute(skinny_swiglu_tiles<H, kRanks>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kShared);
  const dim3 grid(static_cast<unsigned>(sums.blocks), static_cast<unsigned>(sums.chunks));
  GPU_LAUNCH((skinny_swiglu_tiles<H, kRanks>), grid, kThreads, S::kShared, queue.stream(), launch);
  add_up(queue, product.dtype, sums, product.parts, &rows, nullptr);
}

template <class H, int kRanks>
void run_backward(Queue& queue, Launch launch, const Skinny& product, const SkinnyRows& rows, const SkinnyColumns& columns) {
  using S = Backward<kRanks>;
  PartialSums& sums = launch.sums;
  sums.ranks = kRanks;
  launch.tiles_down = cut_among_blocks(sums, {S::kRows, kTileColumns, S::kTilesAcross, S::kTilesAcross, S::kMostDown, 2});
  if (!lay_out(queue, sums, true, true)) return;
  cudaFuncSetAttribute(skinny_swiglu_grad_tiles<H, kRanks>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kShared);
  const dim3 grid(static_cast<unsigned>(sums.windows[0].blocks), static_cast<unsigned>(sums.chunks));
  GPU_LAUNCH((skinny_swiglu_grad_tiles<H, kRanks>), grid, kThreads, S::kShared, queue.stream(), launch);
  add_up(queue, product.dtype, sums, product.parts, &rows, &columns);
}

Launch launch_of(const Gated& gated, const Skinny& product) {
  Launch launch{gated, factors_of(product), {}, 1};
  launch.sums.rows = gated.rows;
  return launch;
}

template <class H>
void run_forward(Queue& queue, const Launch& launch, const Skinny& product, const SkinnyRows& rows) {
  const int64_t ranks = product.parts.padded();
  if (ranks <= 16) run_forward<H, 16>(queue, launch, product, rows);
  else if (ranks <= 32) run_forward<H, 32>(queue, launch, product, rows);
  else run_forward<H, 64>(queue, launch, product, rows);
}

template <class H>
void run_backward(Queue& queue, const Launch& launch, const Skinny& product, const SkinnyRows& rows, const SkinnyColumns& columns) {
  const int64_t widest = product.parts.at[0].padded() > product.parts.at[1].padded() ? product.parts.at[0].padded() : product.parts.at[1].padded();
  if (widest <= 16) run_backward<H, 16>(queue, launch, product, rows, columns);
  else run_backward<H, 32>(queue, launch, product, rows, columns);
}

}  // namespace

bool can_make_u(const Gated& gated, const PartList& parts) { return in_whole_pieces(gated) && parts.count == 1 && parts.ranks() > 0 && parts.padded() <= 64; }

bool can_make_v_and_db(const Gated& gated, const PartList& parts) {
  if (!in_whole_pieces(gated) || parts.count != 2 || parts.ranks() == 0) return false;
  for (int i = 0; i < parts.count; ++i) {
    if (parts.at[i].out != gated.cols || parts.at[i].padded() > 32) return false;
  }
  return true;
}

void skinny_swiglu(Queue& queue, const Gated& gated, const Skinny& product, const SkinnyRows& rows) {
  Launch launch = launch_of(gated, product);
  launch.sums.windows[launch.sums.count++] = product.windows[0];
  if (product.dtype == DType::bf16) run_forward<bf16>(queue, launch, product, rows);
  else run_forward<f16>(queue, launch, product, rows);
}

void skinny_swiglu_grad(Queue& queue, const Gated& gated, const Skinny& product, const SkinnyRows& rows, const SkinnyColumns& columns) {
  Launch launch = launch_of(gated, product);
  for (int i = 0; i < 2; ++i) launch.sums.windows[launch.sums.count++] = window_of(product.parts.at[i]);
  if (product.dtype == DType::bf16) run_backward<bf16>(queue, launch, product, rows, columns);
  else run_backward<f16>(queue, launch, product, rows, columns);
}

}  // namespace lowrank::cuda
