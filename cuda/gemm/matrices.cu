#include "matrices.h"

#include "../dtypes.cuh"
#include "pieces.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kThreads = 256;

template <class To, class From>
__global__ void __launch_bounds__(kThreads) copy_rows(To* to, int64_t to_pitch, const From* from, int64_t from_pitch, int64_t rows, int64_t cols) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at < rows * cols) to[at / cols * to_pitch + at % cols] = from_f32<To>(to_f32(from[at / cols * from_pitch + at % cols]));
}

template <class To>
void copy_as(Queue& queue, To* to, int64_t to_pitch, const StoredMatrix& from) {
  with_frozen(from.dtype, [&](auto stored) {
    using From = typename decltype(stored)::Type;
    const auto blocks = static_cast<unsigned>((from.rows * from.cols + kThreads - 1) / kThreads);
    const auto* data = static_cast<const From*>(from.data);
    GPU_LAUNCH((copy_rows<To, From>), blocks, kThreads, 0, queue.stream(), to, to_pitch, data, from.pitch, from.rows, from.cols);
  });
}

// The matrix that part i is stored as.
StoredMatrix part_of(const Weight& w, int i) {
  const bool out_in = w.order == WeightOrder::out_in;
  return {w.data[i], w.dtype, out_in ? w.out[i] : w.in, out_in ? w.in : w.out[i], out_in ? w.in : w.out[i]};
}

}  // namespace

Halves halves_of(Queue& queue, const StoredMatrix& stored, DType dtype) {
  if (stored.dtype == dtype && is_aligned(stored.data, stored.pitch)) return {stored.data, stored.pitch, false};
  const int64_t pitch = whole_pieces(stored.cols);
  auto* copy = queue.scratch_for<uint16_t>(stored.rows * pitch);
  if (copy == nullptr || stored.rows * stored.cols == 0) return {copy, pitch, false};
  if (dtype == DType::bf16) copy_as(queue, reinterpret_cast<bf16*>(copy), pitch, stored);
  else copy_as(queue, reinterpret_cast<f16*>(copy), pitch, stored);
  return {copy, pitch, false};
}

Halves halves_of(Queue& queue, const Tensor& tensor, int64_t column, int64_t count) {
  Halves halves = halves_of(queue, {elements_from(tensor.data, column), tensor.dtype, tensor.rows(), count, tensor.pitch}, tensor.dtype);
  halves.bordered = halves.data == tensor.data && count == tensor.cols() && tensor.pitch >= tensor.cols() + kBorder;
  return halves;
}

Frozen frozen_of(Queue& queue, const Weight& w, DType dtype) {
  Frozen frozen;
  frozen.forward = w.order == WeightOrder::out_in ? Lie::columns : Lie::rows;
  if (w.border > 0) {
    const bool out_in = w.order == WeightOrder::out_in;
    frozen.count = 1;
    frozen.at[0] = halves_of(queue, {w.data[0], w.dtype, out_in ? w.rows() : w.in, out_in ? w.in : w.rows(), w.pitch}, dtype);
    frozen.at[0].bordered = frozen.at[0].data == w.data[0] && w.border >= kBorder;
    return frozen;
  }
  frozen.count = w.parts;
  for (int i = 0; i < w.parts; ++i) frozen.at[i] = halves_of(queue, part_of(w, i), dtype);
  return frozen;
}

}  // namespace lowrank::cuda
