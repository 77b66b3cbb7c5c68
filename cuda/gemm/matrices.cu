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

void copy_into(Queue& queue, const Halves& room, const StoredMatrix& stored, DType dtype) {
  if (room.data == nullptr || stored.rows * stored.cols == 0) return;
  if (dtype == DType::bf16) copy_as(queue, static_cast<bf16*>(const_cast<void*>(room.data)), room.pitch, stored);
  else copy_as(queue, static_cast<f16*>(const_cast<void*>(room.data)), room.pitch, stored);
}

Halves bordered_room(Queue& queue, int64_t rows, int64_t cols) {
  const int64_t pitch = whole_pieces(cols + kBorder);
  return {queue.scratch_for<uint16_t>(rows * pitch), pitch, true};
}

Halves halves_of(Queue& queue, const StoredMatrix& stored, DType dtype) {
  if (stored.dtype == dtype && is_aligned(stored.data, stored.pitch)) return {stored.data, stored.pitch, false};
  const int64_t pitch = whole_pieces(stored.cols);
  const Halves copy{queue.scratch_for<uint16_t>(stored.rows * pitch), pitch, false};
  copy_into(queue, copy, stored, dtype);
  return copy;
}

Halves halves_of(Queue& queue, const Tensor& tensor, int64_t column, int64_t count) {
  const void* data = elements_from(tensor.data, column);
  if (is_aligned(data, tensor.pitch)) return {data, tensor.pitch, column == 0 && count == tensor.cols() && tensor.pitch >= count + kBorder};
  const Halves copy = bordered_room(queue, tensor.rows(), count);
  copy_into(queue, copy, {data, tensor.dtype, tensor.rows(), count, tensor.pitch}, tensor.dtype);
  return copy;
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
