// The own product, by mma.sync. A block of four warps makes 128 x 128 of C, a warp 64 x 64 of these, from slabs of 32 along k in three
// buffers: 48 KiB, so that two blocks share a multiprocessor on every chip from sm_80 on, and a copy has two slabs' time to arrive. Wider
// warps would read less from shared memory, which is the limit at 64 x 32, but 64 x 64 sums are half of the registers there are.
#include "gemm.h"
#include "pieces.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kTile = 128, kDepth = 32, kStages = 3, kThreads = 128, kWarpTile = 64;
constexpr int kSlabBytes = kTile * kDepth * 2, kStageBytes = 2 * kSlabBytes;
constexpr int kShared = kStages * kStageBytes;
constexpr int kGroup = 8;  // rows of tiles that go through B together, so that their A and its B stay in the L2 cache

// Of the way out: a warp lays 16 rows of sums into shared memory and takes them up in eights of a row.
constexpr int kOutPitch = kWarpTile + 8;

constexpr int64_t kShortestSplit = 8;  // slabs
constexpr int64_t kFewTiles = 128;     // fewer than this, and k is cut

// A block's share of C and of the slabs.
struct Share {
  int64_t row0, column0;
  int64_t first_slab, slabs;
};

// Walks the slabs of all terms, one behind the other. None is empty.
struct Walk {
  int term = 0;
  int64_t k = 0;

  GPU_FN void skip(const Gemm& g, int64_t slabs) {
    for (; slabs > 0 && term < g.count; ++term, k = 0) {
      const int64_t own = (g.terms[term].k + kDepth - 1) / kDepth;
      if (slabs < own) {
        k = slabs * kDepth;
        return;
      }
      slabs -= own;
    }
  }
  GPU_FN void next(const Gemm& g) {
    k += kDepth;
    if (k < g.terms[term].k) return;
    ++term, k = 0;
  }
};

// kRows rows of kDepth numbers: of A, or of B where it lies in columns.
template <class H>
GPU_FN void bring_deep(unsigned char* tile, const H* data, int64_t pitch, int64_t row0, int64_t rows, int64_t k, int64_t k_end) {
  constexpr int kPieces = kDepth / kPiece, kStep = kThreads / kPieces;
  const int first = threadIdx.x / kPieces, at = threadIdx.x % kPieces, given = given_of(k + at * kPiece, k_end);
  const H* from = data + (row0 + first) * pitch + k + at * kPiece;
  GPU_UNROLL
  for (int i = 0; i < kTile / kStep; ++i, from += kStep * pitch) {
    const int row = first + i * kStep;
    const int own = row0 + row < rows ? given : 0;
    bring_piece(piece_of<kPieces>(tile, row, at), own > 0 ? from : data, own);
  }
}

// kDepth rows of kTile numbers: of B where it lies in rows.
template <class H>
GPU_FN void bring_wide(unsigned char* tile, const H* data, int64_t pitch, int64_t column0, int64_t columns, int64_t k, int64_t k_end) {
  constexpr int kPieces = kTile / kPiece, kStep = kThreads / kPieces;
  const int first = threadIdx.x / kPieces, at = threadIdx.x % kPieces, given = given_of(column0 + at * kPiece, columns);
  const H* from = data + (k + first) * pitch + column0 + at * kPiece;
  GPU_UNROLL
  for (int i = 0; i < kDepth / kStep; ++i, from += kStep * pitch) {
    const int row = first + i * kStep;
    const int own = k + row < k_end ? given : 0;
    bring_piece(piece_of<kPieces>(tile, row, at), own > 0 ? from : data, own);
  }
}

template <class H, Lie kLie>
GPU_FN void bring_slab(const Gemm& g, const Share& share, const Walk& walk, unsigned char* stage) {
  const GemmTerm& term = g.terms[walk.term];
  bring_deep(stage, static_cast<const H*>(term.a), term.a_pitch, share.row0, g.m, walk.k, term.k);
  if constexpr (kLie == Lie::columns) {
    bring_deep(stage + kSlabBytes, static_cast<const H*>(term.b), term.b_pitch, share.column0, g.n, walk.k, term.k);
  } else {
    bring_wide(stage + kSlabBytes, static_cast<const H*>(term.b), term.b_pitch, share.column0, g.n, walk.k, term.k);
  }
}

using Sums = float[4][8][4];  // of a warp: 16-row by 8-column tiles, as mma lays them out over the lanes

template <class H, Lie kLie>
GPU_FN void multiply_slab(unsigned char* stage, int row0, int column0, Sums& sums) {
  const int lane = static_cast<int>(lane_id());
  GPU_UNROLL
  for (int half = 0; half < kDepth / 16; ++half) {
    uint32_t a[4][4];
    GPU_UNROLL
    for (int i = 0; i < 4; ++i) ptx::ldmatrix_x4(a[i], piece_of<kDepth / kPiece>(stage, row0 + i * 16 + lane % 16, half * 2 + lane / 16));
    GPU_UNROLL
    for (int j = 0; j < 4; ++j) {
      uint32_t b[4];  // k low and high, of columns 0 to 7 and 8 to 15
      if constexpr (kLie == Lie::columns) {
        ptx::ldmatrix_x4(b, piece_of<kDepth / kPiece>(stage + kSlabBytes, column0 + j * 16 + lane % 8 + lane / 16 * 8, half * 2 + lane / 8 % 2));
      } else {
        ptx::ldmatrix_x4_trans(b, piece_of<kTile / kPiece>(stage + kSlabBytes, half * 16 + lane % 16, column0 / kPiece + j * 2 + lane / 16));
      }
      GPU_UNROLL
      for (int i = 0; i < 4; ++i) {
        ptx::mma_m16n8k16<H>(sums[i][2 * j], a[i], b[0], b[1]);
        ptx::mma_m16n8k16<H>(sums[i][2 * j + 1], a[i], b[2], b[3]);
      }
    }
  }
}

template <class H, Lie kLie>
GPU_FN void sum_slabs(const Gemm& g, const Share& share, unsigned char* shared, Sums& sums) {
  Walk walk;
  walk.skip(g, share.first_slab);
  int64_t brought = 0;
  const auto bring = [&] {
    if (brought < share.slabs) {
      bring_slab<H, kLie>(g, share, walk, shared + brought % kStages * kStageBytes);
      walk.next(g);
    }
    ++brought;
    ptx::cp_async_commit();
  };
  GPU_UNROLL
  for (int i = 0; i < kStages - 1; ++i) bring();
  const int row0 = static_cast<int>(warp_id()) / 2 * kWarpTile, column0 = static_cast<int>(warp_id()) % 2 * kWarpTile;
  for (int64_t slab = 0; slab < share.slabs; ++slab) {
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();  // this slab has landed for all, and all are done with the one whose place is filled next
    bring();
    multiply_slab<H, kLie>(shared + slab % kStages * kStageBytes, row0, column0, sums);
  }
}

struct alignas(16) FourSums {
  float at[4];
};
struct Eight {
  float at[kPiece];
};

template <class T>
struct alignas(16) EightOf {
  T at[kPiece];
};

template <class T>
GPU_FN Eight load_eight(const T* from, bool whole, int given) {
  Eight eight{};
  if (whole) {
    const auto stored = *reinterpret_cast<const EightOf<T>*>(from);
    GPU_UNROLL
    for (int i = 0; i < kPiece; ++i) eight.at[i] = to_f32(stored.at[i]);
  } else {
    GPU_UNROLL
    for (int i = 0; i < kPiece; ++i) {
      if (i < given) eight.at[i] = to_f32(from[i]);
    }
  }
  return eight;
}

template <class T>
GPU_FN void store_eight(T* to, const Eight& eight, bool whole, int given) {
  if (whole) {
    EightOf<T> stored;
    GPU_UNROLL
    for (int i = 0; i < kPiece; ++i) stored.at[i] = from_f32<T>(eight.at[i]);
    *reinterpret_cast<EightOf<T>*>(to) = stored;
  } else {
    GPU_UNROLL
    for (int i = 0; i < kPiece; ++i) {
      if (i < given) to[i] = from_f32<T>(eight.at[i]);
    }
  }
}

// Whether eights of C's rows, and of the carry's, are aligned.
struct Eights {
  bool c, carry;
};

GPU_FN void finish(Eight& eight, const Eight& other) {
  GPU_UNROLL
  for (int i = 0; i < kPiece; ++i) eight.at[i] += other.at[i];
}

// The sums of eight neighbours of a row become elements of C.
template <class H>
GPU_FN void write_eight(const Gemm& g, const Eights& aligned, int64_t row, int64_t column, Eight sums) {
  const int given = given_of(column, g.n);
  const bool all = given == kPiece;
  if (g.bias != nullptr) finish(sums, load_eight(g.bias + column, false, given));
  if (g.c_is_f32 != 0) return store_eight(static_cast<float*>(g.c) + row * g.c_pitch + column, sums, all && aligned.c, given);
  if (g.carry != nullptr) finish(sums, load_eight(static_cast<const H*>(g.carry) + row * g.carry_pitch + column, all && aligned.carry, given));
  store_eight(static_cast<H*>(g.c) + row * g.c_pitch + column, sums, all && aligned.c, given);
}

// write(row in the warp's 64, first of eight columns there, eight sums)
template <class Write>
GPU_FN void give_out(float* room, const Sums& sums, const Write& write) {
  const int lane = static_cast<int>(lane_id());
  GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    GPU_UNROLL
    for (int j = 0; j < 8; ++j) {
      GPU_UNROLL
      for (int high = 0; high < 2; ++high) {
        *reinterpret_cast<float2*>(room + (lane / 4 + high * 8) * kOutPitch + j * 8 + lane % 4 * 2) = make_float2(sums[i][j][2 * high], sums[i][j][2 * high + 1]);
      }
    }
    __syncwarp();
    GPU_NO_UNROLL
    for (int turn = 0; turn < 4; ++turn) {
      const int row = turn * 4 + lane / 8, column = lane % 8 * kPiece;
      Eight eight;
      GPU_UNROLL
      for (int part = 0; part < 2; ++part) {
        const auto four = *reinterpret_cast<const FourSums*>(room + row * kOutPitch + column + part * 4);
        GPU_UNROLL
        for (int e = 0; e < 4; ++e) eight.at[part * 4 + e] = four.at[e];
      }
      write(i * 16 + row, column, eight);
    }
    __syncwarp();
  }
}

// Tiles in groups of kGroup rows of them, which go from left to right together.
GPU_FN Share share_of(const Gemm& g, int64_t slabs_each, int64_t slabs) {
  const int64_t tall = (g.m + kTile - 1) / kTile, broad = (g.n + kTile - 1) / kTile, tile = blockIdx.x, group = tile / (kGroup * broad);
  const int64_t rows = tall - group * kGroup < kGroup ? tall - group * kGroup : kGroup, in_group = tile - group * kGroup * broad;
  Share share;
  share.row0 = (group * kGroup + in_group % rows) * kTile;
  share.column0 = in_group / rows * kTile;
  share.first_slab = blockIdx.y * slabs_each;
  share.slabs = slabs - share.first_slab < slabs_each ? slabs - share.first_slab : slabs_each;
  return share;
}

// With `partial` [splits, m, n]: the sums over a share of k, and no more.
template <class H, Lie kLie>
__global__ void __launch_bounds__(kThreads, 2) multiply_halves(GPU_ARGUMENT Gemm g, Eights aligned, int64_t slabs_each, int64_t slabs, float* partial) {
  GPU_SHARED(shared);
  const Share share = share_of(g, slabs_each, slabs);
  Sums sums = {};
  sum_slabs<H, kLie>(g, share, shared, sums);
  ptx::cp_async_wait<0>();
  __syncthreads();  // the slabs' room becomes that of the way out
  const int64_t row0 = share.row0 + static_cast<int>(warp_id()) / 2 * kWarpTile, column0 = share.column0 + static_cast<int>(warp_id()) % 2 * kWarpTile;
  give_out(reinterpret_cast<float*>(shared) + warp_id() * 16 * kOutPitch, sums, [&](int row, int column, const Eight& eight) {
    if (row0 + row >= g.m || column0 + column >= g.n) return;
    if (partial == nullptr) return write_eight<H>(g, aligned, row0 + row, column0 + column, eight);
    const int given = given_of(column0 + column, g.n);
    store_eight(partial + (blockIdx.y * g.m + row0 + row) * g.n + column0 + column, eight, given == kPiece && g.n % 4 == 0, given);
  });
}

template <class H>
__global__ void __launch_bounds__(kThreads) add_splits(GPU_ARGUMENT Gemm g, Eights aligned, const float* partial, int64_t splits) {
  const int64_t eights = (g.n + kPiece - 1) / kPiece, at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= g.m * eights) return;
  const int64_t row = at / eights, column = at % eights * kPiece;
  const int given = given_of(column, g.n);
  Eight sums{};
  for (int64_t split = 0; split < splits; ++split) {
    finish(sums, load_eight(partial + (split * g.m + row) * g.n + column, given == kPiece && g.n % 4 == 0, given));
  }
  write_eight<H>(g, aligned, row, column, sums);
}

struct Cut {
  int64_t slabs = 0, each = 0, splits = 1;
};

// By shape alone: sums must not depend on the device.
Cut cut_of(const Gemm& g, int64_t tiles) {
  Cut cut;
  for (int i = 0; i < g.count; ++i) cut.slabs += (g.terms[i].k + kDepth - 1) / kDepth;
  const int64_t most = cut.slabs / kShortestSplit, wanted = kFewTiles / tiles;
  cut.splits = wanted < most ? wanted : most;
  if (cut.splits < 1) cut.splits = 1;
  cut.each = (cut.slabs + cut.splits - 1) / cut.splits;
  if (cut.each > 0) cut.splits = (cut.slabs + cut.each - 1) / cut.each;
  return cut;
}

template <class H, Lie kLie>
void launch(Queue& queue, const Gemm& g) {
  const int64_t tiles = ((g.m + kTile - 1) / kTile) * ((g.n + kTile - 1) / kTile);
  const Cut cut = cut_of(g, tiles);
  const Eights aligned{is_aligned(g.c, g.c_pitch), is_aligned(g.carry, g.carry_pitch)};
  float* partial = nullptr;
  if (cut.splits > 1 && (partial = static_cast<float*>(queue.workspace(cut.splits * g.m * g.n * static_cast<int64_t>(sizeof(float))))) == nullptr) return;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(cut.splits));
  GPU_LAUNCH((multiply_halves<H, kLie>), grid, kThreads, kShared, queue.stream(), g, aligned, cut.each, cut.slabs, partial);
  if (partial == nullptr) return;
  const int64_t eights = g.m * ((g.n + kPiece - 1) / kPiece);
  GPU_LAUNCH(add_splits<H>, static_cast<unsigned>((eights + kThreads - 1) / kThreads), kThreads, 0, queue.stream(), g, aligned, partial, cut.splits);
}

template <class H>
void launch(Queue& queue, const Gemm& g) {
  if (g.b_lie == Lie::columns) launch<H, Lie::columns>(queue, g);
  else launch<H, Lie::rows>(queue, g);
}

}  // namespace

void gemm_tiles(Queue& queue, const Gemm& product) {
  if (product.m == 0 || product.n == 0) return;
  Gemm g = product;
  g.count = 0;
  for (int i = 0; i < product.count; ++i) {
    if (product.terms[i].k > 0) g.terms[g.count++] = product.terms[i];
  }
  if (g.dtype == DType::bf16) launch<bf16>(queue, g);
  else launch<f16>(queue, g);
}

}  // namespace lowrank::cuda
