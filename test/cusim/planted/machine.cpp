// The emulator's parts, one claim each: conversions, fragments, memory, limits, threads of the host.
#include <cusim/emulator/checker.h>
#include <cusim/emulator/operands.h>
#include <cusim/emulator/runtime.h>

#include <thread>

#include "run.cuh"

namespace planted {

namespace {

void test_half() {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    _Float16 half;
    const auto pattern = static_cast<uint16_t>(bits);
    memcpy(&half, &pattern, sizeof half);
    const float want = static_cast<float>(half), got = to_f32(f16{pattern});
    const bool nan = want != want;
    wrong += !(got == want || (nan && got != got)) || (!nan && from_f32<f16>(want).bits != pattern);
  }
  claim("f16: each of the 65,536 patterns survives the way to f32 and back", wrong == 0, std::to_string(wrong) + " wrong");
  uint32_t state = 1;
  for (int i = wrong = 0; i < 1000000; ++i) {
    const float value = as_float(state = state * 1664525 + 1013904223);
    const auto half = static_cast<_Float16>(value);
    uint16_t want;
    memcpy(&want, &half, sizeof want);
    wrong += value == value && from_f32<f16>(value).bits != want;
  }
  claim("f16: a million f32 patterns round as the compiler's own type does", wrong == 0, std::to_string(wrong) + " wrong");
}

// The fragments of mma.m16n8k16, from the strides that CUTLASS publishes for SM80_16x8x16 (a: m + 16 k, b: n + 8 k, d: m + 16 n).
__global__ void fragments(const uint16_t* a, const uint16_t* b, float* d) {
  const int t = lane_id(), g = t / 4, q = t % 4;
  uint32_t fa[4], fb[2];
  for (int high = 0; high < 2; ++high) {
    for (int far = 0; far < 2; ++far) {
      const int at = q * 32 + g + high * 8 + far * 128;
      fa[high + 2 * far] = a[at] | static_cast<uint32_t>(a[at + 16]) << 16;
    }
    const int at = q * 16 + g + high * 64;
    fb[high] = b[at] | static_cast<uint32_t>(b[at + 8]) << 16;
  }
  float sums[4] = {};
  ptx::mma_m16n8k16<f16>(sums, fa, fb[0], fb[1]);
  for (int next = 0; next < 2; ++next)
    for (int high = 0; high < 2; ++high) d[q * 32 + g + next * 16 + high * 8] = sums[next + 2 * high];
}

void test_fragments() {
  const std::vector<float> a = small_integers(256, 5), b = small_integers(128, 6);
  const Buffer<uint16_t> on_a(to_half<f16>(a), "a"), on_b(to_half<f16>(b), "b");
  const Buffer<float> on_d(128, "d");
  cusim::launch("fragments", {dim3(1), dim3(32), 0}, [&] { fragments(on_a.data(), on_b.data(), on_d.data()); });
  const std::vector<float> d = on_d.values();
  int wrong = 0;
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      float want = 0;
      for (int k = 0; k < 16; ++k) want += a[m + 16 * k] * b[n + 8 * k];
      wrong += d[m + 16 * n] != want;
    }
  }
  claim("mma.m16n8k16 has the fragments that CUTLASS publishes", wrong == 0, std::to_string(wrong) + " wrong");
}

void test_conflicts() {
  cusim::counts = {};
  run_product<f16, 2, Defect::none>({64, 32, 64});
  claim("the exchange of pieces in the product's tiles meets no bank twice", cusim::counts.ldmatrix_phases > 0 && cusim::counts.ldmatrix_conflicts == 0,
        cusim::format("%llu conflicts", static_cast<unsigned long long>(cusim::counts.ldmatrix_conflicts)));
}

__global__ void write_at(float* p, int64_t at) { p[at] = 1; }
__global__ void recurse(volatile char* above, int depth) {
  volatile char room[4096];
  room[0] = depth > 0 ? *above : 1;
  if (depth < 1000) recurse(room, depth + 1);
  room[1] = room[0];
}
__global__ void follow_null(const float* p, float* y) { y[0] = p[3]; }

template <class Body>
std::string failure_of(const char* name, dim3 threads, const Body& body) {
  return report_of([&]() -> std::string {
    cusim::launch(name, {dim3(1), threads, 64}, body);
    return "";
  });
}

void expect_failure(const std::string& what, const std::string& report, const char* words) {
  claim(what, report.find(words) != std::string::npos, report);
}

void test_faults() {
  const Buffer<float> y(10, "y");
  expect_failure("a write behind a guard page ends the launch, not the process", failure_of("write_at", dim3(1), [&] { write_at(y.data(), 2000); }), "y");
  expect_failure("an endless recursion ends the launch", failure_of("recurse", dim3(1), [&] { recurse(nullptr, 0); }), "stack of a CUDA thread is full");
  expect_failure("a null operand ends the launch", failure_of("follow_null", dim3(1), [&] { follow_null(nullptr, y.data()); }), "no memory of the device");
  expect_failure("a block of 1,025 threads is refused", failure_of("write_at", dim3(1025), [&] { write_at(y.data(), 0); }), "1 to 1024 threads");
  claim("after failures a launch works", failure_of("write_at", dim3(1), [&] { write_at(y.data(), 9); }).empty());
}

__global__ void fill_shared(int bytes) {
  GPU_SHARED(shared);
  for (int i = static_cast<int>(threadIdx.x); i < bytes; i += static_cast<int>(blockDim.x)) shared[i] = 1;
}

// What a launch with so much shared memory ends with, by way of the runtime.
std::string launch_with(int bytes) {
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cusim::launch_on(stream, "fill_shared", {dim3(1), dim3(32), static_cast<size_t>(bytes)}, fill_shared, bytes);
  cudaStreamDestroy(stream);
  const cudaError_t error = cudaPeekAtLastError();
  const std::string says = error == cudaSuccess ? "" : cudaGetErrorString(error);
  cudaGetLastError();
  return says;
}

void test_shared_memory() {
  constexpr int kUnasked = 48 << 10, kMost = 101376;
  claim("48 KiB of shared memory need no asking", launch_with(kUnasked).empty());
  expect_failure("found: a launch with more than 48 KiB of shared memory that nobody has asked for", launch_with(kUnasked + 16), "may have 49152");
  const cudaError_t asked = cudaFuncSetAttribute(fill_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, kMost);
  claim("a kernel that has asked for 99 KiB is launched with them", asked == cudaSuccess && launch_with(kMost).empty());
  const cudaError_t refused = cudaFuncSetAttribute(fill_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, kMost + 16);
  cudaGetLastError();
  claim("found: a kernel that asks for more than the 99 KiB of sm_86", refused == cudaErrorInvalidValue && !launch_with(kMost + 16).empty());
  cudaSetDevice(1);
  expect_failure("found: a kernel that has asked on another device only", launch_with(kMost), "may have 49152");
  cudaSetDevice(0);
}

__global__ void meet(int threads) {
  if (static_cast<int>(threadIdx.x) < threads) ptx::bar_sync(1, 64);
}

void test_deadlock() {
  const std::string report = failure_of("meet", dim3(96), [] { meet(63); });
  expect_failure("a barrier that one thread misses is a deadlock, with who waits where", report, "63 at a barrier at");
}

__global__ void add_one(float* y, const float* x) { y[threadIdx.x] = x[threadIdx.x] + 1; }

void test_operands() {
  if (!cusim::checked()) return;
  const std::vector<float> ones(64, 1.0f);
  const Buffer<float> region(ones, "region");
  float* data = region.data();
  const auto run = [&](cusim::Role y_role, size_t x_count) {
    const cusim::OperandScope scope({{data, 32, y_role, "y"}, {data + 32, x_count * 4, cusim::Role::read, "x"}});
    return failure_of("add_one", dim3(8), [&] { add_one(data, data + 32); });
  };
  claim("declared operands: a launch inside of them passes", run(cusim::Role::write, 8).empty());
  expect_failure("declared operands: a read past the end of one is found inside an allocation", run(cusim::Role::write, 7), "out of bounds: 4 bytes at offset 28 of x");
  expect_failure("declared operands: a write to an input is found", run(cusim::Role::read, 8), "only read");
}

void test_host_threads() {
  std::string faults[2];
  const auto work = [&faults](int thread) {
    for (int i = 0; i < 10 && faults[thread].empty(); ++i) faults[thread] = run_sum<Defect::none>(500 + i, 3);
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  claim("two host threads launch at the same time", faults[0].empty() && faults[1].empty(), faults[0] + faults[1]);
}

}  // namespace

void test_machine() {
  test_half();
  test_fragments();
  test_conflicts();
  test_faults();
  test_shared_memory();
  test_deadlock();
  test_operands();
  test_host_threads();
}

}  // namespace planted

int main() {
  planted::test_machine();
  planted::test_streams();
  planted::test_graphs();
  planted::test_clean_kernels();
  planted::test_planted_defects();
  return planted::failures == 0 ? 0 : 1;
}
