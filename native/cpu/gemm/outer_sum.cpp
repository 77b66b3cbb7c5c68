// A few rows of V are held in registers while their rows of X go by, number by number, and C beside them, from L1 or L2: so X is read once,
// along its rows. A tile of C held in registers over all rows would read X in strips, at steps of a row, which caches and their prefetching take
// badly: for rank 8 that was 3 times slower.
#include "outer_sum.h"
#include "plan.h"
#include "words.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

constexpr int64_t kLeastColumns = 64, kMostColumns = 256;
constexpr int64_t kSumFloats = 16 * 1024;  // of C in one task: 64 KiB
constexpr int64_t kRows = 1024;            // whose sum is made before it is added to C, so that no chain of additions grows long
constexpr int64_t kFirstColumns = 64;      // of the next rows are asked for; the processor guesses the rest

LOWRANK_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The columns of V by groups of kTileCols, the last of one or two vectors.
LOWRANK_INLINE int64_t groups_of(const OuterSum& sum) { return (sum.rank + kTileCols - 1) / kTileCols; }

// c [n, vectors * kLanes] += x^T v for a few rows. `cols`: of v, beyond which there are zeros.
template <int rows, int vectors>
void add_rows(const float* x, int64_t x_pitch, int64_t n, const float* v, int64_t v_pitch, int64_t cols, float* c) {
  const FloatTag d;
  FloatVec across[rows][vectors];
  HWY_UNROLL(14)
  for (int t = 0; t < rows; ++t) {
    HWY_UNROLL(2)
    for (int i = 0; i < vectors; ++i) {
      const float* from = v + t * v_pitch + i * kLanes;
      const int64_t left = cols - i * kLanes;
      across[t][i] = left < kLanes ? load_f32_n(d, from, left) : hn::LoadU(d, from);
    }
  }
  for (; n > 0; --n, ++x, c += vectors * kLanes) {
    FloatVec sum[vectors];
    HWY_UNROLL(2)
    for (int i = 0; i < vectors; ++i) sum[i] = hn::Load(d, c + i * kLanes);
    HWY_UNROLL(14)
    for (int t = 0; t < rows; ++t) {
      const FloatVec down = hn::Set(d, x[t * x_pitch]);
      HWY_UNROLL(2)
      for (int i = 0; i < vectors; ++i) sum[i] = hn::MulAdd(down, across[t][i], sum[i]);
    }
    HWY_UNROLL(2)
    for (int i = 0; i < vectors; ++i) hn::Store(sum[i], d, c + i * kLanes);
  }
}

using AddRows = void (*)(const float* x, int64_t x_pitch, int64_t n, const float* v, int64_t v_pitch, int64_t cols, float* c);

#define ROW(rows) {add_rows<rows, 1>, add_rows<rows, 2>}
constexpr AddRows kAddRows[kTileRows][kTileVectors] = {LOWRANK_TILE_ROWS(ROW)};
#undef ROW

// `n` columns of some rows of X, masked: [rows, n].
void drop_rows(const OuterSum& sum, const PanelRows& rows, int64_t begin, int64_t n, float* dropped) {
  for (int64_t t = 0; t < rows.count; ++t) {
    const int64_t element = (rows.first + t) * sum.x_pitch + begin;
    drop_row(sum.drop, sum.x + element, element, n, dropped + t * n);
  }
}

PanelRows rows_from(int64_t first, const PanelRows& rows) { return {first + rows.first, rows.count}; }

void ask_for_rows(const OuterSum& sum, const PanelRows& rows, int64_t begin, int64_t n) {
  for (int64_t t = rows.first; t < rows.first + rows.count; ++t)
    for (int64_t i = 0; i < n && i < kFirstColumns; i += 16) __builtin_prefetch(sum.x + t * sum.x_pitch + begin + i);
}

// What a task has of C: `vectors` vectors of a group's columns for each of n rows.
struct Part {
  const float* numbers;
  int64_t n, vectors, cols;  // cols: of these columns exist
};

// c [n, cols] += part
void add_part(const Part& part, float* c, int64_t pitch) {
  for (int64_t i = 0; i < part.n; ++i)
    map_row(part.cols, [&](auto d, int64_t j, auto end) {
      end.store(hn::Add(end.load(d, c + i * pitch + j), hn::LoadU(d, part.numbers + i * part.vectors * kLanes + j)), d, c + i * pitch + j);
    });
}

// c [cols, n] += part^T
void add_transposed(const Part& part, float* c, int64_t pitch) {
  for (int64_t i = 0; i < part.n; i += kLanes)
    for (int64_t first = 0; first < part.cols; first += kLanes) {
      const int64_t n = least(part.n - i, kLanes), cols = least(part.cols - first, kLanes);
      WordVec v[kLanes];
      for (int64_t k = 0; k < kLanes; ++k)
        v[k] = k < n ? WordsOf<float>::load(part.numbers + (i + k) * part.vectors * kLanes + first) : hn::Zero(WordTag());
      transpose(WordTag(), v);
      for (int64_t j = 0; j < cols; ++j) {
        float* row = c + (first + j) * pitch + i;
        map_row(n, [&](auto d, int64_t k, auto end) { end.store(hn::Add(end.load(d, row + k), hn::BitCast(d, v[j])), d, row + k); });
      }
    }
}

// Rows [begin, begin + n) of C += what `parts` has of them.
void add_to_c(const OuterSum& sum, int64_t begin, int64_t n, const float* parts) {
  for (int64_t group = 0; group < groups_of(sum); ++group) {
    const int64_t first = group * kTileCols, cols = least(sum.rank - first, kTileCols);
    const Part part = {parts + group * n * kTileCols, n, (cols + kLanes - 1) / kLanes, cols};
    if (sum.lie == Lie::rows) {
      add_part(part, sum.c + begin * sum.pitch + first, sum.pitch);
    } else {
      add_transposed(part, sum.c + first * sum.pitch + begin, sum.pitch);
    }
  }
}

// The sum over rows [first, first + count), for rows [begin, begin + n) of C.
void sum_rows(const OuterSum& sum, int64_t first, int64_t count, int64_t begin, int64_t n, float* parts, float* dropped) {
  const int64_t groups = groups_of(sum), panels = panels_of(count);
  const bool drops = sum.drop.on();
  memset(parts, 0, static_cast<size_t>(groups * n * kTileCols) * sizeof(float));
  for (int64_t p = 0; p < panels; ++p) {
    const PanelRows rows = rows_from(first, panel_rows(count, panels, p));
    if (p + 1 < panels) ask_for_rows(sum, rows_from(first, panel_rows(count, panels, p + 1)), begin, n);
    if (drops) drop_rows(sum, rows, begin, n, dropped);
    const float* x = drops ? dropped : sum.x + rows.first * sum.x_pitch + begin;
    const float* v = sum.v + rows.first * sum.v_pitch;
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t cols = sum.rank - group * kTileCols, vectors = cols > kLanes ? 2 : 1;
      kAddRows[rows.count - 1][vectors - 1](x, drops ? n : sum.x_pitch, n, v + group * kTileCols, sum.v_pitch, cols, parts + group * n * kTileCols);
    }
  }
}

int64_t most_columns(const OuterSum& sum) {
  const int64_t fit = kSumFloats / (groups_of(sum) * kTileCols) / 16 * 16;
  return fit < 16 ? 16 : least(fit, kMostColumns);
}

}  // namespace

int64_t outer_columns(const OuterSum& sum, int threads) {
  const int64_t most = most_columns(sum), share = sum.n / (2 * threads);
  const int64_t limit = least(most, share > kLeastColumns ? share : kLeastColumns);
  const int64_t tasks = (sum.n + limit - 1) / limit;
  return tasks == 0 ? limit : ((sum.n + tasks - 1) / tasks + 15) / 16 * 16;
}

int64_t outer_room(const OuterSum& sum) { return most_columns(sum) * (groups_of(sum) * kTileCols + (sum.drop.on() ? kTileRows : 0)); }

void add_outer_sum(const OuterSum& sum, int64_t begin, int64_t n, float* room) {
  for (int64_t first = 0; first < sum.rows; first += kRows) {
    sum_rows(sum, first, least(sum.rows - first, kRows), begin, n, room, room + groups_of(sum) * n * kTileCols);
    add_to_c(sum, begin, n, room);
  }
}

}  // namespace lowrank::cpu::LOWRANK_ISA
