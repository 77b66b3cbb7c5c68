#include "gemm.h"

#include "job.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

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

void tell_plan(const Context& context, const Gemm& gemm, const Plan& plan) {
  if (context.tell == nullptr) return;
  char text[320];
  format_plan(gemm, plan, context.threads, text, sizeof text);
  context.tell(context.self, text);
}

bool prepare(const Context& context, const Gemm& gemm, Job& job) {
  job.gemm = &gemm;
  job.plan = plan_gemm(gemm, context.bf16);
  tell_plan(context, gemm, job.plan);
  int64_t offset = 0;
  for (int i = 0; i < gemm.left_count; ++i) {
    job.offset[i] = offset;
    if (gemm.lefts[i].lie == Lie::rows) offset += count_words(left_words(gemm, job.plan, i), gemm.lefts[i].k);
  }
  for (int c = 0; c < gemm.column_count; ++c) {
    job.slabs[c] = share<Slab>(context, list_slabs(gemm.columns[c], job.plan.words, nullptr));
    if (job.slabs[c] == nullptr) return false;
    job.slab_count[c] = list_slabs(gemm.columns[c], job.plan.words, job.slabs[c]);
  }
  if (job.plan.width > 0) {
    job.packed = share<float>(context, job.plan.panel_size * (gemm.column_count > 0 ? job.plan.panels : context.threads) + kTileCols);
    if (job.packed == nullptr) return false;
  }
  return expand_sides(context, job);
}

// The last blocks are done in shares of the rows: with an odd number of equal blocks two workers would end one block apart.
int64_t row_parts(const Job& job, const Columns& columns, int64_t left) {
  constexpr int64_t kSharedCols = 2 * kTileCols, kLeastPanels = 8;
  return columns.lie == Lie::rows && left <= kSharedCols && job.plan.panels >= kLeastPanels ? 2 : 1;
}

int64_t list_tasks(const Job& job, int threads, Task* tasks) {
  int64_t count = 0;
  for (int c = 0; c < job.gemm->column_count; ++c) {
    const Columns& columns = job.gemm->columns[c];
    for (int64_t n0 = 0; n0 < columns.n;) {
      const int64_t block = next_block(columns.n - n0, threads), parts = row_parts(job, columns, columns.n - n0);
      for (int64_t part = 0; part < parts; ++part, ++count)
        if (tasks != nullptr) tasks[count] = {&job, c, n0, block, part, parts};
      n0 += block;
    }
  }
  return count;
}

int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }

bool make_buffers(const Context& context, const Job* jobs, int count, Buffers* buffers) {
  int64_t block = 0, sum = 0, panel = 0, wide = 0;
  for (int i = 0; i < count; ++i) {
    const Gemm& gemm = *jobs[i].gemm;
    wide = largest(wide, wide_size(gemm, jobs[i].plan));
    if (gemm.column_count > 0) block = (kMaxDepth + kMaxRide) * kMaxBlock;
    for (int c = 0; c < gemm.column_count; ++c)
      if (gemm.columns[c].lie == Lie::columns) sum = largest(sum, gemm.m * kMaxBlock);
    for (int s = 0; s < gemm.side_count; ++s)
      if (gemm.sides[s].drop.on()) panel = largest(panel, gemm.lefts[gemm.sides[s].from].k * kTileRows + kPanelSlack);
  }
  const int64_t size = (block + sum + panel + wide + 15) / 16 * 16;
  float* memory = share<float>(context, size * context.threads);
  if (memory == nullptr) return false;
  for (int worker = 0; worker < context.threads; ++worker, memory += size) {
    float* sums = memory + block;
    buffers[worker] = {memory, sums, sums + sum, sums + sum + panel};
  }
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
    all += list_tasks(jobs[i], context.threads, nullptr);
    if (i == 0) first = all;
  }
  Task* tasks = share<Task>(context, all);
  if (tasks == nullptr || !make_buffers(context, jobs, 1 + rest_count, buffers)) return;
  for (int64_t i = 0, at = 0; i <= rest_count; ++i) at += list_tasks(jobs[i], context.threads, tasks + at);
  run_turns(context, jobs[0], tasks, first, all, buffers);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
