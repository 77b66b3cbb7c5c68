#include "copies.h"

#include "dtypes.cuh"
#include "operands.h"
#include "queue.h"

namespace lowrank::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1024;

// to = from as f32 and rounded to To.
template <class To, class From>
struct Conversion {
  To* to;
  const From* from;
  int64_t to_pitch, from_pitch, rows, cols;
};

template <class To, class From>
__global__ void __launch_bounds__(kThreads) convert_rows(Conversion<To, From> p) {
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x)
    for (int64_t col = threadIdx.x; col < p.cols; col += kThreads) p.to[row * p.to_pitch + col] = from_f32<To>(to_f32(p.from[row * p.from_pitch + col]));
}

[[maybe_unused]] int64_t extent(int64_t rows, int64_t pitch, int64_t cols, DType dtype) { return ((rows - 1) * pitch + cols) * size_of(dtype); }

void convert(const RowsCopy& rows, const void* from, cudaStream_t stream) {
  LOWRANK_DECLARE_COPY(rows.to, extent(rows.rows, rows.to_pitch, rows.cols, rows.to_dtype), from, extent(rows.rows, rows.from_pitch, rows.cols, rows.from_dtype));
  const auto blocks = static_cast<unsigned>(rows.rows < kMostBlocks ? rows.rows : kMostBlocks);
  with_frozen(rows.from_dtype, [&](auto source) {
    with_frozen(rows.to_dtype, [&](auto target) {
      using To = typename decltype(target)::Type;
      using From = typename decltype(source)::Type;
      const Conversion<To, From> p{static_cast<To*>(rows.to), static_cast<const From*>(from), rows.to_pitch, rows.from_pitch, rows.rows, rows.cols};
      GPU_LAUNCH((convert_rows<To, From>), blocks, kThreads, 0, stream, p);
    });
  });
}

}  // namespace

void Copies::close() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  memory_.give_back(room_);
  if (own_) cudaStreamDestroy(stream_);
}

bool Copies::open(cudaStream_t stream, Failure* failure) {
  stream_ = stream;
  own_ = stream == nullptr && succeeded(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream", failure);
  return stream_ != nullptr;
}

// What is to be converted, as it came: on the device. The stream's next copy finds the room free, since it comes behind.
const void* Copies::landed(const RowsCopy& rows, Failure* failure) {
  const int64_t bytes = rows.rows * rows.cols * size_of(rows.from_dtype);
  if (bytes > room_bytes_) {
    memory_.give_back(room_);  // waits for what uses it
    room_ = nullptr, room_bytes_ = 0;
    if (!succeeded(memory_.take(&room_, bytes), "room to convert weights in", failure)) return nullptr;
    room_bytes_ = bytes;
  }
  return succeeded(cudaMemcpyAsync(room_, rows.from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_), "a copy of a weight", failure) ? room_ : nullptr;
}

void Copies::copy(const RowsCopy& rows, Failure* failure) {
  if (rows.rows == 0 || rows.cols == 0) return;
  const auto kind = rows.from_host != 0 ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToDevice;
  if (rows.from_dtype == rows.to_dtype) {
    const auto size = static_cast<size_t>(size_of(rows.to_dtype)), width = static_cast<size_t>(rows.cols) * size;
    const size_t to_pitch = static_cast<size_t>(rows.to_pitch) * size, from_pitch = static_cast<size_t>(rows.from_pitch) * size;
    // Pitches have a limit (2^31 - 1 bytes) that one long row may exceed.
    const bool dense = rows.rows == 1 || (to_pitch == width && from_pitch == width);
    const auto count = static_cast<size_t>(rows.rows);
    const cudaError_t error = dense ? cudaMemcpyAsync(rows.to, rows.from, width * count, kind, stream_)
                                    : cudaMemcpy2DAsync(rows.to, to_pitch, rows.from, from_pitch, width, count, kind, stream_);
    succeeded(error, "a copy of a weight", failure);
    return;
  }
  const void* from = rows.from_host != 0 ? landed(rows, failure) : rows.from;
  if (from == nullptr) return;
  convert(rows, from, stream_);
  succeeded(cudaGetLastError(), "a copy of a weight", failure);
}

void Copies::clear(void* memory, int64_t pitch, int64_t bytes, int64_t rows, Failure* failure) {
  if (rows == 0 || bytes == 0) return;
  succeeded(cudaMemset2DAsync(memory, static_cast<size_t>(pitch), 0, static_cast<size_t>(bytes), static_cast<size_t>(rows), stream_), "clearing a border", failure);
}

}  // namespace lowrank::cuda
