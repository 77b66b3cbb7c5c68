#include "gemm/arena.h"
#include "gemm/gemm.h"
#include "softmax_row.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// Bytes of logits that exist at a time. Fewer rows than kLeastRows would expand all of W for too little work.
constexpr int64_t kLogitBytes = 16 << 20;
constexpr int64_t kLeastRows = 64;
// dx = dlogits W sums over the vocabulary: long for few columns. It is cut into ranges that are summed apart, so that a worker
// finds A, B and C in its own cache; at most kMostRanges of them, none shorter than kLeastRange.
constexpr int64_t kMostRanges = 32;
constexpr int64_t kLeastRange = 2048;

int64_t chunk_rows(int64_t rows, int64_t vocabulary) {
  const int64_t fit = kLogitBytes / (4 * (vocabulary > 0 ? vocabulary : 1));
  const int64_t most = fit < kLeastRows ? kLeastRows : fit;
  const int64_t chunks = (rows + most - 1) / most;
  return chunks == 0 ? 0 : (rows + chunks - 1) / chunks;
}

// Rows of one part of W that are summed by themselves.
struct Range {
  int part;
  int64_t logit, first, count;
};

int64_t list_ranges(const Weight& w, Range* ranges) {
  const int64_t share = (w.rows() / kMostRanges + kMaxDepth - 1) / kMaxDepth * kMaxDepth;
  const int64_t step = share < kLeastRange ? kLeastRange : share;
  int64_t count = 0, logit = 0;
  for (int part = 0; part < w.parts; logit += w.out[part++])
    for (int64_t first = 0; first < w.out[part]; first += step, ++count)
      if (ranges != nullptr) ranges[count] = {part, logit + first, first, w.out[part] - first < step ? w.out[part] - first : step};
  return count;
}

// Everything that the chunks share.
struct Chunks {
  const LinearCrossEntropy& op;
  const Context& context;
  int64_t rows;        // of a chunk
  const int64_t* row;  // [active] rows of x that have a target
  float* x;            // [rows, C]: those of a chunk that are not neighbours
  float* dx;           // [rows, C], likewise
  float* logits;       // [rows, V]
  double* losses;      // [active]
  const Range* ranges;
  int64_t range_count;
  float* sums;         // [range_count, rows, C]
  Arena* shared;
  Arena* own;          // [threads]
};

Tensor matrix(float* data, int64_t rows, int64_t cols) { return {data, DType::f32, 2, {rows, cols}}; }

Tensor absent() { return {nullptr, DType::f32, -1, {}}; }

// dlogits W over one range.
Gemm range_gemm(const Chunks& chunks, const Range& range, int64_t rows, float* sum) {
  const Weight& w = chunks.op.w;
  Gemm gemm;
  gemm.m = rows;
  gemm.lefts[gemm.left_count++] = {chunks.logits + range.logit, range.count, w.rows()};
  Columns& columns = gemm.columns[gemm.column_count++];
  columns.n = columns.pitch = w.in;
  columns.c = sum;
  Right right = weight_straight(w, range.part);
  const int64_t step = right.lie == Lie::rows ? right.pitch : 1;
  right.data = static_cast<const char*>(right.data) + range.first * step * size_of(w.dtype);
  columns.add(0, range.count, right);
  return gemm;
}

void take_dx(const Chunks& chunks, int64_t rows, float* dx) {
  const int64_t size = rows * chunks.op.w.in;
  if (chunks.range_count < 4) {
    return linear_grad({matrix(dx, rows, chunks.op.w.in), matrix(chunks.logits, rows, chunks.op.w.rows()), chunks.op.w}, chunks.shared->shared());
  }
  chunks.context.parallel_for(chunks.range_count, [&](int64_t i, int worker) {
    multiply(chunks.own[worker].serial(), range_gemm(chunks, chunks.ranges[i], rows, chunks.sums + i * size));
  });
  for_rows(chunks.context, rows, chunks.op.w.in * chunks.range_count, [&](int64_t row) {
    const int64_t at = row * chunks.op.w.in;
    map_row(chunks.op.w.in, [&](auto d, int64_t c, auto part) {
      auto sum = part.load(d, chunks.sums + at + c);
      for (int64_t i = 1; i < chunks.range_count; ++i) sum = hn::Add(sum, part.load(d, chunks.sums + i * size + at + c));
      part.store(sum, d, dx + at + c);
    });
  });
}

void take_losses(const Chunks& chunks, int64_t begin, int64_t rows) {
  const int64_t vocabulary = chunks.op.w.rows();
  for_rows(chunks.context, rows, vocabulary, [&](int64_t i) {
    float* logits = chunks.logits + i * vocabulary;
    const int32_t target = chunks.op.targets.i32()[chunks.row[begin + i]];
    chunks.losses[begin + i] = chunks.op.dx.given() ? cross_entropy_row(logits, vocabulary, target, chunks.op.scale)
                                                    : row_loss(logits, target, softmax_sum(logits, vocabulary));
  });
}

void run_chunk(const Chunks& chunks, int64_t begin, int64_t rows) {
  const int64_t c = chunks.op.w.in;
  const int64_t* row = chunks.row + begin;
  const bool neighbours = row[rows - 1] - row[0] == rows - 1;
  float* x = neighbours ? chunks.op.x.f32() + row[0] * c : chunks.x;
  if (!neighbours)
    for (int64_t i = 0; i < rows; ++i) memcpy(x + i * c, chunks.op.x.f32() + row[i] * c, static_cast<size_t>(c) * sizeof(float));
  linear({matrix(chunks.logits, rows, chunks.op.w.rows()), matrix(x, rows, c), chunks.op.w, absent(), absent()}, chunks.shared->shared());
  take_losses(chunks, begin, rows);
  if (!chunks.op.dx.given()) return;
  float* dx = neighbours ? chunks.op.dx.f32() + row[0] * c : chunks.dx;
  take_dx(chunks, rows, dx);
  if (!neighbours)
    for (int64_t i = 0; i < rows; ++i) memcpy(chunks.op.dx.f32() + row[i] * c, dx + i * c, static_cast<size_t>(c) * sizeof(float));
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

bool make_room(const Context& context, Chunks& chunks, Range* ranges, int64_t active) {
  const int64_t size = chunks.rows * chunks.op.w.in;
  const bool gathers = active != chunks.op.targets.count(), trains = chunks.op.dx.given();
  list_ranges(chunks.op.w, ranges);
  chunks.ranges = ranges;
  chunks.x = share<float>(context, gathers ? size : 0);
  chunks.dx = share<float>(context, gathers && trains ? size : 0);
  chunks.logits = share<float>(context, chunks.rows * chunks.op.w.rows());
  chunks.losses = share<double>(context, active);
  chunks.sums = share<float>(context, trains && chunks.range_count >= 4 ? size * chunks.range_count : 0);
  chunks.shared = share<Arena>(context, 1);
  chunks.own = share<Arena>(context, context.threads);
  if (!chunks.x || !chunks.dx || !chunks.logits || !chunks.losses || !chunks.sums || !chunks.shared || !chunks.own) return false;
  chunks.shared->open(context, -1);
  for (int worker = 0; worker < context.threads; ++worker) chunks.own[worker].open(context, worker);
  return true;
}

}  // namespace

void linear_cross_entropy(const LinearCrossEntropy& op, const Context& context) {
  if (!targets_in_range(context, "linear_cross_entropy", op.targets, op.w.rows())) return;
  int64_t* row = share<int64_t>(context, op.targets.count());
  if (row == nullptr) return;
  const int64_t active = list_active(op, row), range_count = list_ranges(op.w, nullptr);
  Range* ranges = share<Range>(context, range_count);
  Chunks chunks{.op = op, .context = context, .rows = chunk_rows(active, op.w.rows()), .row = row, .x = nullptr, .dx = nullptr, .logits = nullptr,
                .losses = nullptr, .ranges = nullptr, .range_count = range_count, .sums = nullptr, .shared = nullptr, .own = nullptr};
  if (ranges == nullptr || !make_room(context, chunks, ranges, active)) return;
  for (int64_t begin = 0; begin < active; begin += chunks.rows)
    run_chunk(chunks, begin, active - begin < chunks.rows ? active - begin : chunks.rows);
  double loss = 0;
  for (int64_t i = 0; i < active; ++i) loss += chunks.losses[i];
  op.loss.f32()[0] = static_cast<float>(loss);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
