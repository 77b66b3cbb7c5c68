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
  static constexpr int kRows = 64, kTilesAcross = 6, kColumns = kTilesAcross * kTileColumns, kMostDown = 4096 / kRows;
  static constexpr int kTile = tile_bytes(kRows), kSide = side_bytes(kRanks), kTall = tall_bytes(kRows, kRanks);
  static constexpr int kStage = 3 * kTile + 2 * kSide, kShared = kStages * kStage + 2 * kTall;
  static constexpr int kBlocks = kRanks == 16 ? 2 : 1;  // a multiprocessor: with more ranks, more than 128 registers are needed
  static_assert(kShared <= kMostShared);
};

// How z is stored by the thread that has a piece of it.
template <class H>
struct OwnZ {
  H* at;
  int64_t pitch;
  int rows;  // that are there
};
template <class H>
GPU_FN OwnZ<H> own_z(const Gated& p, int64_t row0, int64_t column) {
  const int64_t own = column + own_at() * kPiece;
  return {static_cast<H*>(p.z) + row0 * p.z_pitch + own, p.z_pitch, own < p.cols ? at_most(p.rows - row0, kEnough) : 0};
}

template <class H>
GPU_FN H* numbers(unsigned char* own, int place) {
  return reinterpret_cast<H*>(own + place);
}

// h of a tile, of which as much is stored as there is. What the mask drops isn't there for u alone.
template <class H, int kTileRows>
GPU_FN void make_swiglu(const Gated& p, const Dropout& mask, unsigned char* gates, unsigned char* ups, int64_t row0, int64_t column0) {
  const OwnZ<H> z = own_z<H>(p, row0, column0);
  unsigned char *own_gate = own_place(gates), *own_up = own_place(ups);
  for_own_pieces<kTileRows>([&](int row, int place) {
    const Floats<kPiece> gate = load<kPiece>(numbers<H>(own_gate, place));
    Floats<kPiece> h = load<kPiece>(numbers<H>(own_up, place));
    GPU_UNROLL
    for (int e = 0; e < kPiece; ++e) h.at[e] = gated(gate.at[e], h.at[e], sigmoid_approximate(gate.at[e]));
    if (row < z.rows) store<kPiece>(z.at + row * z.pitch, h);
    if (mask.threshold != 0) {
      const PhiloxWords words = philox_of_eight(mask, (row0 + row) * p.cols + column0 + own_at() * kPiece);
      GPU_UNROLL
      for (int e = 0; e < kPiece; ++e) h.at[e] = is_kept(mask, words, e) ? h.at[e] : 0.0f;
    }
    store<kPiece>(numbers<H>(own_gate, place), h);
  });
}

// dgate and dup of a tile.
template <class H, int kTileRows>
GPU_FN void make_swiglu_grad(const Gated& p, unsigned char* gates, unsigned char* ups, unsigned char* dys, int64_t row0, int64_t column0) {
  const OwnZ<H> z = own_z<H>(p, row0, column0);
  unsigned char *own_gate = own_place(gates), *own_up = own_place(ups), *own_dy = own_place(dys);
  for_own_pieces<kTileRows>([&](int row, int place) {
    Floats<kPiece> gate = load<kPiece>(numbers<H>(own_gate, place)), up = load<kPiece>(numbers<H>(own_up, place));
    const Floats<kPiece> dy = load<kPiece>(numbers<H>(own_dy, place));
    GPU_UNROLL
    for (int e = 0; e < kPiece; ++e) {
      const GatedGradient d = gated_gradient(dy.at[e], gate.at[e], up.at[e], sigmoid_approximate(gate.at[e]));
      gate.at[e] = d.gate, up.at[e] = d.up;
    }
    if (row < z.rows) {
      H* to = z.at + row * z.pitch;
      store<kPiece>(to, gate), store<kPiece>(to + p.cols, up);
    }
    store<kPiece>(numbers<H>(own_gate, place), gate), store<kPiece>(numbers<H>(own_up, place), up);
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
  // Of the tile that is brought next: where this thread's pieces lie, and what is left.
  const H* own_gate = own_piece(static_cast<const H*>(g.x), g.x_pitch, row0 + own_first(), column0);
  const H* own_side = own_of_side<H, kRanks>(p.factors, window, column0);
  const int rows = at_most(g.rows - row0, kEnough);
  int columns = static_cast<int>(column_end - column0);
  const auto bring = [&](int at) {
    if (at < wide) {
      bring_tile<H, S::kRows>(stage_of(at), own_gate, g.x_pitch, rows, columns);
      bring_tile<H, S::kRows>(stage_of(at) + S::kTile, own_gate + g.cols, g.x_pitch, rows, columns);
      bring_side<H, kRanks>(p.factors, stage_of(at) + 2 * S::kTile, own_side, window.ranks, columns);
      own_gate += kTileColumns, own_side += kTileColumns, columns -= kTileColumns;
    }
    ptx::cp_async_commit();
  };
  const int lane = static_cast<int>(lane_id()), warp = static_cast<int>(warp_id());
  const RowLanes lanes = row_lanes(shared, warp * 16, 0);
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
    add_by_rows<H, kRanks>(lanes, at % kStages * S::kStage, at % kStages * S::kStage + 2 * S::kTile, 0, window.ranks, sums);
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
  const int whole_width = wide * kTileColumns;
  // The tile that is brought next: where it goes, which it is, where this thread's pieces of it lie, and what is left from it on.
  int bring_to = 0, bring_down = 0, bring_across = 0;
  const H* own_gate = own_piece(static_cast<const H*>(g.x), g.x_pitch, row0 + own_first(), column0);
  const H* own_dy = own_piece(static_cast<const H*>(g.dy), g.dy_pitch, row0 + own_first(), column0);
  const H* own_side[2] = {own_of_side<H, kRanks>(p.factors, p.sums.windows[0], column0), own_of_side<H, kRanks>(p.factors, p.sums.windows[1], g.cols + column0)};
  int rows = at_most(g.rows - row0, kEnough), columns = static_cast<int>(column_end - column0);
  const auto bring = [&] {
    if (bring_down < high) {
      unsigned char* stage = shared + bring_to;
      bring_tile<H, S::kRows>(stage, own_gate, g.x_pitch, rows, columns);
      bring_tile<H, S::kRows>(stage + S::kTile, own_gate + g.cols, g.x_pitch, rows, columns);
      bring_tile<H, S::kRows>(stage + 2 * S::kTile, own_dy, g.dy_pitch, rows, columns);
      GPU_UNROLL
      for (int w = 0; w < 2; ++w) bring_side<H, kRanks>(p.factors, stage + 3 * S::kTile + w * S::kSide, own_side[w], p.sums.windows[w].ranks, columns);
      own_gate += kTileColumns, own_dy += kTileColumns, own_side[0] += kTileColumns, own_side[1] += kTileColumns, columns -= kTileColumns;
      if (++bring_across == wide) {
        bring_across = 0, ++bring_down;
        own_gate += S::kRows * g.x_pitch - whole_width, own_dy += S::kRows * g.dy_pitch - whole_width, own_side[0] -= whole_width, own_side[1] -= whole_width;
        columns += whole_width, rows -= S::kRows;
      }
    }
    bring_to = S::kStage - bring_to;
    ptx::cp_async_commit();
  };
  bring();
  const int lane = static_cast<int>(lane_id()), own = static_cast<int>(warp_id()) / 4, first = static_cast<int>(warp_id()) % 4 * 16;
  const Window& window = p.sums.windows[own];
  float by_columns[S::kTilesAcross][1][kRanks / 8][4] = {};
  const RowLanes row_at = row_lanes(shared, first, 0);
  const auto column_at = column_lanes<kRanks, 1, 1>(shared, first, 0);
  int at_stage = 0;
  static_assert(kStages == 2);
  GPU_NO_UNROLL
  for (int down = 0; down < high; ++down) {
    float by_rows[1][kRanks / 8][4] = {};
    GPU_UNROLL  // sums stay in registers only if it is known which
    for (int at = 0; at < S::kTilesAcross; ++at) {
      if (at >= wide) continue;
      unsigned char* stage = shared + at_stage;
      __syncthreads();  // all are done with the stage that is filled next, and with the rows of the talls before
      if (at == 0) {
        GPU_UNROLL
        for (int w = 0; w < 2; ++w) {
          const Window& part = p.sums.windows[w];
          const int64_t row = row0 + down * S::kRows;
          bring_tall<H, kRanks, S::kRows>(p.factors, talls + w * S::kTall, TallPiece<kRanks>::template own<H>(p.factors, part, row), part.ranks, at_most(g.rows - row, kEnough));
        }
        ptx::cp_async_commit();
      }
      bring();
      ptx::cp_async_wait<1>();
      make_swiglu_grad<H, S::kRows>(g, stage, stage + S::kTile, stage + 2 * S::kTile, row0 + down * S::kRows, column0 + at * kTileColumns);
      __syncthreads();  // z and its factors are there for all
      if (window.ranks != 0) {  // an adapter here
        const int z = at_stage + own * S::kTile;
        add_by_rows<H, kRanks>(row_at, z, at_stage + 3 * S::kTile + own * S::kSide, 0, window.ranks, by_rows);
        add_by_columns<H, kRanks, S::kRows, 1, 1>(column_at, z, kStages * S::kStage + own * S::kTall, 0, window.ranks, by_columns[at]);
      }
      at_stage = S::kStage - at_stage;
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
