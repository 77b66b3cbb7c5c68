// What this machine's GPU can do at this moment.
//   gpu_peak facts    measures what only hardware can tell, prints one JSON object: rows and a line that sums up
//   gpu_peak serve    answers lines "bf16 …" (GFLOP/s of an 8192^3 product by cublasLt) and "copy …" (GB/s on the device, both ways
//                     counted) with {"rate":790123.4}, until its input ends; what it can't measure is {"rate":null}
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "cublas_lt.h"

namespace {

using lowrank::bench::CublasLt;
using lowrank::bench::Product;

[[noreturn]] void stop(const char* what, cudaError_t error) {
  fprintf(stderr, "gpu_peak: %s: %s\n", what, cudaGetErrorString(error));
  exit(1);
}
#define NEED(call)                                                   \
  do {                                                               \
    if (const cudaError_t error = (call)) stop(#call, error);        \
  } while (0)

// Random numbers in [-1/8, 1/8): products of zeros run faster than those of data.
__global__ void fill(__nv_bfloat16* values, size_t count, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count; i += size_t{gridDim.x} * blockDim.x) {
    uint32_t h = static_cast<uint32_t>(i) * 2654435761u ^ seed;
    h ^= h >> 15, h *= 0x85ebca6bu, h ^= h >> 13, h *= 0xc2b2ae35u, h ^= h >> 16;
    values[i] = __float2bfloat16(static_cast<int>(h & 255) / 1024.0f - 0.125f);
  }
}

__global__ void nothing() {}

class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) { NEED(cudaMalloc(&data_, bytes)); }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  __nv_bfloat16* random(uint32_t seed) {
    fill<<<1024, 256>>>(bf16(), bytes_ / 2, seed);
    NEED(cudaGetLastError());
    return bf16();
  }
  __nv_bfloat16* bf16() const { return static_cast<__nv_bfloat16*>(data_); }
  void* data() const { return data_; }

 private:
  size_t bytes_;
  void* data_ = nullptr;
};

// Milliseconds of one `work`: the median of seven samples, each of so many that it lasts ten milliseconds.
double time_of(const std::function<void()>& work) {
  cudaEvent_t begin, end;
  NEED(cudaEventCreate(&begin));
  NEED(cudaEventCreate(&end));
  const auto sample = [&](int times) {
    float ms = 0;
    NEED(cudaEventRecord(begin));
    for (int i = 0; i < times; ++i) work();
    NEED(cudaEventRecord(end));
    NEED(cudaEventSynchronize(end));
    NEED(cudaEventElapsedTime(&ms, begin, end));
    return ms / times;
  };
  sample(2);
  const int times = std::clamp(static_cast<int>(10 / std::max(sample(2), 1e-4f)), 1, 5000);
  std::vector<float> samples;
  for (int i = 0; i < 7; ++i) samples.push_back(sample(times));
  std::sort(samples.begin(), samples.end());
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return samples[3];
}

constexpr size_t kCopy = size_t{1} << 30;

double copy_rate() {
  Buffer from(kCopy), to(kCopy);
  from.random(1);
  return 2.0 * kCopy / time_of([&] { NEED(cudaMemcpyAsync(to.data(), from.data(), kCopy, cudaMemcpyDeviceToDevice)); }) / 1e6;
}

// Operands of a product, as large as their ld asks.
struct Operands {
  Buffer x, w, y;
  const void *px, *pw;

  explicit Operands(const Product& p) : x(2 * p.T * p.ldx), w(2 * (p.backward ? p.K : p.N) * p.ldw), y((p.y_is_f32 ? 4 : 2) * p.T * p.ldy), px(x.random(1)), pw(w.random(2)) {}
};

double flops_of(const Product& p) { return 2.0 * static_cast<double>(p.T) * static_cast<double>(p.N) * static_cast<double>(p.K); }

// GFLOP/s of the algorithm that is chosen, or a negative number.
double rate_of_choice(CublasLt& lt, const Product& p, const Operands& with) {
  bool fine = true;
  const double ms = time_of([&] { fine = lt.run(with.px, with.pw, with.y.data(), nullptr) && fine; });
  return fine ? flops_of(p) / ms / 1e6 : -1;
}

// GFLOP/s, or a negative number. K and ld in elements.
double product_rate(CublasLt& lt, const Product& p, std::string& why) {
  why = lt.prepare(p);
  if (!why.empty()) return -1;
  const double rate = rate_of_choice(lt, p, Operands(p));
  if (rate < 0) why = "the product failed";
  return rate;
}

constexpr Product kPeak{false, 8192, 8192, 8192, 8192, 8192, 8192};

void serve() {
  std::string why;
  const auto lt = CublasLt::open(why);
  char line[256];
  while (fgets(line, sizeof line, stdin) != nullptr) {
    double rate = -1;
    if (strncmp(line, "bf16", 4) == 0 && lt != nullptr) rate = product_rate(*lt, kPeak, why);
    if (strncmp(line, "copy", 4) == 0) rate = copy_rate();
    if (rate < 0) puts("{\"rate\":null}");
    else printf("{\"rate\":%.1f}\n", rate);
    fflush(stdout);
  }
}

// Rows of {"what", "value", "unit", "note"}.
class Rows {
 public:
  void add(const std::string& what, double value, const char* unit, const std::string& note = "") {
    printf("%s\n  {\"what\": \"%s\", \"value\": %.2f, \"unit\": \"%s\", \"note\": \"%s\"}", first_ ? "" : ",", what.c_str(), value, unit, note.c_str());
    first_ = false;
    fflush(stdout);
  }

 private:
  bool first_ = true;
};

double to_device(void* device, const void* host) {
  return kCopy / time_of([&] { NEED(cudaMemcpyAsync(device, host, kCopy, cudaMemcpyHostToDevice)); }) / 1e6;
}

// A file's pages as they are mapped for weights: read as they are, and registered.
void mapped_rates(Rows& rows, void* device) {
  const char* folder = getenv("TMPDIR");
  std::string name = std::string(folder != nullptr ? folder : "/tmp") + "/lowrank-gpu-peak-XXXXXX";
  const int file = mkstemp(name.data());
  std::vector<char> chunk(1 << 20, 1);
  for (size_t i = 0; file >= 0 && i < kCopy; i += chunk.size()) {
    if (write(file, chunk.data(), chunk.size()) < 0) break;
  }
  void* map = file < 0 ? MAP_FAILED : mmap(nullptr, kCopy, PROT_READ, MAP_SHARED, file, 0);
  unlink(name.c_str());
  if (map == MAP_FAILED) return rows.add("host to device, mapped file", 0, "GB/s", "the file can't be made");
  rows.add("host to device, mapped file", to_device(device, map), "GB/s");
  timespec from, to;
  clock_gettime(CLOCK_MONOTONIC, &from);
  const cudaError_t error = cudaHostRegister(map, kCopy, cudaHostRegisterReadOnly);
  clock_gettime(CLOCK_MONOTONIC, &to);
  cudaGetLastError();
  if (error != cudaSuccess) {
    rows.add("host to device, registered mapped file", 0, "GB/s", std::string("cudaHostRegister: ") + cudaGetErrorString(error));
  } else {
    rows.add("host to device, registered mapped file", to_device(device, map), "GB/s");
    rows.add("registering a GiB of mapped file", static_cast<double>(to.tv_sec - from.tv_sec) * 1e3 + static_cast<double>(to.tv_nsec - from.tv_nsec) / 1e6, "ms");
    cudaHostUnregister(map);
  }
  munmap(map, kCopy);
  close(file);
}

void host_rates(Rows& rows) {
  Buffer device(kCopy);
  void* pinned = nullptr;
  NEED(cudaMallocHost(&pinned, kCopy));
  memset(pinned, 1, kCopy);
  rows.add("host to device, pinned", to_device(device.data(), pinned), "GB/s");
  rows.add("device to host, pinned", kCopy / time_of([&] { NEED(cudaMemcpyAsync(pinned, device.data(), kCopy, cudaMemcpyDeviceToHost)); }) / 1e6, "GB/s");
  NEED(cudaFreeHost(pinned));
  std::vector<char> pageable(kCopy, 1);
  rows.add("host to device, pageable", to_device(device.data(), pageable.data()), "GB/s");
  mapped_rates(rows, device.data());
}

// What a border of r columns costs a vendor GEMM: K longer by one, by a tile, and rows that lie further apart.
void border_rates(Rows& rows, CublasLt& lt) {
  struct Form {
    int64_t K, ld;
  };
  for (const bool backward : {false, true}) {
    double plain = 0;
    for (const auto& [K, ld] : {Form{4096, 4096}, Form{4096, 4160}, Form{4096, 4224}, Form{4112, 4112}, Form{4112, 4160}, Form{4128, 4160}, Form{4160, 4160}, Form{4160, 4224}}) {
      // Forward, w [4096, K] with rows of ld; backward, w [K, 4096] with rows of ld.
      const Product p{backward, 8192, 4096, K, ld, ld, 4096};
      std::string why;
      const double rate = product_rate(lt, p, why);
      if (plain == 0) plain = rate;
      const double ms = 2.0 * 8192 * 4096 * static_cast<double>(K) / rate / 1e6;
      const double plain_ms = 2.0 * 8192 * 4096 * 4096.0 / plain / 1e6;
      char note[96];
      snprintf(note, sizeof note, "%.3f ms, %+.1f %% of the time of 4096", ms, 100 * (ms / plain_ms - 1));
      rows.add(std::string(backward ? "dx" : "y") + " 8192 x 4096, K " + std::to_string(K) + ", ld " + std::to_string(ld), rate / 1e3, "TFLOP/s", rate < 0 ? why : note);
    }
  }
}

std::string sizes_of(const Product& p) {
  return std::string(p.backward ? "dx " : "y ") + std::to_string(p.T) + " x " + std::to_string(p.N) + ", K " + std::to_string(p.K);
}

// The products of a loss over Llama 3's vocabulary, by rows of a chunk, of Llama-3.2-1B: logits in f32, and dx, whose K is long and whose
// result is small.
void loss_rates(Rows& rows, CublasLt& lt) {
  constexpr int64_t kVocabulary = 128256, kHidden = 2048, kPitch = kHidden + 64;
  for (const int64_t T : {512, 1024, 2048}) {
    std::string why;
    const Product logits{false, T, kVocabulary, kHidden, kPitch, kPitch, kVocabulary, true};
    rows.add(sizes_of(logits) + ", f32", product_rate(lt, logits, why) / 1e3, "TFLOP/s", why);
    for (const bool split : {false, true}) {
      const Product dx{true, T, kHidden, kVocabulary, 2 * kVocabulary, kPitch, kPitch, false, split};
      rows.add(sizes_of(dx) + (split ? ", K in pieces" : ""), product_rate(lt, dx, why) / 1e3, "TFLOP/s", why);
    }
  }
}

// What the choice of an algorithm by its time would gain over the likeliest, for the products of a layer of Llama-3-8B.
void choice_rates(Rows& rows, CublasLt& lt) {
  struct Size {
    int64_t N, K;
  };
  for (const bool backward : {false, true}) {
    for (const auto& [N, K] : {Size{6144, 4096}, Size{4096, 4096}, Size{28672, 4096}, Size{4096, 14336}}) {
      const int64_t out = backward ? K : N, in = (backward ? N : K) + 64;
      const Product p{backward, 8192, out, in, in, backward ? out + 64 : in, out + 64};
      std::string why = lt.prepare(p);
      if (!why.empty()) {
        rows.add("best of the algorithms for " + sizes_of(p), 0, "TFLOP/s", why);
        continue;
      }
      const Operands with(p);
      double first = 0, best = 0;
      int which = 0;
      for (int i = 0; i < lt.choices(); ++i) {
        lt.choose(i);
        const double rate = rate_of_choice(lt, p, with);
        if (i == 0) first = rate;
        if (rate > best) best = rate, which = i;
      }
      char note[96];
      snprintf(note, sizeof note, "number %d of %d; the first %.0f", which + 1, lt.choices(), first / 1e3);
      rows.add("best of the algorithms for " + sizes_of(p), best / 1e3, "TFLOP/s", note);
    }
  }
}

int facts() {
  int device = 0;
  cudaDeviceProp properties;
  NEED(cudaGetDeviceProperties(&properties, device));
  printf("{\"device\": \"%s\", \"rows\": [", properties.name);
  Rows rows;
  const double copied = copy_rate();
  rows.add("copy on the device", copied, "GB/s");
  rows.add("an empty launch", 1e3 * time_of([] { nothing<<<1, 32>>>(); }), "us");
  std::string why;
  const auto lt = CublasLt::open(why);
  double peak = -1;
  if (lt == nullptr) {
    rows.add("bf16 8192^3", 0, "TFLOP/s", why);
  } else {
    peak = product_rate(*lt, kPeak, why);
    rows.add("bf16 8192^3", peak / 1e3, "TFLOP/s", lt->file() + ", " + std::to_string(lt->version()) + why);
    border_rates(rows, *lt);
    loss_rates(rows, *lt);
    choice_rates(rows, *lt);
  }
  host_rates(rows);
  printf("],\n \"line\": \"%s: copy %.0f GB/s, bf16 %s\"}\n", properties.name, copied, peak < 0 ? "not measured" : (std::to_string(static_cast<int>(peak / 1e3)) + " TFLOP/s").c_str());
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 2 && strcmp(arguments[1], "serve") == 0) return serve(), 0;
  if (count == 2 && strcmp(arguments[1], "facts") == 0) return facts();
  return fprintf(stderr, "usage: gpu_peak facts | serve\n"), 2;
}
