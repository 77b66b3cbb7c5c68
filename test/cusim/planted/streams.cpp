// A weight slot between two streams: one brings numbers, the other reads them. Each order that is left out must be found.
#include <cusim/emulator/operands.h>
#include <cusim/emulator/runtime.h>

#include "run.cuh"

namespace planted {

namespace {

constexpr size_t kCount = 64, kBytes = kCount * sizeof(float);
constexpr int kRounds = 3;

enum class Slip { none, no_wait_before_reading, no_wait_before_writing, pinned_refilled, never_recorded, other_device, wrong_current };

__global__ void twice(float* y, const float* slot) { y[threadIdx.x] = 2 * slot[threadIdx.x]; }

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  const std::string report = cudaGetErrorString(error);
  cudaGetLastError();
  throw cusim::Error(report);
}

struct Pager {
  cudaStream_t work, copies;
  cudaEvent_t brought, used;
  float *slot, *y, *pinned;

  explicit Pager(Slip slip) {
    cudaSetDevice(slip == Slip::other_device ? 1 : 0);
    check(cudaStreamCreateWithFlags(&work, cudaStreamNonBlocking));
    cudaSetDevice(0);
    check(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking));
    check(cudaEventCreateWithFlags(&brought, cudaEventDisableTiming));
    check(cudaEventCreateWithFlags(&used, cudaEventDisableTiming));
    check(cudaMalloc(reinterpret_cast<void**>(&slot), kBytes));
    check(cudaMalloc(reinterpret_cast<void**>(&y), kRounds * kBytes));
    check(cudaMallocHost(reinterpret_cast<void**>(&pinned), kBytes));
  }
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;
  ~Pager() {
    for (const cudaEvent_t event : {brought, used}) cudaEventDestroy(event);
    for (const cudaStream_t stream : {work, copies}) cudaStreamDestroy(stream);
    cudaFree(slot), cudaFree(y), cudaFreeHost(pinned);
    cudaGetLastError();
  }
  void round(int i, Slip slip) {
    if (i > 0 && slip != Slip::pinned_refilled) check(cudaEventSynchronize(brought));
    for (size_t at = 0; at < kCount; ++at) pinned[at] = static_cast<float>(100 * i + static_cast<int>(at));
    if ((i > 0 || slip == Slip::never_recorded) && slip != Slip::no_wait_before_writing) check(cudaStreamWaitEvent(copies, used, 0));
    check(cudaMemcpyAsync(slot, pinned, kBytes, cudaMemcpyHostToDevice, copies));
    check(cudaEventRecord(brought, copies));
    if (slip == Slip::pinned_refilled) pinned[5] = -1;
    if (slip != Slip::no_wait_before_reading) check(cudaStreamWaitEvent(work, brought, 0));
    float* out = y + static_cast<size_t>(i) * kCount;
    cudaSetDevice(slip == Slip::other_device || slip == Slip::wrong_current ? 1 : 0);
    {
      const cusim::OperandScope scope({{out, kBytes, cusim::Role::write, "y"}, {slot, kBytes, cusim::Role::read, "the slot"}});
      cusim::launch_on(work, "twice", {dim3(1), dim3(kCount), 0}, twice, out, slot);
    }
    check(cudaPeekAtLastError());
    cudaSetDevice(0);
    check(cudaEventRecord(used, work));
  }
};

std::string run(Slip slip) {
  const std::string report = report_of([slip]() -> std::string {
    Pager pager(slip);
    for (int i = 0; i < kRounds; ++i) pager.round(i, slip);
    std::vector<float> y(kRounds * kCount);
    check(cudaMemcpyAsync(y.data(), pager.y, y.size() * sizeof(float), cudaMemcpyDeviceToHost, pager.work));
    check(cudaStreamSynchronize(pager.work));
    for (size_t at = 0; at < y.size(); ++at) {
      const float want = static_cast<float>(2 * (100 * (at / kCount) + at % kCount));
      if (!(y[at] == want)) return cusim::format("wrong result: y[%zu] is %g, not %g", at, y[at], want);
    }
    return "";
  });
  cudaSetDevice(0);
  return report;
}

void find(const char* what, Slip slip, const char* words) {
  const std::string report = run(slip);
  claim(std::string("found: ") + what, report.find(words) != std::string::npos, report);
}

}  // namespace

void test_streams() {
  const std::string fault = run(Slip::none);
  claim("a slot that one stream fills and another reads, in turns: right, and nothing is reported", fault.empty(), fault);
  find("a kernel reads a slot before it has waited for the copy", Slip::no_wait_before_reading, "twice reads the slot, which another stream wrote");
  find("a copy overwrites a slot before it has waited for the kernel that reads it", Slip::no_wait_before_writing, "writes memory, which another stream reads");
  find("pinned memory is filled again before its copy is over", Slip::pinned_refilled, "wrong result");
  find("a wait for an event that nobody recorded", Slip::never_recorded, "never recorded");
  find("a kernel on one device that reads another's memory", Slip::other_device, "device");
  find("a launch on a stream of a device that is not the current one", Slip::wrong_current, "not the current one");
}

}  // namespace planted
