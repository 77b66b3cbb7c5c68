// Each function of the backend's table on a thread of somebody else's: the device that was current there is current afterwards.
#include "../../../native/core/backend.h"

#include "../../../native/ops/all.h"
#include "operands.cuh"

extern "C" const lowrank::Backend* lowrank_backend(int32_t abi);

namespace kernels {

namespace {

using namespace lowrank;

// Calls on device 1 while device 0 is current; the names of those behind which it isn't.
class Caller {
 public:
  explicit Caller(const Backend& backend) : backend_(backend) {}

  void call_all() {
    DeviceOptions options{};
    options.index = 1, options.guest = 1;
    expect("open", [&] { device_ = backend_.open(&options, &failure_); });
    if (device_ == nullptr) return;
    expect("allocate", [&] { memory_ = backend_.allocate(device_, kBytes); });
    expect("allocate_host", [&] { host_ = backend_.allocate_host(device_, kBytes); });
    expect("new_mark", [&] { mark_ = backend_.new_mark(device_); });
    call_transfers();
    call_marks();
    expect("delete_mark", [&] { backend_.delete_mark(device_, mark_); });
    expect("deallocate_host", [&] { backend_.deallocate_host(device_, host_); });
    expect("deallocate", [&] { backend_.deallocate(device_, memory_, kBytes); });
    expect("close", [&] { backend_.close(device_); });
  }
  std::string fault() const { return failure_.happened() ? failure_.text : others_; }
  int calls() const { return calls_; }

 private:
  static constexpr int64_t kBytes = 256;

  void call_transfers() {
    float numbers[4] = {1, 2, 3, 4};
    DeviceInfo facts{};
    expect("info", [&] { backend_.info(device_, &facts); });
    expect("upload", [&] { backend_.upload(device_, memory_, numbers, sizeof numbers, &failure_); });
    SumSquares op{};
    op.sum = {static_cast<float*>(memory_) + 4, DType::f32, 1, {1}, 1}, op.x = {memory_, DType::f32, 1, {4}, 4};
    expect("launch", [&] { backend_.launch(device_, static_cast<int32_t>(Op::sum_squares), &op, &failure_); });
    expect("synchronize", [&] { backend_.synchronize(device_, &failure_); });
    expect("download", [&] { backend_.download(device_, numbers, static_cast<float*>(memory_) + 4, 4, &failure_); });
    if (numbers[0] != 30) others_ += "the sum is wrong; ";
    const RowsCopy rows{memory_, 4, DType::f32, host_, 4, DType::f32, 1, 4, 1};
    expect("copy_rows", [&] { backend_.copy_rows(device_, Lane::copies, &rows, &failure_); });
    expect("clear_rows", [&] { backend_.clear_rows(device_, Lane::copies, memory_, 16, 16, 1, &failure_); });
  }
  void call_marks() {
    expect("set_mark", [&] { backend_.set_mark(device_, Lane::copies, mark_, &failure_); });
    expect("await_mark", [&] { backend_.await_mark(device_, Lane::work, mark_, &failure_); });
    expect("reach_mark", [&] { backend_.reach_mark(device_, mark_, &failure_); });
  }
  template <class Body>
  void expect(const char* name, const Body& body) {
    cudaSetDevice(0);
    body();
    int current = -1;
    cudaGetDevice(&current);
    if (current != 0) others_ += std::string(name) + " leaves device " + std::to_string(current) + "; ";
    ++calls_;
  }

  const Backend& backend_;
  Failure failure_{};
  void *device_ = nullptr, *memory_ = nullptr, *host_ = nullptr, *mark_ = nullptr;
  std::string others_;
  int calls_ = 0;
};

// On a stream of the caller's: memory that was uploaded from is filled again at once, then the numbers are fetched.
std::string refilled(const Backend& backend) {
  Failure failure{};
  DeviceOptions options{};
  options.guest = 1;
  cudaStream_t stream = nullptr;
  cudaSetDevice(0);
  cudaStreamCreateWithFlags(&stream, 0);
  options.stream = stream;
  void* device = backend.open(&options, &failure);
  if (device == nullptr) return failure.text;
  auto* pinned = static_cast<float*>(backend.allocate_host(device, 4));
  void* memory = backend.allocate(device, 4);
  float found = 0;
  *pinned = 1;
  backend.upload(device, memory, pinned, 4, &failure);
  *pinned = 2;
  backend.download(device, &found, memory, 4, &failure);
  backend.deallocate(device, memory, 4);
  backend.deallocate_host(device, pinned);
  backend.close(device);
  cudaStreamDestroy(stream);
  if (failure.happened()) return failure.text;
  return found == 1 ? "" : "found " + std::to_string(found);
}

}  // namespace

void test_guests() {
  const std::string fault = refilled(*lowrank_backend(kBackendAbi));
  claim("pinned memory may be changed once it has been uploaded, on a stream of the caller's", fault.empty(), fault);
  Caller caller(*lowrank_backend(kBackendAbi));
  caller.call_all();
  claim("a caller with two devices finds the same one current behind each of the backend's 18 functions", caller.calls() == 18 && caller.fault().empty(), caller.fault());
}

}  // namespace kernels
