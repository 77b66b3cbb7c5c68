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
  job.plan = plan_gemm(gemm, context.frozen);
  tell_plan(context, gemm, job.plan);
  int64_t offset = 0;
  for (int i = 0; i < gemm.left_count; ++i) {
    job.offset[i] = offset;
    offset += count_words(left_words(gemm, job.plan, i), gemm.lefts[i].k);
  }
  for (int c = 0; c < gemm.column_count; ++c) {
    job.slabs[c] = share<Slab>(context, list_slabs(gemm.columns[c], job.plan.words, nullptr));
    if (job.slabs[c] == nullptr) return false;
    job.slab_count[c] = list_slabs(gemm.columns[c], job.plan.words, job.slabs[c]);
  }
  job.packed = share<float>(context, job.plan.panel_size * (gemm.column_count > 0 ? job.plan.panels : context.threads) + kTileCols);
  return job.packed != nullptr && expand_sides(context, job);
}

// The last blocks are done in shares of the rows: with an odd number of equal blocks two workers would end one block apart.
int64_t row_parts(const Job& job, int64_t left) {
  constexpr int64_t kSharedCols = 2 * kTileCols, kLeastPanels = 8;
  return left <= kSharedCols && job.plan.panels >= kLeastPanels ? 2 : 1;
}

// Returns their number. `tasks` may be nullptr.
int64_t list_tasks(const Job& job, int threads, Task* tasks) {
  int64_t count = 0;
  for (int c = 0; c < job.gemm->column_count; ++c) {
    const Columns& columns = job.gemm->columns[c];
    for (int64_t n0 = 0; n0 < columns.n;) {
      const int64_t block = next_block(columns.n - n0, threads), parts = row_parts(job, columns.n - n0);
      for (int64_t part = 0; part < parts; ++part, ++count)
        if (tasks != nullptr) tasks[count] = {c, n0, block, part, parts};
      n0 += block;
    }
  }
  return count;
}

struct SumTask {
  const OuterSum* sum;
  int64_t begin, n;
};

// Returns their number. `tasks` may be nullptr.
int64_t list_sum_tasks(const OuterSum* sums, int count, int threads, SumTask* tasks) {
  int64_t listed = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t n = sums[i].n, step = outer_columns(sums[i], threads);
    for (int64_t begin = 0; begin < n; begin += step, ++listed)
      if (tasks != nullptr) tasks[listed] = {sums + i, begin, n - begin < step ? n - begin : step};
  }
  return listed;
}

// All that is to be done when A is packed.
struct Tasks {
  Task* blocks;
  int64_t block_count;
  SumTask* sums;
  int64_t sum_count;
};

bool list_all(const Context& context, const Job& job, const OuterSum* sums, int count, Tasks& tasks) {
  tasks.block_count = list_tasks(job, context.threads, nullptr), tasks.sum_count = list_sum_tasks(sums, count, context.threads, nullptr);
  tasks.blocks = share<Task>(context, tasks.block_count), tasks.sums = share<SumTask>(context, tasks.sum_count);
  if (tasks.blocks == nullptr || tasks.sums == nullptr) return false;
  list_tasks(job, context.threads, tasks.blocks), list_sum_tasks(sums, count, context.threads, tasks.sums);
  return true;
}

int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }

Buffers* make_buffers(const Context& context, const Job& job, const OuterSum* sums, int count) {
  const Gemm& gemm = *job.gemm;
  int64_t block = gemm.column_count > 0 ? (kMaxDepth + kMaxRide) * kMaxBlock : 0, panel = 0;
  for (int i = 0; i < count; ++i) block = largest(block, outer_room(sums[i]));
  for (int s = 0; s < gemm.side_count; ++s)
    if (gemm.sides[s].drop.on()) panel = largest(panel, gemm.lefts[gemm.sides[s].from].k * kTileRows + kPanelSlack);
  const int64_t size = (block + panel + wide_size(gemm, job.plan) + 15) / 16 * 16;
  Buffers* buffers = share<Buffers>(context, context.threads);
  float* memory = share<float>(context, size * context.threads);
  if (buffers == nullptr || memory == nullptr) return nullptr;
  for (int worker = 0; worker < context.threads; ++worker, memory += size) buffers[worker] = {memory, memory + block, memory + block + panel};
  return buffers;
}

void run_turns(const Context& context, const Job& job, const Tasks& tasks, const Buffers* buffers) {
  for (int64_t t = 0; t < job.plan.turns; ++t) {
    const int64_t row = t * job.plan.turn_rows;
    const int64_t rows = job.gemm->m - row < job.plan.turn_rows ? job.gemm->m - row : job.plan.turn_rows;
    const Turn turn = {row, rows, panels_of(rows)};
    context.parallel_for(turn.panels, [&](int64_t p, int worker) { pack_panel(job, turn, p, worker, buffers[worker]); });
    // With the last turn all sides are made. The blocks come after the sums, because they end in small ones.
    const int64_t sum_count = t + 1 == job.plan.turns ? tasks.sum_count : 0;
    context.parallel_for(sum_count + tasks.block_count, [&](int64_t i, int worker) {
      if (i >= sum_count) return run_task(job, tasks.blocks[i - sum_count], turn, buffers[worker]);
      add_outer_sum(*tasks.sums[i].sum, tasks.sums[i].begin, tasks.sums[i].n, buffers[worker].block);
    });
  }
}

}  // namespace

void multiply(const Context& context, const Gemm& gemm, const OuterSum* sums, int count) {
  if (gemm.m == 0) return;
  Job* job = share<Job>(context, 1);
  Tasks tasks;
  if (job == nullptr || !prepare(context, gemm, *job) || !list_all(context, *job, sums, count, tasks)) return;
  const Buffers* buffers = make_buffers(context, *job, sums, count);
  if (buffers != nullptr) run_turns(context, *job, tasks, buffers);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
