// Phase 2: a block of C, slab of k after slab of k.
#include "amx.h"
#include "job.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// What is known of a block of C while its slabs go by.
struct Work {
  const Job* job;
  const Columns* columns;
  Turn turn;
  int64_t begin, end;  // panels
  int64_t n0, n;
  float* c;           // the block's first element, at row 0 of the turn
  const float* from;  // what the next slab adds to its product, of C's pitch; nullptr: nothing
  const float* bias;  // the same
};

// A of `product` from its word `word` on, for a panel.
const float* left_at(const Work& work, const Product& product, int64_t word, int64_t p, const PanelRows& rows) {
  return panel_at(*work.job, p, 0) + (work.job->offset[product.left] + product.first + word) * rows.count;
}

// Adds what the micro-kernel would have added, for the columns that exist only.
void finish_ragged(const Tile& tile, const float* temp, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i)
    map_row(cols, [&](auto d, int64_t j, auto part) {
      auto v = part.load(d, temp + i * kTempCols + j);
      if (tile.bias != nullptr) v = hn::Add(v, part.load(d, tile.bias + j));
      if (tile.from != nullptr) v = hn::Add(v, part.load(d, tile.from + i * tile.c_pitch + j));
      part.store(v, d, tile.c + i * tile.c_pitch + j);
    });
}

void run_ragged(const Tile& tile, int64_t rows, int64_t vectors, int64_t cols, Words words) {
  HWY_ALIGN float temp[kTileRows * kTempCols];
  Tile inner = tile;
  inner.c = temp, inner.c_pitch = kTempCols;
  inner.from = inner.bias = nullptr;
  tile_kernel(rows, vectors, words)(inner);
  finish_ragged(tile, temp, rows, cols);
}

// B of the next slab as it is stored, to be asked for while this one is multiplied.
struct Ahead {
  const char* data;  // nullptr: there is no next slab
  int64_t pitch, rows, bytes;

  // The share of tile `i` of `all`.
  LOWRANK_INLINE void ask(int64_t i, int64_t all) const {
    for (int64_t row = rows * i / all; row < rows * (i + 1) / all; ++row)
      for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(data + row * pitch + at, 0, 2);
  }
};

Ahead ahead_of(const Columns& columns, const Slab* next, int64_t n0, int64_t n) {
  if (next == nullptr) return {};
  const Right& right = columns.products[next->product[0]].right;
  const int64_t size = size_of(right.dtype), k0 = next->k0[0], k = next->k[0];
  const char* data = static_cast<const char*>(right.data);
  if (right.lie == Lie::rows) return {data + (k0 * right.pitch + n0) * size, right.pitch * size, k, n * size};
  return {data + (n0 * right.pitch + k0) * size, right.pitch * size, n, k * size};
}

// B of the slab into the block.
void expand_slab(const Work& work, const Slab& slab, const Block& block) {
  for (int run = 0; run < 2; ++run) {
    const Right& right = work.columns->products[slab.product[run]].right;
    if (slab.k[run] == 0) continue;
    if (run == 0 && slab.words != Words::f32) {
      pair_up_right(right, slab.k0[0], slab.k[0], work.n0, block, slab.rows(0));
    } else {
      expand_right(right, slab.k0[run], slab.k[run], work.n0, block, run == 0 ? 0 : slab.rows(0));
    }
  }
}

// The factors of a mask for a panel's rows and a block's columns: row i at first() + i * kPitch.
class Factors {
  static constexpr int64_t kBefore = 8;

 public:
  static constexpr int64_t kPitch = kBefore + factors_room(kMaxBlock);

  LOWRANK_INLINE const float* first() const { return numbers_ + kBefore; }
  LOWRANK_INLINE void fill(const Work& work, const Dropout& mask, const PanelRows& rows) {
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t element = (work.turn.row + rows.first + i) * work.columns->n + work.n0;
      fill_dropout_factors(mask.bits + element / 8, mask.keep, element, work.n, numbers_ + kBefore + i * kPitch - element % 8);
    }
  }

 private:
  HWY_ALIGN float numbers_[kTileRows * kPitch];
};

// Columns of C at tile j of a block.
LOWRANK_INLINE int64_t cols_at(const Work& work, int64_t j) {
  const int64_t left = work.n - j * kTileCols;
  return left < kTileCols ? left : kTileCols;
}

// B of the second run lies in the block from row `below` on.
void run_panel(const Work& work, const Slab& slab, const Block& block, int64_t below, int64_t p, const Ahead& ahead, Factors& factors) {
  const Product* products = work.columns->products;
  const int64_t tiles = block.count();
  const Dropout& mask = products[slab.product[1]].mask;
  const bool masked = slab.k[1] > 0 && mask.on();
  const PanelRows rows = panel_rows(work.turn.rows, work.turn.panels, p);
  Tile tile{};
  for (int run = 0; run < 2; ++run) {
    tile.k[run] = slab.rows(run);
    const int64_t word = run == 0 ? count_words(slab.words, slab.k0[0]) : slab.k0[1];
    if (slab.k[run] > 0) tile.a[run] = left_at(work, products[slab.product[run]], word, p, rows), tile.a_pitch[run] = rows.count;
  }
  if (masked) factors.fill(work, mask, rows);
  tile.factors_pitch = Factors::kPitch;
  // The next panel of A comes from beyond L2: each tile asks for its share of it.
  const int64_t share = slab.k[0] > 0 ? (rows.count + tiles - 1) / tiles : 0;
  tile.c_pitch = work.columns->pitch;
  for (int64_t j = 0; j < tiles; ++j) {
    const int64_t col = j * kTileCols, cols = cols_at(work, j);
    if (ahead.data != nullptr) ahead.ask((p - work.begin) * tiles + j, (work.end - work.begin) * tiles);
    tile.soon = share > 0 ? tile.a[0] + work.job->plan.panel_size + j * share * slab.rows(0) : block.panels;
    tile.soon_step = share;
    for (int run = 0; run < 2; ++run) tile.b[run] = block.at(j, run == 0 ? 0 : below), tile.b_pitch[run] = block.vectors(j) * kLanes;
    const int64_t at = rows.first * tile.c_pitch + col;
    tile.c = work.c + at;
    tile.from = work.from != nullptr ? work.from + at : nullptr;
    tile.bias = work.bias != nullptr ? work.bias + col : nullptr;
    tile.factors = masked ? factors.first() + col : nullptr;
    const int64_t vectors = block.vectors(j);
    if (cols == vectors * kLanes) {
      tile_kernel(rows.count, vectors, slab.words)(tile);
    } else {
      run_ragged(tile, rows.count, vectors, cols, slab.words);
    }
  }
}

void run_slab(const Work& work, const Slab& slab, const Block& block, const Ahead& ahead) {
  Factors factors;
  for (int64_t p = work.begin; p < work.end; ++p) run_panel(work, slab, block, slab.rows(0), p, ahead, factors);
}

// The panels from p on that AMX takes together, with C from the block's first column on.
AmxProduct amx_panels(const Work& work, const Slab& slab, int64_t p) {
  const Product& product = work.columns->products[slab.product[0]];
  AmxProduct panels{};
  panels.words = slab.rows(0), panels.c_pitch = work.columns->pitch;
  for (int i = 0; i < kAmxPanels && p + i < work.end; ++i) {
    const PanelRows rows = panel_rows(work.turn.rows, work.turn.panels, p + i);
    panels.a[i] = left_at(work, product, count_words(slab.words, slab.k0[0]), p + i, rows);
    panels.rows[i] = rows.count, panels.c[i] = work.c + rows.first * panels.c_pitch;
  }
  return panels;
}

// The next tile's C: it lies beyond L1.
void ask_for_next_c(const AmxProduct& part) {
  for (int panel = 0; panel < kAmxPanels; ++panel)
    for (int64_t i = 0; i < part.rows[panel]; ++i)
      for (int64_t j = 0; j < kTileCols; j += 16) __builtin_prefetch(part.c[panel] + i * part.c_pitch + kTileCols + j, 1);
}

// What else goes into C, all in f32, is there before.
void run_slab_by_amx(const Work& work, const Slab& slab, const Block& block, const Ahead& ahead) {
  const bool others = slab.k[1] > 0 || work.bias != nullptr || (work.from != nullptr && work.from != work.c);
  const int64_t tiles = block.count(), all = (work.end - work.begin) * tiles;
  Slab rider = slab;
  rider.k[0] = 0, rider.words = Words::f32;
  Factors factors;
  AmxTiles amx(work.job->plan.emulated);
  int64_t done = 0;
  for (int64_t p = work.begin; p < work.end; p += kAmxPanels) {
    AmxProduct part = amx_panels(work, slab, p);
    const int panels = part.rows[1] > 0 ? 2 : 1;
    for (int i = 0; i < panels && others; ++i) run_panel(work, rider, block, slab.rows(0), p + i, {}, factors);
    part.adds = others || work.from != nullptr;
    for (int64_t j = 0; j < tiles; ++j) {
      for (int i = 0; i < panels && ahead.data != nullptr; ++i) ahead.ask(done++, all);
      part.b = block.at(j, 0), part.width = block.vectors(j) * kLanes, part.cols = cols_at(work, j);
      ask_for_next_c(part);
      amx.multiply(part);
      for (int i = 0; i < panels; ++i) part.c[i] += kTileCols;
    }
  }
}

Work begin_work(const Job& job, const Task& task, const Turn& turn) {
  const Columns& columns = job.gemm->columns[task.columns];
  const int64_t at = turn.row * columns.pitch + task.n0;
  float* c = columns.c + at;
  return {.job = &job, .columns = &columns, .turn = turn, .begin = turn.panels * task.part / task.parts,
          .end = turn.panels * (task.part + 1) / task.parts, .n0 = task.n0, .n = task.n, .c = c,
          .from = columns.start == Start::add ? c : columns.carry != nullptr ? columns.carry + at : nullptr,
          .bias = columns.bias != nullptr ? columns.bias + task.n0 : nullptr};
}

}  // namespace

void run_task(const Job& job, const Task& task, const Turn& turn, const Buffers& buffers) {
  Work work = begin_work(job, task, turn);
  const Slab* slabs = job.slabs[task.columns];
  for (int64_t s = 0; s < job.slab_count[task.columns]; ++s) {
    const Slab& slab = slabs[s];
    const Block block = {buffers.block, slab.rows(0) + slab.rows(1), task.n};
    expand_slab(work, slab, block);
    const Slab* next = s + 1 < job.slab_count[task.columns] ? slabs + s + 1 : nullptr;
    const Ahead ahead = ahead_of(*work.columns, next, task.n0, task.n);
    slab.words == Words::bf16_tiles ? run_slab_by_amx(work, slab, block, ahead) : run_slab(work, slab, block, ahead);
    work.from = work.c, work.bias = nullptr;
  }
}

}  // namespace lowrank::cpu::LOWRANK_ISA
