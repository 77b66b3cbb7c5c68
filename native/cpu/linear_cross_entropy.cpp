// The loss over the vocabulary without its logits: a tile of them, [rows of a chunk, a range of the vocabulary], is made, turned into
// exponentials and multiplied by the same range of W while it is in the cache. A task is a chunk and a group of neighbouring ranges,
// which share a running maximum for each row; what the groups found is joined row by row. Everything is split by shape alone.
#include "gemm/arena.h"
#include "gemm/gemm.h"
#include "softmax_row.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

constexpr int64_t kMostRows = 512;       // of a chunk: W is expanded to f32 twice for each chunk
constexpr int64_t kLeastRows = 64;
constexpr int64_t kRange = 512;          // columns of a tile
constexpr int64_t kSumFloats = 8 << 20;  // of all groups' dx together, about
constexpr int64_t kLeastGroups = 8;
constexpr int64_t kMostGroups = 32;

constexpr int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }
constexpr int64_t at_least(int64_t n, int64_t limit) { return n > limit ? n : limit; }
constexpr int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

// Rows of one part of W. first: in the part; logit: in all of W.
struct Range {
  int part;
  int64_t first, count, logit;
};

int64_t list_ranges(const Weight& w, Range* ranges) {
  int64_t count = 0, logit = 0;
  for (int part = 0; part < w.parts; logit += w.out[part++])
    for (int64_t first = 0; first < w.out[part]; first += kRange, ++count)
      if (ranges != nullptr) ranges[count] = {part, first, at_most(w.out[part] - first, kRange), logit + first};
  return count;
}

// What one group found in one row, the target left out: sum_j exp(l_j) = sum * exp(max).
struct Share {
  float max;
  double sum;
};

struct Plan {
  int64_t rows;    // of a chunk
  int64_t ranges;  // all of them
  int64_t group;   // ranges of a group
  int64_t groups;
  int64_t slots;   // chunks that are worked on at a time
};

Plan plan_loss(int64_t active, int64_t ranges, int64_t c) {
  const int64_t fit = at_least(at_most(kSumFloats / kLeastGroups / c, kMostRows), kLeastRows);
  const int64_t chunks = at_least(divide_up(active, fit), 1), rows = divide_up(active, chunks);
  const int64_t most = at_most(at_least(kSumFloats / (at_least(rows, 1) * c), kLeastGroups), kMostGroups);
  const int64_t group = divide_up(ranges, most), groups = divide_up(ranges, group);
  return {rows, ranges, group, groups, at_most(divide_up(kLeastGroups, groups), chunks)};
}

// Everything that the tasks share. A slot has `groups` shares and sums for each of its rows.
struct Loss {
  const LinearCrossEntropy& op;
  const Context& context;
  Plan plan;
  int64_t active;      // rows of x that have a target
  const int64_t* row;  // [active], which ones
  const Range* ranges;
  float* x;            // [slots, rows, C]: those rows; nullptr: all of x has targets
  float* tiles;        // [threads, rows, kRange]
  Share* shares;       // [slots, groups, rows]
  float* sums;         // [slots, groups, rows, C], exp(l - max) W, the target left out
  float* picked;       // [active] logits of the targets
  double* losses;      // [active]
  Arena* arenas;       // [threads]

  LOWRANK_INLINE bool trains() const { return op.dx.given(); }
  LOWRANK_INLINE int32_t target(int64_t i) const { return op.targets.i32()[row[i]]; }
};

// Some chunk's rows, one group's ranges.
struct Task {
  int64_t begin, rows;  // of the active rows
  const Range* ranges;
  int64_t count;
  const float* x;       // [rows, C]
  float* tile;          // [rows, kRange]
  Share* shares;        // [rows]
  float* sums;          // [rows, C]
};

Right range_of(Right right, const Weight& w, const Range& range) {
  const int64_t step = w.order == WeightOrder::out_in ? w.in : 1;
  right.data = static_cast<const char*>(right.data) + range.first * step * size_of(w.dtype);
  return right;
}

// The tile: x W^T.
Gemm tile_product(const Task& task, const Weight& w, const Range& range) {
  Gemm gemm;
  gemm.m = task.rows;
  gemm.lefts[gemm.left_count++] = {task.x, w.in, w.in};
  Columns& columns = gemm.columns[gemm.column_count++];
  columns.n = range.count;
  columns.c = task.tile, columns.pitch = kRange;
  columns.add(0, w.in, range_of(weight_transposed(w, range.part), w, range));
  return gemm;
}

// The tile's exponentials times W, added to the sums.
Gemm sum_product(const Task& task, const Weight& w, const Range& range) {
  Gemm gemm;
  gemm.m = task.rows;
  gemm.lefts[gemm.left_count++] = {task.tile, range.count, kRange};
  Columns& columns = gemm.columns[gemm.column_count++];
  columns.n = columns.pitch = w.in;
  columns.c = task.sums;
  columns.start = &range == task.ranges ? Start::zero : Start::add;
  columns.add(0, range.count, range_of(weight_straight(w, range.part), w, range));
  return gemm;
}

// logits = exp(logits - max). What came before moves to the new maximum.
void soften(float* logits, int64_t count, Share& share, float* sums, int64_t c) {
  const float most = max_of(logits, count);
  if (most > share.max) {
    if (share.sum != 0.0) {
      const double shrink = exp(static_cast<double>(share.max) - static_cast<double>(most));
      share.sum *= shrink;
      if (sums != nullptr)
        map_row(c, [&](auto d, int64_t i, auto part) { part.store(hn::Mul(part.load(d, sums + i), hn::Set(d, static_cast<float>(shrink))), d, sums + i); });
    }
    share.max = most;
  }
  const float shift = share.max == -INFINITY ? 0.0f : share.max;
  share.sum += static_cast<double>(sum_of(count, [logits, shift](auto d, int64_t i, auto part) {
    const auto e = exp_f32(d, hn::Sub(part.load(d, logits + i), hn::Set(d, shift)));
    part.store(e, d, logits + i);
    return e;
  }));
}

void run_task(const Loss& loss, const Task& task, Arena& arena) {
  const Weight& w = loss.op.w;
  for (int64_t i = 0; i < task.rows; ++i) task.shares[i] = {-INFINITY, 0.0};
  for (const Range* range = task.ranges; range < task.ranges + task.count; ++range) {
    multiply(arena.serial(), tile_product(task, w, *range));
    for (int64_t i = 0; i < task.rows; ++i) {
      float* logits = task.tile + i * kRange;
      const int64_t target = loss.target(task.begin + i) - range->logit;
      // Left out here and brought in at the end, where 1 - p is a sum of the others and loses no digits.
      if (target >= 0 && target < range->count) loss.picked[task.begin + i] = logits[target], logits[target] = -INFINITY;
      soften(logits, range->count, task.shares[i], loss.trains() ? task.sums + i * w.in : nullptr, w.in);
    }
    if (loss.trains()) multiply(arena.serial(), sum_product(task, w, *range));
  }
}

// dx -= factor * W[target]
void subtract_row(const Weight& w, int64_t target, float factor, float* dx) {
  int part = 0;
  while (target >= w.out[part]) target -= w.out[part++];
  with_float_type(w.dtype, [&](auto type) {
    const auto* from = static_cast<const typename decltype(type)::Stored*>(w.data[part]);
    if (w.order == WeightOrder::out_in)
      return map_row(w.in, [&](auto d, int64_t i, auto end) {
        end.store(hn::NegMulAdd(end.load(d, from + target * w.in + i), hn::Set(d, factor), end.load(d, dx + i)), d, dx + i);
      });
    for (int64_t i = 0; i < w.in; ++i) dx[i] -= factor * hn::GetLane(load_f32_n(RowTag(), from + i * w.out[part] + target, 1));
  });
}

// Row i of the active ones, row m of its slot: the loss, and dx out of the groups' sums.
void join_row(const Loss& loss, int64_t i, const Share* shares, const float* sums) {
  const int64_t c = loss.op.w.in, rows = loss.plan.rows;
  const float target = loss.picked[i];
  float max = target, factors[kMostGroups];
  for (int64_t g = 0; g < loss.plan.groups; ++g) max = shares[g * rows].max > max ? shares[g * rows].max : max;
  const auto exp_below = [max](float l) { return exp(static_cast<double>(l) - static_cast<double>(max)); };
  double others = 0;
  for (int64_t g = 0; g < loss.plan.groups; ++g)
    if (shares[g * rows].sum != 0.0) others += exp_below(shares[g * rows].max) * shares[g * rows].sum;
  const double sum = others + exp_below(target);
  loss.losses[i] = (static_cast<double>(max) - static_cast<double>(target)) + log(sum);
  if (!loss.trains()) return;
  const double scale = static_cast<double>(loss.op.scale) / sum;
  for (int64_t g = 0; g < loss.plan.groups; ++g)
    factors[g] = shares[g * rows].sum != 0.0 ? static_cast<float>(scale * exp_below(shares[g * rows].max)) : 0.0f;
  float* dx = loss.op.dx.f32() + loss.row[i] * c;
  map_row(c, [&](auto d, int64_t k, auto part) {
    auto v = hn::Zero(d);
    for (int64_t g = 0; g < loss.plan.groups; ++g) v = hn::MulAdd(part.load(d, sums + g * rows * c + k), hn::Set(d, factors[g]), v);
    part.store(v, d, dx + k);
  });
  subtract_row(loss.op.w, loss.target(i), static_cast<float>(scale * others), dx);
}

// The active rows from `begin` on, as many as the slots hold.
void run_slots(const Loss& loss, int64_t begin) {
  const Plan& plan = loss.plan;
  const int64_t c = loss.op.w.in, count = at_most(plan.slots * plan.rows, loss.active - begin), slots = divide_up(count, plan.rows);
  if (loss.x != nullptr)
    for_rows(loss.context, count, c, [&](int64_t m) {
      memcpy(loss.x + m * c, loss.op.x.f32() + loss.row[begin + m] * c, static_cast<size_t>(c) * sizeof(float));
    });
  const float* x = loss.x != nullptr ? loss.x : loss.op.x.f32() + begin * c;
  loss.context.parallel_for(slots * plan.groups, [&](int64_t i, int worker) {
    const int64_t first = i / plan.groups * plan.rows, range = i % plan.groups * plan.group;
    run_task(loss, {begin + first, at_most(plan.rows, count - first), loss.ranges + range, at_most(plan.group, plan.ranges - range), x + first * c,
                    loss.tiles + worker * plan.rows * kRange, loss.shares + i * plan.rows, loss.sums + i * plan.rows * c}, loss.arenas[worker]);
  });
  for_rows(loss.context, count, c * plan.groups, [&](int64_t m) {
    const int64_t at = m / plan.rows * plan.groups * plan.rows + m % plan.rows;
    join_row(loss, begin + m, loss.shares + at, loss.sums + at * c);
  });
}

// Rows without a target: no logits are made for them, their gradient is 0.
int64_t list_active(const LinearCrossEntropy& op, int64_t* row) {
  const int64_t c = op.w.in;
  int64_t count = 0;
  for (int64_t t = 0; t < op.targets.count(); ++t) {
    if (op.targets.i32()[t] != kIgnoreIndex) {
      row[count++] = t;
    } else if (op.dx.given()) {
      memset(op.dx.f32() + t * c, 0, static_cast<size_t>(c) * sizeof(float));
    }
  }
  return count;
}

template <class T>
T* share(const Context& context, int64_t count) { return context.scratch_for<T>(-1, count > 0 ? count : 1); }

bool make_room(Loss& loss, Range* ranges) {
  const Context& context = loss.context;
  const Plan& plan = loss.plan;
  const int64_t rows = plan.slots * plan.rows, all = rows * plan.groups, c = loss.op.w.in;
  const bool gathers = loss.active != loss.op.targets.count();
  list_ranges(loss.op.w, ranges);
  loss.ranges = ranges;
  loss.x = gathers ? share<float>(context, rows * c) : nullptr;
  loss.tiles = share<float>(context, context.threads * plan.rows * kRange);
  loss.shares = share<Share>(context, all);
  loss.sums = share<float>(context, loss.trains() ? all * c : 0);
  loss.picked = share<float>(context, loss.active);
  loss.losses = share<double>(context, loss.active);
  loss.arenas = share<Arena>(context, context.threads);
  if ((gathers && !loss.x) || !loss.tiles || !loss.shares || !loss.sums || !loss.picked || !loss.losses || !loss.arenas) return false;
  for (int worker = 0; worker < context.threads; ++worker) loss.arenas[worker].open(context, worker);
  return true;
}

}  // namespace

void linear_cross_entropy(const LinearCrossEntropy& op, const Context& context) {
  if (!targets_in_range(context, "linear_cross_entropy", op.targets, op.w.rows())) return;
  int64_t* row = share<int64_t>(context, op.targets.count());
  if (row == nullptr) return;
  const int64_t active = list_active(op, row), count = list_ranges(op.w, nullptr);
  double sum = 0;
  if (active > 0) {
    Range* ranges = share<Range>(context, count);
    Loss loss{.op = op, .context = context, .plan = plan_loss(active, count, op.w.in), .active = active, .row = row, .ranges = ranges, .x = nullptr,
              .tiles = nullptr, .shares = nullptr, .sums = nullptr, .picked = nullptr, .losses = nullptr, .arenas = nullptr};
    if (ranges == nullptr || !make_room(loss, ranges)) return;
    for (int64_t begin = 0; begin < active; begin += loss.plan.slots * loss.plan.rows) run_slots(loss, begin);
    for (int64_t i = 0; i < active; ++i) sum += loss.losses[i];
  }
  op.loss.f32()[0] = static_cast<float>(sum);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
