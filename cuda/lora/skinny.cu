#include "skinny.h"

#include "../gemm/pieces.cuh"
#include "../half.cuh"

namespace lowrank::cuda {

namespace {

// A block goes over tiles of 128 rows by 64 columns of z with eight warps. By rows a warp has 16 rows of a tile and all ranks; by columns
// it has 16 columns and half of the ranks, whose sums stay in registers: that limits how many columns a block has.
constexpr int kTileRows = 128, kTileColumns = 64, kThreads = 256, kPieces = kTileColumns / kPiece;
constexpr int kMostWindows = 4;

template <int kRanks, bool kRows, bool kColumns>
struct Shape {
  static constexpr int kTilesAcross = !kColumns ? 16 : kRanks == 64 ? 4 : 8;  // a block's tiles from left to right
  static constexpr int kTilesDown = kColumns ? 4 : 1;
  static constexpr int kHalf = kRanks * kTileColumns * 2;  // bytes of the side's high halves beside a tile, and of the low ones
  static constexpr int kTile = kTileRows * kTileColumns * 2, kStage = kTile + (kRows ? 2 * kHalf : 0), kTall = kColumns ? kTileRows * 2 * kRanks * 2 : 0;
  // What a chip of 99 KiB a block can hold.
  static constexpr int kStages = kRanks == 64 && kRows && kColumns ? 2 : 3;
  static constexpr int kShared = kStages * kStage + kTall;
  // Blocks a multiprocessor: says how many registers there are. By columns with 64 ranks, and by both with 32, they need more than 128.
  static constexpr int kBlocks = kColumns && (kRanks == 64 || (kRanks == 32 && kRows)) ? 1 : 2;
  static_assert(kShared <= 101376, "shared memory of a block on sm_86, sm_89 and sm_120");
};

struct Launch {
  const void* z;
  const void* side;
  const void* tall;
  int64_t rows, z_pitch, mask_pitch, side_pitch;
  int32_t padded;
  int32_t count, blocks;  // of windows, and of blocks across them
  Window windows[kMostWindows];
  float* row_sums;     // [blocks, rows, kRanks]
  float* column_sums;  // [chunks, blocks, columns of a block, kRanks]
};

// The window of this block, and the block's columns: from a whole piece on, which may begin before the window.
struct Across {
  Window window;
  int64_t column0, column_end;
};

template <int kBlockColumns>
GPU_FN Across across_of(const Launch& p) {
  Across across;
  across.window = p.windows[0];
  const auto block = static_cast<int32_t>(blockIdx.x);
  for (int w = 1; w < kMostWindows; ++w) {
    if (w < p.count && block >= p.windows[w].block0) across.window = p.windows[w];
  }
  const Window& window = across.window;
  const int64_t begin = window.column0 / kPiece * kPiece, end = window.column0 + window.columns;
  across.column0 = begin + static_cast<int64_t>(block - window.block0) * kBlockColumns;
  across.column_end = across.column0 + kBlockColumns < end ? across.column0 + kBlockColumns : end;
  return across;
}

template <class H>
GPU_FN void bring_tile(const Launch& p, unsigned char* tile, int64_t row0, int64_t column0, int64_t column_end) {
  const auto* z = static_cast<const H*>(p.z);
  const int first = threadIdx.x / kPieces, at = threadIdx.x % kPieces;
  const int64_t column = column0 + at * kPiece;
  const int given = given_of(column, column_end);
  GPU_UNROLL
  for (int i = 0; i < kTileRows * kPieces / kThreads; ++i) {
    const int row = first + i * (kThreads / kPieces);
    const int own = row0 + row < p.rows ? given : 0;
    bring_piece(piece_of<kPieces>(tile, row, at), own > 0 ? z + (row0 + row) * p.z_pitch + column : z, own);
  }
}

template <class H, int kRanks>
GPU_FN void bring_side(const Launch& p, unsigned char* to, const Window& window, int64_t column0, int64_t column_end) {
  const auto* side = static_cast<const H*>(p.side);
  GPU_UNROLL
  for (int i = 0; i < 2 * kRanks * kPieces / kThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) % kPieces, row = static_cast<int>(threadIdx.x) / kPieces + i * (kThreads / kPieces);
    const int rank = row % kRanks, low = row / kRanks;
    const int64_t column = column0 + at * kPiece;
    const int given = rank < window.ranks ? given_of(column, column_end) : 0;
    const H* from = side + (static_cast<int64_t>(low) * p.padded + window.rank0 + rank) * p.side_pitch + column;
    bring_piece(piece_of<kPieces>(to, row, at), given > 0 ? from : side, given);
  }
}

template <class H, int kRanks>
GPU_FN void bring_tall(const Launch& p, unsigned char* to, const Window& window, int64_t row0) {
  constexpr int kOwn = 2 * kRanks / kPiece;  // pieces of a row
  const auto* tall = static_cast<const H*>(p.tall);
  for (int i = threadIdx.x; i < kTileRows * kOwn; i += kThreads) {
    const int row = i / kOwn, at = i % kOwn, rank = at % (kOwn / 2) * kPiece, low = at / (kOwn / 2);
    const bool given = row0 + row < p.rows && rank < window.ranks;
    const H* from = tall + (row0 + row) * 2 * p.padded + low * p.padded + window.rank0 + rank;
    bring_piece(piece_of<kOwn>(to, row, at), given ? from : tall, given ? kPiece : 0);
  }
}

// Drops what the mask drops. The factor of what stays is the business of the sums.
GPU_FN void mask_tile(const Launch& p, const Dropout& mask, unsigned char* tile, int64_t row0, int64_t column0) {
  GPU_NO_UNROLL
  for (int i = threadIdx.x; i < kTileRows * kPieces; i += kThreads) {
    const int row = i / kPieces, at = i % kPieces;
    const uint32_t kept = kept_of_eight(mask, (row0 + row) * p.mask_pitch + column0 + at * kPiece);
    auto* numbers = reinterpret_cast<uint16_t*>(piece_of<kPieces>(tile, row, at));
    for (int e = 0; e < kPiece; ++e) {
      if ((kept >> e & 1) == 0) numbers[e] = 0;
    }
  }
}

template <class H, int kRanks>
GPU_FN void add_by_rows(unsigned char* stage, float (&sums)[kRanks / 8][4]) {
  const int lane = static_cast<int>(lane_id()), row0 = static_cast<int>(warp_id()) * 16;
  unsigned char* side = stage + kTileRows * kTileColumns * 2;
  GPU_UNROLL
  for (int deep = 0; deep < kTileColumns / 16; ++deep) {
    uint32_t a[4];
    ptx::ldmatrix_x4(a, piece_of<kPieces>(stage, row0 + lane % 16, deep * 2 + lane / 16));
    GPU_UNROLL
    for (int half = 0; half < 2 * kRanks / 16; ++half) {  // 16 ranks: the high ones, then the low ones
      uint32_t b[4];
      ptx::ldmatrix_x4(b, piece_of<kPieces>(side, half * 16 + lane % 8 + lane / 16 * 8, deep * 2 + lane / 8 % 2));
      const int n = half % (kRanks / 16) * 2;
      ptx::mma_m16n8k16<H>(sums[n], a, b[0], b[1]);
      ptx::mma_m16n8k16<H>(sums[n + 1], a, b[2], b[3]);
    }
  }
}

template <class H, int kRanks>
GPU_FN void add_by_columns(unsigned char* stage, unsigned char* tall, float (&sums)[kRanks / 16][4]) {
  constexpr int kOwn = 2 * kRanks / kPiece;
  const int lane = static_cast<int>(lane_id()), columns = static_cast<int>(warp_id()) % 4 * 2, ranks = static_cast<int>(warp_id()) / 4 * (kRanks / 16);
  GPU_UNROLL
  for (int deep = 0; deep < kTileRows / 16; ++deep) {
    uint32_t a[4];  // of z transposed: 16 columns by 16 rows
    ptx::ldmatrix_x4_trans(a, piece_of<kPieces>(stage, deep * 16 + lane % 8 + lane / 16 * 8, columns + lane / 8 % 2));
    GPU_UNROLL
    for (int n = 0; n < kRanks / 16; ++n) {
      uint32_t b[4];  // high, then low
      ptx::ldmatrix_x4_trans(b, piece_of<kOwn>(tall, deep * 16 + lane % 16, ranks + n + lane / 16 * (kOwn / 2)));
      ptx::mma_m16n8k16<H>(sums[n], a, b[0], b[1]);
      ptx::mma_m16n8k16<H>(sums[n], a, b[2], b[3]);
    }
  }
}

// One 16 x 8 tile of sums; of its rows `first` and `first + 8`, those before `end`.
template <int kRanks>
GPU_FN void give_sums(float* to, const float (&sums)[4], int64_t first, int64_t end) {
  GPU_UNROLL
  for (int high = 0; high < 2; ++high) {
    const int64_t row = first + high * 8;
    if (row < end) *reinterpret_cast<float2*>(to + row * kRanks) = make_float2(sums[2 * high], sums[2 * high + 1]);
  }
}

template <class H, int kRanks, bool kRows, bool kColumns>
__global__ void __launch_bounds__(kThreads, Shape<kRanks, kRows, kColumns>::kBlocks) skinny_tiles(GPU_ARGUMENT Launch p) {
  using S = Shape<kRanks, kRows, kColumns>;
  GPU_SHARED(shared);
  unsigned char* tall = shared + S::kStages * S::kStage;
  const Across across = across_of<S::kTilesAcross * kTileColumns>(p);
  const Window& window = across.window;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * S::kTilesDown * kTileRows, rows_left = (p.rows - row0 + kTileRows - 1) / kTileRows;
  const int wide = static_cast<int>((across.column_end - across.column0 + kTileColumns - 1) / kTileColumns);
  const int high = rows_left < S::kTilesDown ? static_cast<int>(rows_left) : S::kTilesDown;
  int brought = 0, bring_down = 0, bring_across = 0;
  const auto bring = [&] {
    if (bring_down < high) {
      unsigned char* stage = shared + brought % S::kStages * S::kStage;
      const int64_t column0 = across.column0 + bring_across * kTileColumns;
      bring_tile<H>(p, stage, row0 + bring_down * kTileRows, column0, across.column_end);
      if constexpr (kRows) bring_side<H, kRanks>(p, stage + S::kTile, window, column0, across.column_end);
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
      bring_tall<H, kRanks>(p, tall, window, row0 + down * kTileRows);
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
      if constexpr (kRows) add_by_rows<H, kRanks>(stage, by_rows);
      if constexpr (kColumns) add_by_columns<H, kRanks>(stage, tall, columns);
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
        float* to = p.row_sums + blockIdx.x * p.rows * kRanks + n * 8 + lane % 4 * 2;
        give_sums<kRanks>(to, by_rows[n], row0 + down * kTileRows + warp * 16 + lane / 4, p.rows);
      }
    }
  }
  if constexpr (kColumns) {
    constexpr int kBlockColumns = S::kTilesAcross * kTileColumns;
    GPU_UNROLL
    for (int at = 0; at < S::kTilesAcross; ++at) {
      GPU_UNROLL
      for (int n = 0; n < kRanks / 16; ++n) {
        float* to = p.column_sums + (static_cast<int64_t>(blockIdx.y) * p.blocks + blockIdx.x) * kBlockColumns * kRanks + warp / 4 * (kRanks / 2) + n * 8 + lane % 4 * 2;
        if (at < wide) give_sums<kRanks>(to, by_columns[at][n], at * kTileColumns + warp % 4 * 16 + lane / 4, kBlockColumns);
      }
    }
  }
}

struct RowSums {
  Launch from;
  PartList parts;
  SkinnyRows to;
  int64_t ranks;      // of a row of sums, with its padding
  int32_t padded[kMostWindows + 1];  // places before window w
};

__global__ void __launch_bounds__(kThreads) add_row_sums(GPU_ARGUMENT RowSums p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, places = p.padded[p.from.count];
  if (at >= p.from.rows * places) return;
  const int64_t row = at / places, place = at % places;
  for (int w = 0; w < kMostWindows; ++w) {
    if (w >= p.from.count || place < p.padded[w] || place >= p.padded[w + 1]) continue;
    const Window& window = p.from.windows[w];
    const int64_t own = place - p.padded[w], rank = p.parts.rank_at(window.rank0 + own);
    if (rank < 0) return;
    float sum = 0;
    for (int64_t block = window.block0; block < window.block0 + window.blocks; ++block) sum += p.from.row_sums[(block * p.from.rows + row) * p.ranks + own];
    p.to.out[row * p.parts.ranks() + rank] = sum * p.to.scale[p.parts.part_at(window.rank0 + own)];
  }
}

struct ColumnSums {
  Launch from;
  PartList parts;
  SkinnyColumns to;
  int64_t chunks, ranks;
  int32_t block_columns;
};

// blockIdx.y: a window.
__global__ void __launch_bounds__(kThreads) add_column_sums(GPU_ARGUMENT ColumnSums p) {
  const Window& window = p.from.windows[blockIdx.y];
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= window.columns * window.ranks) return;
  const int64_t own = p.to.flat_b ? at % window.ranks : at / window.columns, column = window.column0 + (p.to.flat_b ? at / window.ranks : at % window.columns);
  const int64_t rank = p.parts.rank_at(window.rank0 + own);
  if (rank < 0) return;
  const int64_t inside = column - window.column0 / kPiece * kPiece, block = window.block0 + inside / p.block_columns;
  float sum = 0;
  for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
    sum += p.from.column_sums[((chunk * p.from.blocks + block) * p.block_columns + inside % p.block_columns) * p.ranks + own];
  }
  const Part& part = p.parts.at[p.parts.part_at(window.rank0 + own)];
  const int64_t to = p.to.flat_b ? part.b0 + (column - part.column) * part.rank + rank - part.rank0 : rank * p.to.rank_pitch + column;
  p.to.out[to] += p.to.scale * sum;
}

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

template <class H, int kRanks, bool kRows, bool kColumns>
void run(Queue& queue, const Skinny& product, Launch launch, const SkinnyRows* rows, const SkinnyColumns* columns) {
  using S = Shape<kRanks, kRows, kColumns>;
  constexpr int64_t kBlockColumns = S::kTilesAcross * kTileColumns, kBlockRows = S::kTilesDown * kTileRows;
  const int64_t chunks = (product.rows + kBlockRows - 1) / kBlockRows;
  for (int w = 0; w < launch.count; ++w) {
    Window& window = launch.windows[w];
    const int64_t width = window.columns == 0 ? 0 : window.column0 % kPiece + window.columns;
    window.block0 = launch.blocks, window.blocks = static_cast<int32_t>((width + kBlockColumns - 1) / kBlockColumns);
    launch.blocks += window.blocks;
  }
  if (kRows && (launch.row_sums = queue.scratch_for<float>(launch.blocks * product.rows * kRanks)) == nullptr) return;
  if (kColumns && (launch.column_sums = queue.scratch_for<float>(chunks * launch.blocks * kBlockColumns * kRanks)) == nullptr) return;
  const dim3 grid(static_cast<unsigned>(launch.blocks), static_cast<unsigned>(chunks));
  if (launch.blocks > 0 && chunks > 0) {
    cudaFuncSetAttribute(skinny_tiles<H, kRanks, kRows, kColumns>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kShared);
    GPU_LAUNCH((skinny_tiles<H, kRanks, kRows, kColumns>), grid, kThreads, S::kShared, queue.stream(), launch);
  }
  if constexpr (kRows) {
    RowSums sums{launch, product.parts, *rows, kRanks, {}};
    for (int w = 0; w < launch.count; ++w) sums.padded[w + 1] = sums.padded[w] + launch.windows[w].ranks;
    const int64_t count = product.rows * sums.padded[launch.count];
    if (count > 0) GPU_LAUNCH(add_row_sums, blocks_for(count), kThreads, 0, queue.stream(), sums);
  }
  if constexpr (kColumns) {
    int64_t count = 0;
    for (int w = 0; w < launch.count; ++w) {
      const int64_t own = launch.windows[w].columns * launch.windows[w].ranks;
      count = own > count ? own : count;
    }
    const ColumnSums sums{launch, product.parts, *columns, chunks, kRanks, static_cast<int32_t>(kBlockColumns)};
    const dim3 blocks(blocks_for(count), static_cast<unsigned>(launch.count));
    if (count > 0 && chunks > 0) GPU_LAUNCH(add_column_sums, blocks, kThreads, 0, queue.stream(), sums);
  }
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
  for (int w = 0; w < launch.count; ++w) widest = launch.windows[w].ranks > widest ? launch.windows[w].ranks : widest;
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

std::vector<Window> windows_over(const PartList& parts, int64_t columns, const LoraParts& adapter) {
  std::vector<Window> windows;
  Window window;
  window.columns = columns;
  if (adapter.dropout == 0.0f) {
    cut(windows, window, 0, parts.padded());
    return windows;
  }
  for (int i = 0; i < parts.count; ++i) {
    window.mask = dropout_of(adapter, i);
    cut(windows, window, parts.at[i].padded0, parts.at[i].padded());
  }
  return windows;
}

void skinny(Queue& queue, const Skinny& product, const SkinnyRows* rows, const SkinnyColumns* columns) {
  if (product.rows == 0) return;
  for (size_t first = 0; first < product.windows.size(); first += kMostWindows) {
    Launch launch{};
    launch.z = product.z, launch.side = product.side, launch.tall = product.tall;
    launch.rows = product.rows, launch.z_pitch = product.z_pitch, launch.mask_pitch = product.mask_pitch, launch.side_pitch = product.side_pitch;
    launch.padded = static_cast<int32_t>(product.parts.padded());
    for (size_t w = first; w < product.windows.size() && launch.count < kMostWindows; ++w) launch.windows[launch.count++] = product.windows[w];
    if (product.dtype == DType::bf16) run<bf16>(queue, product, launch, rows, columns);
    else run<f16>(queue, product, launch, rows, columns);
  }
}

}  // namespace lowrank::cuda
