#include "skinny.h"

#include "skinny_sums.h"
#include "skinny_tiles.cuh"

namespace lowrank::cuda {

namespace {

// A block goes over tiles of 128 rows by 64 columns of z with eight warps. By rows a warp has 16 rows of a tile and all ranks; by columns
// it has 16 columns and half of the ranks, whose sums stay in registers: that limits how many columns a block has.
constexpr int kTileRows = 128, kThreads = kSkinnyThreads;

template <int kRanks, bool kRows, bool kColumns>
struct Shape {
  static constexpr int kTilesAcross = !kColumns ? 16 : kRanks == 64 ? 4 : 8;  // a block's tiles from left to right
  static constexpr int kTilesDown = kColumns ? 4 : 1;
  static constexpr int kTile = tile_bytes(kTileRows), kStage = kTile + (kRows ? side_bytes(kRanks) : 0), kTall = kColumns ? tall_bytes(kTileRows, kRanks) : 0;
  // What a chip of 99 KiB a block can hold.
  static constexpr int kStages = kRanks == 64 && kRows && kColumns ? 2 : 3;
  static constexpr int kShared = kStages * kStage + kTall;
  // Blocks a multiprocessor: says how many registers there are. By columns with 64 ranks, and by both with 32, they need more than 128.
  static constexpr int kBlocks = kColumns && (kRanks == 64 || (kRanks == 32 && kRows)) ? 1 : 2;
  static_assert(kShared <= kMostShared);
};

struct Launch {
  const void* z;
  int64_t z_pitch, mask_pitch;
  Factors factors;
  PartialSums sums;
};

// The window of this block, and the block's columns: from a whole piece on, which may begin before the window.
struct Across {
  Window window;
  int64_t column0, column_end;
};

template <int kBlockColumns>
GPU_FN Across across_of(const Launch& p) {
  Across across;
  across.window = p.sums.windows[0];
  const auto block = static_cast<int32_t>(blockIdx.x);
  for (int w = 1; w < kMostWindows; ++w) {
    if (w < p.sums.count && block >= p.sums.windows[w].block0) across.window = p.sums.windows[w];
  }
  across.window.mask = current(across.window.mask);
  const Window& window = across.window;
  const int64_t begin = window.column0 / kPiece * kPiece, end = window.column0 + window.columns;
  across.column0 = begin + static_cast<int64_t>(block - window.block0) * kBlockColumns;
  across.column_end = across.column0 + kBlockColumns < end ? across.column0 + kBlockColumns : end;
  return across;
}

// Drops what the mask drops. The factor of what stays is the business of the sums.
GPU_FN void mask_tile(const Launch& p, const Dropout& mask, unsigned char* tile, int64_t row0, int64_t column0) {
  for_own_pieces<kTileRows>([&](int row, int at) {
    const uint32_t kept = kept_of_eight(mask, (row0 + row) * p.mask_pitch + column0 + at * kPiece);
    auto* numbers = reinterpret_cast<uint16_t*>(piece_of<kPieces>(tile, row, at));
    for (int e = 0; e < kPiece; ++e) {
      if ((kept >> e & 1) == 0) numbers[e] = 0;
    }
  });
}

template <class H, int kRanks, bool kRows, bool kColumns>
__global__ void __launch_bounds__(kThreads, Shape<kRanks, kRows, kColumns>::kBlocks) skinny_tiles(GPU_ARGUMENT Launch p) {
  using S = Shape<kRanks, kRows, kColumns>;
  GPU_SHARED(shared);
  unsigned char* tall = shared + S::kStages * S::kStage;
  const Across across = across_of<S::kTilesAcross * kTileColumns>(p);
  const Window& window = across.window;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * S::kTilesDown * kTileRows, rows_left = (p.sums.rows - row0 + kTileRows - 1) / kTileRows;
  const int wide = static_cast<int>((across.column_end - across.column0 + kTileColumns - 1) / kTileColumns);
  const int high = rows_left < S::kTilesDown ? static_cast<int>(rows_left) : S::kTilesDown;
  int brought = 0, bring_down = 0, bring_across = 0;
  const auto bring = [&] {
    if (bring_down < high) {
      unsigned char* stage = shared + brought % S::kStages * S::kStage;
      const int64_t column0 = across.column0 + bring_across * kTileColumns;
      bring_tile<H, kTileRows>(stage, static_cast<const H*>(p.z), p.z_pitch, row0 + bring_down * kTileRows, p.sums.rows, column0, across.column_end);
      if constexpr (kRows) bring_side<H, kRanks>(p.factors, stage + S::kTile, window, column0, across.column_end);
      if (++bring_across == wide) bring_across = 0, ++bring_down;
    }
    ++brought;
    ptx::cp_async_commit();
  };
  GPU_UNROLL
  for (int i = 0; i < S::kStages - 1; ++i) bring();
  const int lane = static_cast<int>(lane_id()), warp = static_cast<int>(warp_id());
  float by_columns[kColumns ? S::kTilesAcross : 1][kRanks / 16][4] = {};
  int step = 0;
  GPU_NO_UNROLL
  for (int down = 0; down < high; ++down) {
    if constexpr (kColumns) {
      __syncthreads();  // all are done with the rows of tall before
      bring_tall<H, kRanks, kTileRows>(p.factors, tall, window, row0 + down * kTileRows, p.sums.rows);
      ptx::cp_async_commit();
      ptx::cp_async_wait<0>();
    }
    float by_rows[kRanks / 8][4] = {};
    const auto add_tile = [&](float(&columns)[kRanks / 16][4], int at) {
      ptx::cp_async_wait<S::kStages - 2>();
      __syncthreads();  // this tile has landed for all, and all are done with the one whose place is filled next
      bring();
      unsigned char* stage = shared + step % S::kStages * S::kStage;
      ++step;
      if constexpr (!(kRows && kColumns)) {  // of dy, which has no mask
        if (window.mask.threshold != 0) {
          mask_tile(p, window.mask, stage, row0 + down * kTileRows, across.column0 + at * kTileColumns);
          __syncthreads();
        }
      }
      if constexpr (kRows) add_by_rows<H, kRanks>(stage, stage + S::kTile, warp * 16, by_rows);
      if constexpr (kColumns) add_by_columns<H, kRanks, kTileRows, kRanks / 2>(stage, tall, warp % 4 * 16, warp / 4 * (kRanks / 2), columns);
    };
    if constexpr (kColumns) {
      GPU_UNROLL  // sums stay in registers only if it is known which
      for (int at = 0; at < S::kTilesAcross; ++at) {
        if (at < wide) add_tile(by_columns[at], at);
      }
    } else {
      GPU_NO_UNROLL
      for (int at = 0; at < wide; ++at) add_tile(by_columns[0], at);
    }
    if constexpr (kRows) {
      GPU_UNROLL
      for (int n = 0; n < kRanks / 8; ++n) {
        float* to = p.sums.by_rows + blockIdx.x * p.sums.rows * kRanks + n * 8 + lane % 4 * 2;
        give_sums<kRanks>(to, by_rows[n], row0 + down * kTileRows + warp * 16 + lane / 4, p.sums.rows);
      }
    }
  }
  if constexpr (kColumns) {
    constexpr int kBlockColumns = S::kTilesAcross * kTileColumns;
    GPU_UNROLL
    for (int at = 0; at < S::kTilesAcross; ++at) {
      GPU_UNROLL
      for (int n = 0; n < kRanks / 16; ++n) {
        float* to = p.sums.by_columns + (static_cast<int64_t>(blockIdx.y) * p.sums.blocks + blockIdx.x) * kBlockColumns * kRanks + warp / 4 * (kRanks / 2) + n * 8 + lane % 4 * 2;
        if (at < wide) give_sums<kRanks>(to, by_columns[at][n], at * kTileColumns + warp % 4 * 16 + lane / 4, kBlockColumns);
      }
    }
  }
}

template <class H, int kRanks, bool kRows, bool kColumns>
void run(Queue& queue, const Skinny& product, Launch launch, const SkinnyRows* rows, const SkinnyColumns* columns) {
  using S = Shape<kRanks, kRows, kColumns>;
  constexpr int64_t kBlockRows = S::kTilesDown * kTileRows;
  launch.sums.ranks = kRanks, launch.sums.block_columns = S::kTilesAcross * kTileColumns;
  launch.sums.chunks = (product.rows + kBlockRows - 1) / kBlockRows;
  if (!lay_out(queue, launch.sums, kRows, kColumns)) return;
  const dim3 grid(static_cast<unsigned>(launch.sums.blocks), static_cast<unsigned>(launch.sums.chunks));
  if (launch.sums.blocks > 0 && launch.sums.chunks > 0) {
    cudaFuncSetAttribute(skinny_tiles<H, kRanks, kRows, kColumns>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kShared);
    GPU_LAUNCH((skinny_tiles<H, kRanks, kRows, kColumns>), grid, kThreads, S::kShared, queue.stream(), launch);
  }
  add_up(queue, launch.sums, product.parts, rows, columns);
}

template <class H, int kRanks>
void run(Queue& queue, const Skinny& product, const Launch& launch, const SkinnyRows* rows, const SkinnyColumns* columns) {
  if (rows != nullptr && columns != nullptr) run<H, kRanks, true, true>(queue, product, launch, rows, columns);
  else if (rows != nullptr) run<H, kRanks, true, false>(queue, product, launch, rows, columns);
  else run<H, kRanks, false, true>(queue, product, launch, rows, columns);
}

template <class H>
void run(Queue& queue, const Skinny& product, const Launch& launch, const SkinnyRows* rows, const SkinnyColumns* columns) {
  int32_t widest = 0;
  for (int w = 0; w < launch.sums.count; ++w) widest = launch.sums.windows[w].ranks > widest ? launch.sums.windows[w].ranks : widest;
  if (widest <= 16) run<H, 16>(queue, product, launch, rows, columns);
  else if (widest <= 32) run<H, 32>(queue, product, launch, rows, columns);
  else run<H, 64>(queue, product, launch, rows, columns);
}

constexpr int32_t kWidest = 64;

// Padded ranks [rank0, rank0 + ranks) in windows of at most kWidest.
void cut(std::vector<Window>& windows, Window window, int64_t rank0, int64_t ranks) {
  for (int64_t done = 0; done < ranks; done += kWidest) {
    window.rank0 = static_cast<int32_t>(rank0 + done);
    window.ranks = static_cast<int32_t>(ranks - done < kWidest ? ranks - done : kWidest);
    windows.push_back(window);
  }
}

}  // namespace

std::vector<Window> windows_by_part(const PartList& parts) {
  std::vector<Window> windows;
  for (int i = 0; i < parts.count; ++i) {
    Window window;
    window.column0 = parts.at[i].column, window.columns = parts.at[i].out;
    cut(windows, window, parts.at[i].padded0, parts.at[i].padded());
  }
  return windows;
}

std::vector<Window> windows_over(Queue& queue, const PartList& parts, int64_t columns, const LoraParts& adapter) {
  std::vector<Window> windows;
  Window window;
  window.columns = columns;
  if (adapter.threshold() == 0) {
    cut(windows, window, 0, parts.padded());
    return windows;
  }
  for (int i = 0; i < parts.count; ++i) {
    window.mask = dropout_of(adapter, i, queue.step_at());
    cut(windows, window, parts.at[i].padded0, parts.at[i].padded());
  }
  return windows;
}

void skinny(Queue& queue, const Skinny& product, const SkinnyRows* rows, const SkinnyColumns* columns) {
  if (product.rows == 0) return;
  for (size_t first = 0; first < product.windows.size(); first += kMostWindows) {
    Launch launch{product.z, product.z_pitch, product.mask_pitch, factors_of(product), {}};
    PartialSums& sums = launch.sums;
    sums.rows = product.rows;
    for (size_t w = first; w < product.windows.size() && sums.count < kMostWindows; ++w) sums.windows[sums.count++] = product.windows[w];
    if (product.dtype == DType::bf16) run<bf16>(queue, product, launch, rows, columns);
    else run<f16>(queue, product, launch, rows, columns);
  }
}

}  // namespace lowrank::cuda
