#include "queue.h"

#include "operands.h"
#include "steps.h"

namespace lowrank::cuda {

namespace {

constexpr int64_t kWatches = 4096;  // between two synchronisations; a step has one for each look-up
constexpr int64_t kScratchStart = 4 << 20, kAlign = 256;

int64_t aligned(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

void describe(const Watch& watch, Report found, Failure* failure) {
  const auto index = static_cast<int32_t>(static_cast<uint32_t>(found));
  const auto limit = static_cast<long long>(watch.limit);
  if (watch.says == Says::outside) return failure->set("ERR_RANGE", "%s %d at row %llu is outside [0, %lld)", watch.what, index, found >> 32, limit);
  failure->set("ERR_RANGE", "%s must rise from 0 to T = %lld (element %llu is %d)", watch.what, limit, found >> 32, index);
}

}  // namespace

bool succeeded(cudaError_t error, const char* what, Failure* failure) {
  if (error == cudaSuccess) return true;
  if (!failure->happened()) failure->set(error == cudaErrorMemoryAllocation ? "ERR_MEMORY" : "ERR_INTERNAL", "%s: %s", what, cudaGetErrorString(error));
  cudaGetLastError();  // this failure has been told; the next call starts clean
  return false;
}

Queue* Queue::open(int device, void* stream, Failure& failure) {
  if (!succeeded(cudaSetDevice(device), "the device", &failure)) return nullptr;
  auto* queue = new Queue;
  queue->device_ = device;
  cudaDeviceGetAttribute(&queue->multiprocessors_, cudaDevAttrMultiProcessorCount, device);
  const size_t bytes = static_cast<size_t>(kWatches) * sizeof(Report);
  queue->stream_ = static_cast<cudaStream_t>(stream);
  queue->owns_stream_ = stream == nullptr;
  const bool good = (!queue->owns_stream_ || succeeded(cudaStreamCreateWithFlags(&queue->stream_, cudaStreamNonBlocking), "a stream", &failure)) &&
                    succeeded(queue->memory_.take(reinterpret_cast<void**>(&queue->reports_), static_cast<int64_t>(bytes)), "memory for reports", &failure) &&
                    succeeded(queue->memory_.take(reinterpret_cast<void**>(&queue->steps_), kMostSteps * sizeof(uint32_t)), "memory for numbers of steps", &failure) &&
                    succeeded(cudaMemsetAsync(queue->reports_, 0xff, bytes, queue->stream_), "memory for reports", &failure) &&
                    queue->copies(Lane::work).open(queue->stream_, &failure) && queue->copies(Lane::copies).open(nullptr, &failure);
  if (good) return queue;
  delete queue;
  return nullptr;
}

Queue::~Queue() {
  cudaSetDevice(device_);
  for (Copies& copies : copies_) copies.close();
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (void* old : outgrown_) memory_.give_back(old);
  for (void* own : {static_cast<void*>(scratch_), workspace_, static_cast<void*>(reports_), static_cast<void*>(steps_)}) memory_.give_back(own);
  if (owns_stream_ && stream_ != nullptr) cudaStreamDestroy(stream_);
}

void Queue::fail(const char* code, const char* format, ...) {
  if (failure_->happened()) return;
  va_list arguments;
  va_start(arguments, format);
  failure_->set(code, format, arguments);
  va_end(arguments);
}

cudaError_t Queue::claim(void** memory, int64_t bytes) {
  const cudaError_t error = memory_.take(memory, bytes);
  shortages_ += error != cudaSuccess;
  return error;
}

// A block of at least so many bytes. What the op has taken so far stays where it is, until the work that uses it is done.
bool Queue::grow(int64_t bytes, Failure* failure) {
  void* memory = nullptr;
  const int64_t size = bytes < kScratchStart ? kScratchStart : bytes;
  if (!succeeded(claim(&memory, size), "scratch memory", failure)) return false;
  if (scratch_ != nullptr) outgrown_.push_back(scratch_);
  scratch_ = static_cast<char*>(memory);
  scratch_bytes_ = size;
  scratch_used_ = 0;
  ++generation_;
  return true;
}

void* Queue::scratch(int64_t bytes) {
  const int64_t size = aligned(bytes < 1 ? 1 : bytes);
  if (scratch_used_ + size > scratch_bytes_ && !grow(op_bytes_ + size, failure_)) return nullptr;
  void* memory = scratch_ + scratch_used_;
  scratch_used_ += size, op_bytes_ += size;
  declare_scratch(memory, bytes);
  return memory;
}

void* Queue::workspace(int64_t bytes) {
  if (bytes > workspace_bytes_) {
    void* memory = nullptr;
    if (!succeeded(claim(&memory, bytes), "memory for a product", failure_)) return nullptr;
    if (workspace_ != nullptr) outgrown_.push_back(workspace_);
    workspace_ = memory;
    workspace_bytes_ = bytes;
    ++generation_;
  }
  declare_scratch(workspace_, bytes);
  return workspace_;
}

Report* Queue::watch(const Watch& watch) {
  if (static_cast<int64_t>(watches_.size()) == kWatches && !settle(failure_)) return nullptr;
  watches_.push_back(watch);
  Report* place = reports_ + watches_.size() - 1;
  declare_report(place, sizeof(Report));
  return place;
}

void Queue::make_room_for_watches(size_t count, Failure* failure) {
  if (watches_.size() + count > static_cast<size_t>(kWatches)) settle(failure);
}

std::vector<Watch> Queue::take_back_watches(size_t from) {
  std::vector<Watch> taken(watches_.begin() + static_cast<ptrdiff_t>(from), watches_.end());
  watches_.resize(from);
  return taken;
}

const uint32_t* Queue::step_at() {
  ++steps_asked_;
  if (step_at_ != nullptr) declare_step(step_at_, sizeof(uint32_t));
  return step_at_;
}

void Queue::set_steps(const std::vector<uint32_t>& steps) { write_steps(stream_, steps_, steps); }

void Queue::begin(Failure* failure) {
  failure_ = failure;
  scratch_used_ = op_bytes_ = 0;
}

// What lay in several blocks lies in one the next time, when a graph may be captured, which no allocation survives. Without memory for that
// the op is as good as it was.
void Queue::end() {
  Failure none{};
  if (succeeded(cudaGetLastError(), "a kernel", failure_) && op_bytes_ > scratch_bytes_) grow(op_bytes_, &none);
}

// Waits, and takes what kernels have reported.
bool Queue::settle(Failure* failure) {
  if (!succeeded(cudaStreamSynchronize(stream_), "the stream", failure)) return false;
  for (void* old : outgrown_) memory_.give_back(old);
  outgrown_.clear();
  if (watches_.empty()) return true;
  std::vector<Report> found(watches_.size());
  const size_t bytes = found.size() * sizeof(Report);
  const std::vector<Watch> watches = std::move(watches_);
  watches_.clear();
  if (!succeeded(cudaMemcpyAsync(found.data(), reports_, bytes, cudaMemcpyDeviceToHost, stream_), "reading reports", failure)) return false;
  if (!succeeded(cudaMemsetAsync(reports_, 0xff, bytes, stream_), "clearing reports", failure)) return false;
  if (!succeeded(cudaStreamSynchronize(stream_), "the stream", failure)) return false;
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] == kNothing) continue;
    describe(watches[i], found[i], failure);
    return false;
  }
  return true;
}

void Queue::synchronize(Failure* failure) {
  cudaSetDevice(device_);
  settle(failure);
}

void Queue::upload(void* to, const void* from, int64_t bytes, Failure* failure) {
  cudaSetDevice(device_);
  if (bytes == 0) return;
  if (!succeeded(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_), "a copy to the device", failure)) return;
  // From pageable memory the call returns when the bytes have been read; from pinned or managed memory somebody must wait for that.
  cudaPointerAttributes source{};
  const bool pageable = cudaPointerGetAttributes(&source, from) == cudaSuccess && source.type == cudaMemoryTypeUnregistered;
  if (!pageable) succeeded(cudaStreamSynchronize(stream_), "a copy to the device", failure);
}

void Queue::download(void* to, const void* from, int64_t bytes, Failure* failure) {
  cudaSetDevice(device_);
  if (!settle(failure) || bytes == 0) return;
  if (!succeeded(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_), "a copy to the host", failure)) return;
  succeeded(cudaStreamSynchronize(stream_), "a copy to the host", failure);
}

}  // namespace lowrank::cuda
