#include "gemm/arena.h"
#include "gemm/gemm.h"
#include "half.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// Bytes of B A that exist at a time.
constexpr int64_t kDeltaBytes = 4 << 20;

// merged = W + delta for one row.
template <class Bits>
void merge_row(const void* w_row, const float* delta, int64_t cols, void* merged_row) {
  using T = typename Bits::Bits;
  const BitsTag d;
  const hn::RebindToFloat<BitsTag> df;
  const T* w = static_cast<const T*>(w_row);
  T* merged = static_cast<T*>(merged_row);
  for (int64_t i = 0; i < cols; i += kLanes) {
    const int64_t n = cols - i < kLanes ? cols - i : kLanes;
    HWY_ALIGN T lanes[kLanes] = {};
    memcpy(lanes, w + i, static_cast<size_t>(n) * sizeof(T));
    const auto sum = hn::Add(hn::BitCast(df, Bits::load(d, lanes)), load_f32_n(df, delta + i, n));
    Bits::store(d, hn::BitCast(d, sum), lanes);
    memcpy(merged + i, lanes, static_cast<size_t>(n) * sizeof(T));
  }
}

void merge_row(DType dtype, const void* w, const float* delta, int64_t cols, void* merged) {
  if (dtype == DType::f16) return merge_row<F16Bits>(w, delta, cols, merged);
  if (dtype == DType::bf16) return merge_row<BF16Bits>(w, delta, cols, merged);
  merge_row<F32Bits>(w, delta, cols, merged);
}

// scale * (B A) [N, K], or its transpose, by its rows: what stands on the left and on the right. One of the factors is a copy.
struct Operands {
  const float* left;  // [rows, rank]
  Right right;        // [rank, cols]
};

// `copy`: room for A or B.
Operands operands_of(const LoraMerge& op, float* copy) {
  const int64_t rank = op.a.rows(), k = op.a.cols(), n = op.b.rows();
  if (op.order == static_cast<int64_t>(WeightOrder::out_in)) {
    for (int64_t i = 0; i < n * rank; ++i) copy[i] = op.scale * op.b.f32()[i];
    return {copy, f32_matrix(op.a.f32(), k, Lie::rows)};
  }
  for (int64_t j = 0; j < rank; ++j)
    for (int64_t i = 0; i < k; ++i) copy[i * rank + j] = op.scale * op.a.f32()[j * k + i];
  return {copy, f32_matrix(op.b.f32(), rank, Lie::columns)};
}

// `rows` rows of the product from `row` on: [rows, cols].
Gemm delta_of(const LoraMerge& op, const Operands& operands, int64_t row, int64_t rows, float* delta) {
  const int64_t rank = op.a.rows(), cols = op.w.cols();
  Gemm gemm;
  gemm.m = rows;
  gemm.lefts[gemm.left_count++] = {operands.left + row * rank, rank, rank};
  Columns& columns = gemm.columns[gemm.column_count++];
  columns.n = columns.pitch = cols;
  columns.c = delta;
  columns.add(0, rank, operands.right);
  return gemm;
}

}  // namespace

void lora_merge(const LoraMerge& op, const Context& context) {
  const int64_t rows = op.w.rows(), cols = op.w.cols();
  if (rows == 0 || cols == 0) return;
  const int64_t fit = kDeltaBytes / (cols * 4), step = fit < 1 ? 1 : fit < rows ? fit : rows;
  float* copy = context.scratch_for<float>(-1, rows * op.a.rows() + 1);
  float* delta = context.scratch_for<float>(-1, step * cols);
  Arena* arena = context.scratch_for<Arena>(-1, 1);
  if (copy == nullptr || delta == nullptr || arena == nullptr) return;
  const Operands operands = operands_of(op, copy);
  arena->open(context, -1);
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = rows - row < step ? rows - row : step;
    multiply(arena->shared(), delta_of(op, operands, row, count, delta));
    for_rows(context, count, cols, [&](int64_t i) {
      const int64_t at = (row + i) * cols * size_of(op.w.dtype);
      merge_row(op.w.dtype, op.w.as<const char>() + at, delta + i * cols, cols, op.merged.as<char>() + at);
    });
  }
}

}  // namespace lowrank::cpu::LOWRANK_ISA
