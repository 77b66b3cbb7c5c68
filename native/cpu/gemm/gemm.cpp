#include "gemm.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// Rows of C that are being done: all of them, or as many as have room to be packed.
struct Turn {
  int64_t row, rows, panels;
};

// A gemm on its way: its plan and what was prepared of it.
struct Job {
  const Gemm* gemm;
  Plan plan;
  float* packed;            // [panels][panel_size], or one panel for each worker where there are no columns
  Block sides[kMaxParts];   // B of each side, expanded as a whole
  Slab* slabs[kMaxParts];
  int64_t slab_count[kMaxParts];
  int64_t offset[kMaxLefts];  // where each packed Left begins in a row of the panel
};

struct Buffers {
  float* block;  // (kMaxDepth + kMaxRide) * kMaxBlock: B
  float* sum;    // C of a task that is stored transposed
  float* panel;  // A after dropout
};

struct Task {
  const Job* job;
  int64_t columns;
  int64_t n0, n;
};

constexpr int64_t kTempCols = kTileCols;

// --- phase 1: A into panels, and the skinny products of each panel ---------------------------------------------------------

float* panel_at(const Job& job, int64_t p, int worker) {
  return job.packed + (job.gemm->column_count > 0 ? p : worker) * job.plan.panel_size;
}

// `temp` [rows, kTempCols] * scale to the side's output and to its columns of the panel.
void store_side(const Job& job, const Side& side, const float* temp, int64_t row, int64_t rows, int64_t col, int64_t cols, float* panel) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) {
      const float value = side.scale * temp[i * kTempCols + j];
      side.out[(row + i) * side.pitch + col + j] = value;
      if (side.into >= 0) panel[(job.offset[side.into] + side.first + col + j) * rows + i] = value;
    }
}

void run_side(const Job& job, int s, int64_t row, int64_t rows, float* panel, float* dropped) {
  const Side& side = job.gemm->sides[s];
  const Left& left = job.gemm->lefts[side.from];
  const float* a = panel + job.offset[side.from] * rows;
  if (side.drop.on()) {
    pack_left(left, row, rows, 0, left.k, side.drop, dropped);
    a = dropped;
  }
  HWY_ALIGN float temp[kTileRows * kTempCols];
  const Block& block = job.sides[s];
  for (int64_t j = 0; j < block.count(); ++j) {
    const Tile tile = {.a = {a, a}, .a_pitch = {rows, rows}, .k = {left.k, 0}, .b = block.at(j, 0), .c = temp, .c_pitch = kTempCols,
                       .from = nullptr, .from_pitch = 0, .bias = nullptr, .soon = a, .soon_step = 0};
    tile_kernel(rows, block.vectors(j))(tile);
    const int64_t col = j * kTileCols;
    store_side(job, side, temp, row, rows, col, side.n - col < kTileCols ? side.n - col : kTileCols, panel);
  }
}

void pack_panel(const Job& job, const Turn& turn, int64_t p, int worker, const Buffers& buffers) {
  const Gemm& gemm = *job.gemm;
  const PanelRows rows = panel_rows(turn.rows, turn.panels, p);
  float* panel = panel_at(job, p, worker);
  for (int i = 0; i < gemm.left_count; ++i) {
    const Left& left = gemm.lefts[i];
    if (left.data != nullptr && left.lie == Lie::rows)
      pack_left(left, turn.row + rows.first, rows.count, 0, left.k, Dropout(), panel + job.offset[i] * rows.count);
  }
  for (int s = 0; s < gemm.side_count; ++s) run_side(job, s, turn.row + rows.first, rows.count, panel, buffers.panel);
}

// --- phase 2: blocks of C ------------------------------------------------------------------------------------------------------

// What is known of a block of C while its slabs go by.
struct Work {
  const Job* job;
  const Columns* columns;
  Turn turn;
  int64_t n0, n;
  float* c;        // the block's first element, at row 0 of the turn
  int64_t c_pitch;
  const float* from;
  int64_t from_pitch;
  const float* bias;
};

// A of `product` from its row k0 on, for a panel.
const float* left_at(const Work& work, const Product& product, int64_t k0, int64_t p, const PanelRows& rows, int64_t* pitch) {
  const Left& left = work.job->gemm->lefts[product.left];
  if (left.lie == Lie::columns) {
    *pitch = left.pitch;
    return left.data + (product.first + k0) * left.pitch + rows.first;
  }
  *pitch = rows.count;
  return panel_at(*work.job, p, 0) + (work.job->offset[product.left] + product.first + k0) * rows.count;
}

// Adds what the micro-kernel would have added, for the columns that exist only.
void finish_ragged(const Tile& tile, const float* temp, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i)
    map_row(cols, [&](auto d, int64_t j, auto part) {
      auto v = part.load(d, temp + i * kTempCols + j);
      if (tile.bias != nullptr) v = hn::Add(v, part.load(d, tile.bias + j));
      if (tile.from != nullptr) v = hn::Add(v, part.load(d, tile.from + i * tile.from_pitch + j));
      part.store(v, d, tile.c + i * tile.c_pitch + j);
    });
}

void run_ragged(const Tile& tile, int64_t rows, int64_t vectors, int64_t cols) {
  HWY_ALIGN float temp[kTileRows * kTempCols];
  Tile inner = tile;
  inner.c = temp, inner.c_pitch = kTempCols;
  inner.from = inner.bias = nullptr;
  tile_kernel(rows, vectors)(inner);
  finish_ragged(tile, temp, rows, cols);
}

void run_slab(const Work& work, const Slab& slab, const Block& block) {
  const Product* products = work.columns->products;
  for (int64_t p = 0; p < work.turn.panels; ++p) {
    const PanelRows rows = panel_rows(work.turn.rows, work.turn.panels, p);
    Tile tile{};
    for (int run = 0; run < 2; ++run) {
      tile.k[run] = slab.k[run];
      if (slab.k[run] > 0) tile.a[run] = left_at(work, products[slab.product[run]], slab.k0[run], p, rows, &tile.a_pitch[run]);
    }
    // The next panel of A comes from beyond L2: each tile asks for its share of it.
    const int64_t share = (rows.count + block.count() - 1) / block.count();
    const bool packed = slab.k[0] > 0 && work.job->gemm->lefts[products[slab.product[0]].left].lie == Lie::rows;
    tile.c_pitch = work.c_pitch, tile.from_pitch = work.from_pitch;
    for (int64_t j = 0; j < block.count(); ++j) {
      const int64_t col = j * kTileCols, cols = work.n - col < kTileCols ? work.n - col : kTileCols;
      tile.soon = packed ? tile.a[0] + work.job->plan.panel_size + j * share * slab.k[0] : block.panels;
      tile.soon_step = packed ? share : 0;
      tile.b = block.at(j, 0);
      tile.c = work.c + rows.first * work.c_pitch + col;
      tile.from = work.from != nullptr ? work.from + rows.first * work.from_pitch + col : nullptr;
      tile.bias = work.bias != nullptr ? work.bias + col : nullptr;
      const int64_t vectors = block.vectors(j);
      if (cols == vectors * kLanes) {
        tile_kernel(rows.count, vectors)(tile);
      } else {
        run_ragged(tile, rows.count, vectors, cols);
      }
    }
  }
}

// C += mask * (A B) for one product: the mask stands between the product and the sum, so the tile goes through memory.
void run_masked(const Work& work, const Product& product, const Block& block, int64_t k0, int64_t k) {
  constexpr int64_t room = factors_room(kMaxBlock);
  HWY_ALIGN float factors[kTileRows * room];
  HWY_ALIGN float temp[kTileRows * kTempCols];
  const float* row_factors[kTileRows];
  for (int64_t p = 0; p < work.turn.panels; ++p) {
    const PanelRows rows = panel_rows(work.turn.rows, work.turn.panels, p);
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t element = (work.turn.row + rows.first + i) * work.columns->n + work.n0;
      row_factors[i] = dropout_factors(product.mask, element, work.n, factors + i * room);
    }
    Tile tile{};
    tile.a[0] = left_at(work, product, k0, p, rows, &tile.a_pitch[0]);
    tile.k[0] = k;
    tile.c = temp, tile.c_pitch = kTempCols, tile.soon = block.panels;
    for (int64_t j = 0; j < block.count(); ++j) {
      const int64_t col = j * kTileCols, cols = work.n - col < kTileCols ? work.n - col : kTileCols;
      tile.b = block.at(j, 0);
      tile_kernel(rows.count, block.vectors(j))(tile);
      for (int64_t i = 0; i < rows.count; ++i) {
        float* c = work.c + (rows.first + i) * work.c_pitch + col;
        map_row(cols, [&](auto d, int64_t n, auto part) {
          const auto masked = hn::Mul(part.load(d, temp + i * kTempCols + n), part.load(d, row_factors[i] + col + n));
          part.store(hn::Add(part.load(d, c + n), masked), d, c + n);
        });
      }
    }
  }
}

void run_all_masked(const Work& work, const Buffers& buffers) {
  for (int q = 0; q < work.columns->count; ++q) {
    const Product& product = work.columns->products[q];
    if (!product.mask.on()) continue;
    for (int64_t k0 = 0; k0 < product.k; k0 += kMaxDepth) {
      const int64_t k = product.k - k0 < kMaxDepth ? product.k - k0 : kMaxDepth;
      const Block block = {buffers.block, k, work.n};
      expand_right(product.right, k0, k, work.n0, block, 0);
      run_masked(work, product, block, k0, k);
    }
  }
}

// What the first slab adds to its product.
void begin_sum(Work& work) {
  const Columns& columns = *work.columns;
  const int64_t at = work.turn.row * columns.pitch + work.n0;
  work.bias = columns.bias != nullptr ? columns.bias + work.n0 : nullptr;
  work.from = columns.start == Start::add ? work.c : columns.carry != nullptr ? columns.carry + at : nullptr;
  work.from_pitch = columns.pitch;
}

void run_task(const Task& task, const Turn& turn, const Buffers& buffers) {
  const Columns& columns = task.job->gemm->columns[task.columns];
  const bool transposed = columns.lie == Lie::columns;
  Work work{.job = task.job, .columns = &columns, .turn = turn, .n0 = task.n0, .n = task.n, .c = buffers.sum, .c_pitch = kMaxBlock,
            .from = nullptr, .from_pitch = kMaxBlock, .bias = nullptr};
  if (!transposed) {
    work.c = columns.c + turn.row * columns.pitch + task.n0, work.c_pitch = columns.pitch;
    begin_sum(work);
  }
  const Slab* slabs = task.job->slabs[task.columns];
  for (int64_t s = 0; s < task.job->slab_count[task.columns]; ++s) {
    const Slab& slab = slabs[s];
    const Block block = {buffers.block, slab.k[0] + slab.k[1], task.n};
    for (int run = 0; run < 2; ++run)
      if (slab.k[run] > 0)
        expand_right(columns.products[slab.product[run]].right, slab.k0[run], slab.k[run], task.n0, block, run == 0 ? 0 : slab.k[0]);
    run_slab(work, slab, block);
    work.from = work.c, work.from_pitch = work.c_pitch, work.bias = nullptr;
  }
  run_all_masked(work, buffers);
  if (!transposed) return;
  for (int64_t j = 0; j < task.n; ++j) {
    float* c = columns.c + (task.n0 + j) * columns.pitch;
    for (int64_t i = 0; i < turn.rows; ++i) c[i] += buffers.sum[i * kMaxBlock + j];
  }
}

// --- preparation -----------------------------------------------------------------------------------------------------------------

template <class T>
T* share(const Context& context, int64_t count) { return context.scratch_for<T>(-1, count > 0 ? count : 1); }

// The B of each side, as a whole: [k, n] f32, small beside W.
bool expand_sides(const Context& context, Job& job) {
  constexpr int64_t kRows = 512;
  for (int s = 0; s < job.gemm->side_count; ++s) {
    const Side& side = job.gemm->sides[s];
    const int64_t k = job.gemm->lefts[side.from].k;
    Block& block = job.sides[s];
    block = {nullptr, k, side.n};
    block.panels = share<float>(context, block.count() * kTileCols * k);
    if (block.panels == nullptr) return false;
    const auto expand = [&](int64_t i, int) {
      const int64_t n = k - i * kRows < kRows ? k - i * kRows : kRows;
      expand_right(side.right, i * kRows, n, 0, block, i * kRows);
    };
    const int64_t tasks = (k + kRows - 1) / kRows;
    if (k * side.n >= kTaskElements * 4) {
      context.parallel_for(tasks, expand);
    } else {
      for (int64_t i = 0; i < tasks; ++i) expand(i, 0);
    }
  }
  return true;
}

bool prepare(const Context& context, const Gemm& gemm, Job& job) {
  job.gemm = &gemm;
  job.plan = plan_gemm(gemm);
  int64_t offset = 0;
  for (int i = 0; i < gemm.left_count; ++i) {
    job.offset[i] = offset;
    if (gemm.lefts[i].lie == Lie::rows) offset += gemm.lefts[i].k;
  }
  for (int c = 0; c < gemm.column_count; ++c) {
    job.slabs[c] = share<Slab>(context, list_slabs(gemm.columns[c], nullptr));
    if (job.slabs[c] == nullptr) return false;
    job.slab_count[c] = list_slabs(gemm.columns[c], job.slabs[c]);
  }
  if (job.plan.width > 0) {
    job.packed = share<float>(context, job.plan.panel_size * (gemm.column_count > 0 ? job.plan.panels : context.threads) + kTileCols);
    if (job.packed == nullptr) return false;
  }
  return expand_sides(context, job);
}

int64_t list_tasks(const Job& job, Task* tasks) {
  int64_t count = 0;
  for (int c = 0; c < job.gemm->column_count; ++c) {
    const int64_t n = job.gemm->columns[c].n;
    for (int64_t n0 = 0; n0 < n; ++count) {
      const int64_t block = next_block(n - n0);
      if (tasks != nullptr) tasks[count] = {&job, c, n0, block};
      n0 += block;
    }
  }
  return count;
}

int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }

bool make_buffers(const Context& context, const Job* jobs, int count, Buffers* buffers) {
  int64_t block = 0, sum = 0, panel = 0;
  for (int i = 0; i < count; ++i) {
    const Gemm& gemm = *jobs[i].gemm;
    if (gemm.column_count > 0) block = (kMaxDepth + kMaxRide) * kMaxBlock;
    for (int c = 0; c < gemm.column_count; ++c)
      if (gemm.columns[c].lie == Lie::columns) sum = largest(sum, gemm.m * kMaxBlock);
    for (int s = 0; s < gemm.side_count; ++s)
      if (gemm.sides[s].drop.on()) panel = largest(panel, gemm.lefts[gemm.sides[s].from].k * kTileRows + kPanelSlack);
  }
  const int64_t size = (block + sum + panel + 15) / 16 * 16;
  float* memory = share<float>(context, size * context.threads);
  if (memory == nullptr) return false;
  for (int worker = 0; worker < context.threads; ++worker, memory += size) buffers[worker] = {memory, memory + block, memory + block + sum};
  return true;
}

void run_turns(const Context& context, const Job& first, const Task* tasks, int64_t first_tasks, int64_t all_tasks, const Buffers* buffers) {

  for (int64_t t = 0; t < first.plan.turns; ++t) {
    const int64_t row = t * first.plan.turn_rows;
    const int64_t rows = first.gemm->m - row < first.plan.turn_rows ? first.gemm->m - row : first.plan.turn_rows;
    const Turn turn = {row, rows, panels_of(rows)};
    if (first.plan.width > 0)
      context.parallel_for(turn.panels, [&](int64_t p, int worker) { pack_panel(first, turn, p, worker, buffers[worker]); });
    const bool last = t + 1 == first.plan.turns;
    context.parallel_for(last ? all_tasks : first_tasks, [&](int64_t i, int worker) {
      const int64_t m = tasks[i].job->gemm->m;
      run_task(tasks[i], tasks[i].job == &first ? turn : Turn{0, m, panels_of(m)}, buffers[worker]);
    });
  }

}

}  // namespace

void multiply(const Context& context, const Gemm& gemm, const Gemm* rest, int rest_count) {
  if (gemm.m == 0) return;
  Job* jobs = share<Job>(context, 1 + rest_count);
  Buffers* buffers = share<Buffers>(context, context.threads);
  if (jobs == nullptr || buffers == nullptr) return;
  int64_t all = 0, first = 0;
  for (int i = 0; i <= rest_count; ++i) {
    if (!prepare(context, i == 0 ? gemm : rest[i - 1], jobs[i])) return;
    all += list_tasks(jobs[i], nullptr);
    if (i == 0) first = all;
  }
  Task* tasks = share<Task>(context, all);
  if (tasks == nullptr || !make_buffers(context, jobs, 1 + rest_count, buffers)) return;
  for (int64_t i = 0, at = 0; i <= rest_count; ++i) at += list_tasks(jobs[i], tasks + at);
  run_turns(context, jobs[0], tasks, first, all, buffers);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
