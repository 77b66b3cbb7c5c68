#include "skinny.h"

#include "skinny_sums.h"
#include "skinny_tiles.cuh"

namespace lowrank::cuda {

namespace {

// A block goes over tiles of z with eight warps. By rows a warp has 16 rows of a tile and all ranks, or, of many ranks, 32 rows and half of
// the ranks; by columns it has 16 columns and half of the ranks, or 32 columns. The more it has of both, the less it reads from shared
// memory. Sums by columns stay in registers, which limits how many columns a block has.
constexpr int kThreads = kSkinnyThreads, kWarps = kThreads / 32;

template <int kRanks, bool kRows, bool kColumns>
struct Shape {
  static constexpr bool kMany = kRanks == 64;
  static_assert(!kMany || !kRows || !kColumns, "shared memory has no room for both");
  // A tile is kSide matrices of 64 columns side by side.
  static constexpr int kTileRows = kMany && kColumns ? 64 : 128, kSide = kMany && kColumns ? 2 : 1, kColumnsOfTile = kSide * kTileColumns;
  static constexpr int kTilesAcross = !kColumns ? 4 : kRanks == 16 ? 8 : kMany ? 1 : 4;  // a block's, at least
  static constexpr int kMostAcross = kColumns ? kTilesAcross : 128, kMostDown = kColumns ? 4096 / kTileRows : 1;
  // What a warp has.
  static constexpr int kHigh = kMany && kRows ? 2 : 1, kRowGroups = kHigh, kWide = kMany && kColumns ? 2 : 1, kColumnGroups = 2;
  static_assert(kTileRows / (16 * kHigh) * kRowGroups == kWarps || !kRows);
  static_assert(kColumnsOfTile / (16 * kWide) * kColumnGroups == kWarps);
  static constexpr int kMatrix = tile_bytes(kTileRows), kTile = kSide * kMatrix, kStage = kTile + (kRows ? side_bytes(kRanks) : 0);
  static constexpr int kTall = kColumns ? tall_bytes(kTileRows, kRanks) : 0;
  // What a chip of 99 KiB a block can hold.
  static constexpr int kStages = kRanks == 32 && kRows && kColumns ? 2 : 3, kTalls = kMany ? 3 : 2;
  static constexpr int kShared = kStages * kStage + kTalls * kTall;
  static_assert(kShared <= kMostShared);
};

struct Launch {
  const void* z;
  int64_t z_pitch, mask_pitch;
  Factors factors;
  PartialSums sums;
  int32_t tiles_down;  // a block's
};

// The window of this block, and the block's columns: from a whole piece on, which may begin before the window.
struct Across {
  Window window;
  int64_t column0, column_end;
};

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
  across.column0 = begin + static_cast<int64_t>(block - window.block0) * p.sums.block_columns;
  across.column_end = across.column0 + p.sums.block_columns < end ? across.column0 + p.sums.block_columns : end;
  return across;
}

// Drops what the mask drops of the pieces that this thread has brought. The factor of what stays is the business of the sums.
template <int kTileRows>
GPU_FN void mask_own_pieces(const Launch& p, const Dropout& mask, unsigned char* tile, int64_t row0, int64_t column0) {
  const int64_t first = row0 * p.mask_pitch + column0 + own_at() * kPiece;
  unsigned char* own = own_place(tile);
  for_own_pieces<kTileRows>([&](int row, int place) {
    const PhiloxWords kept = kept_pairs(mask, first + row * p.mask_pitch);
    auto& pairs = *reinterpret_cast<PhiloxWords*>(own + place);
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) pairs.at[i] &= kept.at[i];
  });
}

template <class H, int kRanks, bool kRows, bool kColumns>
__global__ void __launch_bounds__(kThreads, 2) skinny_tiles(GPU_ARGUMENT Launch p) {
  using S = Shape<kRanks, kRows, kColumns>;
  GPU_SHARED(shared);
  constexpr int kTalls = S::kStages * S::kStage;  // where they begin
  const Across across = across_of(p);
  const Window& window = across.window;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * p.tiles_down * S::kTileRows, rows_left = (p.sums.rows - row0 + S::kTileRows - 1) / S::kTileRows;
  const int high = at_most(rows_left, p.tiles_down);
  // Where tall has fewer places than there are stages, what is under way must be of this row of tiles and of the next: a row has as many,
  // though some are beyond the columns.
  constexpr int kLeast = kColumns && S::kTalls < S::kStages ? S::kStages - 1 : 1;
  const int filled = static_cast<int>((across.column_end - across.column0 + S::kColumnsOfTile - 1) / S::kColumnsOfTile);
  const int wide = filled < kLeast ? kLeast : filled, whole_width = wide * S::kColumnsOfTile;
  // The tile that is brought next: where it goes, which it is, where this thread's pieces of it lie, and what is left from it on.
  int bring_to = 0, bring_down = 0, bring_across = 0;
  const H* own_z = own_piece(static_cast<const H*>(p.z), p.z_pitch, row0 + own_first(), across.column0);
  const H* own_side = kRows ? own_of_side<H, kRanks>(p.factors, window, across.column0) : nullptr;
  const H* own_tall = kColumns ? TallPiece<kRanks>::template own<H>(p.factors, window, row0) : nullptr;
  int rows = at_most(p.sums.rows - row0, kEnough), columns = static_cast<int>(across.column_end - across.column0);
  const auto next_stage = [](int at) { return at == (S::kStages - 1) * S::kStage ? 0 : at + S::kStage; };
  const auto bring = [&] {
    if (bring_down < high) {
      unsigned char* stage = shared + bring_to;
      GPU_UNROLL
      for (int i = 0; i < S::kSide; ++i) bring_tile<H, S::kTileRows>(stage + i * S::kMatrix, own_z + i * kTileColumns, p.z_pitch, rows, columns - i * kTileColumns);
      if constexpr (kRows) bring_side<H, kRanks>(p.factors, stage + S::kTile, own_side, window.ranks, columns);
      if constexpr (kColumns) {
        if (bring_across == 0) {
          bring_tall<H, kRanks, S::kTileRows>(p.factors, shared + kTalls + bring_down % S::kTalls * S::kTall, own_tall, window.ranks, rows);
          own_tall += static_cast<int64_t>(S::kTileRows) * 2 * p.factors.padded;
        }
      }
      own_z += S::kColumnsOfTile, columns -= S::kColumnsOfTile;
      if constexpr (kRows) own_side += S::kColumnsOfTile;
      if (++bring_across == wide) {
        bring_across = 0, ++bring_down;
        own_z += S::kTileRows * p.z_pitch - whole_width, columns += whole_width, rows -= S::kTileRows;
        if constexpr (kRows) own_side -= whole_width;
      }
    }
    bring_to = next_stage(bring_to);
    ptx::cp_async_commit();
  };
  GPU_UNROLL
  for (int i = 0; i < S::kStages - 1; ++i) bring();
  const int lane = static_cast<int>(lane_id()), warp = static_cast<int>(warp_id());
  // The warp's rows and ranks by rows, and its columns and ranks by columns.
  constexpr int kRowWarps = kWarps / S::kRowGroups, kColumnWarps = kWarps / S::kColumnGroups, kOwnRows = kRanks / S::kRowGroups / 8, kOwnColumns = kRanks / S::kColumnGroups / 8;
  const int own_row = warp % kRowWarps * 16 * S::kHigh, row_group = warp / kRowWarps;
  const int own_column = warp % kColumnWarps * 16 * S::kWide, column_group = warp / kColumnWarps;
  const RowLanes row_at = kRows ? row_lanes(shared, own_row, row_group) : RowLanes{};
  const auto column_at = column_lanes<kRanks, S::kWide, S::kColumnGroups>(shared, own_column % kTileColumns, column_group);
  const int matrix = own_column / kTileColumns * S::kMatrix;
  float by_columns[kColumns ? S::kTilesAcross : 1][S::kWide][kOwnColumns][4] = {};
  int stage = 0;
  GPU_NO_UNROLL
  for (int down = 0; down < high; ++down) {
    const int tall = kTalls + down % S::kTalls * S::kTall;
    float by_rows[S::kHigh][kOwnRows][4] = {};
    const auto add_tile = [&](float(&columns_sums)[S::kWide][kOwnColumns][4], int at) {
      ptx::cp_async_wait<S::kStages - 2>();
      if constexpr (!(kRows && kColumns)) {  // of dy, which has no mask
        if (window.mask.threshold != 0) {
          for (int i = 0; i < S::kSide; ++i) {
            mask_own_pieces<S::kTileRows>(p, window.mask, shared + stage + i * S::kMatrix, row0 + down * S::kTileRows, across.column0 + at * S::kColumnsOfTile + i * kTileColumns);
          }
        }
      }
      __syncthreads();  // this tile is there for all, and all are done with the one whose place is filled next
      bring();
      if constexpr (kRows) add_by_rows<H, kRanks, S::kHigh, S::kRowGroups>(row_at, stage, stage + S::kTile, row_group, window.ranks, by_rows);
      if constexpr (kColumns) {
        add_by_columns<H, kRanks, S::kTileRows, S::kWide, S::kColumnGroups>(column_at, stage + matrix, tall, column_group, window.ranks, columns_sums);
      }
      stage = next_stage(stage);
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
      for (int m = 0; m < S::kHigh; ++m) {
        GPU_UNROLL
        for (int n = 0; n < kOwnRows; ++n) {
          const int rank = (n / 2 * S::kRowGroups + row_group) * 16 + n % 2 * 8 + lane % 4 * 2;
          float* to = p.sums.by_rows + blockIdx.x * p.sums.rows * kRanks + rank;
          give_sums<kRanks>(to, by_rows[m][n], row0 + down * S::kTileRows + own_row + m * 16 + lane / 4, p.sums.rows);
        }
      }
    }
  }
  if constexpr (kColumns) {
    constexpr int kBlockColumns = S::kTilesAcross * S::kColumnsOfTile;
    float* sums = p.sums.by_columns + (static_cast<int64_t>(blockIdx.y) * p.sums.blocks + blockIdx.x) * kBlockColumns * kRanks;
    GPU_UNROLL
    for (int at = 0; at < S::kTilesAcross; ++at) {
      if (at >= wide) continue;
      GPU_UNROLL
      for (int m = 0; m < S::kWide; ++m) {
        GPU_UNROLL
        for (int n = 0; n < kOwnColumns; ++n) {
          const int rank = (n * S::kColumnGroups + column_group) * 8 + lane % 4 * 2, column = at * S::kColumnsOfTile + own_column + m * 16 + lane / 4;
          if (p.sums.ranks_first) give_sums_across(sums + rank * kBlockColumns + column, by_columns[at][m][n], kBlockColumns);
          else give_sums<kRanks>(sums + rank, by_columns[at][m][n], column, kBlockColumns);
        }
      }
    }
  }
}

template <class H, int kRanks, bool kRows, bool kColumns>
void run(Queue& queue, const Skinny& product, Launch launch, const SkinnyRows* rows, const SkinnyColumns* columns) {
  using S = Shape<kRanks, kRows, kColumns>;
  PartialSums& sums = launch.sums;
  sums.ranks = kRanks, sums.ranks_first = columns != nullptr && !columns->flat_b;
  launch.tiles_down = cut_among_blocks(sums, {S::kTileRows, S::kColumnsOfTile, S::kTilesAcross, S::kMostAcross, S::kMostDown});
  if (!lay_out(queue, sums, kRows, kColumns)) return;
  const dim3 grid(static_cast<unsigned>(sums.blocks), static_cast<unsigned>(sums.chunks));
  if (sums.blocks > 0 && sums.chunks > 0) {
    cudaFuncSetAttribute(skinny_tiles<H, kRanks, kRows, kColumns>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kShared);
    GPU_LAUNCH((skinny_tiles<H, kRanks, kRows, kColumns>), grid, kThreads, S::kShared, queue.stream(), launch);
  }
  add_up(queue, product.dtype, sums, product.parts, rows, columns);
}

template <class H, int kRanks>
void run(Queue& queue, const Skinny& product, const Launch& launch, const SkinnyRows* rows, const SkinnyColumns* columns) {
  if constexpr (kRanks < 64) {
    if (rows != nullptr && columns != nullptr) return run<H, kRanks, true, true>(queue, product, launch, rows, columns);
  } else if (columns != nullptr) {  // both at once leave no room for two blocks: a pass each
    if (rows != nullptr) run<H, kRanks, true, false>(queue, product, launch, rows, nullptr);
    rows = nullptr;
  }
  if (rows != nullptr) run<H, kRanks, true, false>(queue, product, launch, rows, columns);
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
  const bool once = product.windows.size() <= kMostWindows;
  SkinnyRows parts_of_rows;  // of several launches none has whole rows to spread
  if (rows != nullptr && !once) parts_of_rows = *rows, parts_of_rows.spreads = 0;
  for (size_t first = 0; first < product.windows.size(); first += kMostWindows) {
    Launch launch{product.z, product.z_pitch, product.mask_pitch, factors_of(product), {}, 1};
    PartialSums& sums = launch.sums;
    sums.rows = product.rows;
    for (size_t w = first; w < product.windows.size() && sums.count < kMostWindows; ++w) sums.windows[sums.count++] = product.windows[w];
    const SkinnyRows* own = rows == nullptr || once ? rows : &parts_of_rows;
    if (product.dtype == DType::bf16) run<bf16>(queue, product, launch, own, columns);
    else run<f16>(queue, product, launch, own, columns);
  }
  for (int32_t i = 0; rows != nullptr && !once && i < rows->spreads; ++i) spread(queue, {rows->spread[i]});
}

}  // namespace lowrank::cuda
