// What this machine can do at this moment: f32 multiply-add and bf16 dot products from registers, reads and copies from memory.
//   peak          measures everything once, prints one JSON object
//   peak serve    answers lines "f32 2", "bf16 1" (AMX, or AVX-512's dot products), "read 2", "copy 2", "stream 2" (what, threads) with {"rate":225.1}, until its input
//                 ends; an instruction set may follow: "f32 2 avx2". What this processor hasn't got is {"rate":null}.
// Rates are GFLOP/s (a multiply-add is two) and GB/s (a copy counts the bytes read and those written).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>

#include "../../native/cpu/host/amx_permission.h"
#define PEAK_TARGET(features) __attribute__((noinline, target(features)))
#else
#define PEAK_TARGET(features) __attribute__((noinline))
#endif

namespace {

volatile float sink;  // so that nothing is computed for nobody

// n turns of `chains` independent multiply-adds on vectors of `bytes`: enough chains to hide the latency, few enough to stay in registers.
// A macro, because GCC cuts wide vectors to pieces in an inline function before it knows the target it is inlined into.
#define PEAK_FMA(name, features, bytes, chains)                             \
  PEAK_TARGET(features) void name(int64_t n) {                              \
    typedef float V __attribute__((vector_size(bytes)));                    \
    V s[chains], a = V{} + 0.999999f, b = V{} + 1e-3f;                      \
    for (int j = 0; j < chains; ++j) s[j] = V{} + static_cast<float>(j);    \
    for (int64_t i = 0; i < n; ++i) {                                       \
      _Pragma("GCC unroll 24") for (int j = 0; j < chains; ++j) s[j] = s[j] * a + b; \
    }                                                                       \
    V sum = s[0];                                                           \
    for (int j = 1; j < chains; ++j) sum += s[j];                           \
    sink = sum[0];                                                          \
  }

#if defined(__x86_64__)
PEAK_FMA(fma_avx512, "avx512f,avx512vl,prefer-vector-width=512", 64, 24)
PEAK_FMA(fma_avx2, "avx2,fma", 32, 12)
PEAK_FMA(fma_base, "sse4.2", 16, 12)  // a multiplication and an addition: there is no fused one

PEAK_TARGET("avx512f,avx512bf16") void dot_avx512(int64_t n) {
  __m512 s[24];
  for (__m512& v : s) v = _mm512_set1_ps(1.0f);
  const __m512bh a = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) s[j] = _mm512_dpbf16_ps(s[j], a, a);
  }
  __m512 sum = s[0];
  for (int j = 1; j < 24; ++j) sum = _mm512_add_ps(sum, s[j]);
  sink = sum[0];
}

// Four tiles of sums, each pair of factors serving two of them.
void dot_amx(int64_t n) {
  alignas(64) unsigned char configuration[64] = {1};  // the palette; columns in bytes from 16 on, rows from 48 on
  for (int tile = 0; tile < 8; ++tile) configuration[16 + 2 * tile] = 64, configuration[48 + tile] = 16;
  asm volatile("ldtilecfg %0" ::"m"(configuration));
  asm volatile("tilezero %tmm4\n tilezero %tmm5\n tilezero %tmm6\n tilezero %tmm7\n tilezero %tmm0\n tilezero %tmm1\n tilezero %tmm2\n tilezero %tmm3");
  for (int64_t i = 0; i < n; ++i) {
    asm volatile("tdpbf16ps %tmm6, %tmm4, %tmm0\n tdpbf16ps %tmm7, %tmm4, %tmm1\n tdpbf16ps %tmm6, %tmm5, %tmm2\n tdpbf16ps %tmm7, %tmm5, %tmm3");
  }
  asm volatile("tilerelease");
}
#else
PEAK_FMA(fma_portable, "", 16, 24)  // 128-bit vectors, as the compiler makes them: fused on Arm
#endif

struct Arithmetic {
  const char* what;
  const char* isa;
  bool runs;
  void (*turn)(int64_t n);
  double flops;  // of one turn
};

std::vector<Arithmetic> arithmetic() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
  return {{"f32", "avx512", avx512, fma_avx512, 24 * 16 * 2},
          {"f32", "avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), fma_avx2, 12 * 8 * 2},
          {"f32", "base", static_cast<bool>(__builtin_cpu_supports("sse4.2")), fma_base, 12 * 4 * 2},
          {"bf16", "amx", lowrank::cpu::has_amx() && lowrank::cpu::ask_for_tiles(), dot_amx, 4 * 16 * 16 * 32 * 2},
          {"bf16", "avx512", avx512 && __builtin_cpu_supports("avx512bf16"), dot_avx512, 24 * 32 * 2}};
#elif defined(__aarch64__)
  return {{"f32", "neon", true, fma_portable, 24 * 4 * 2}};
#else
  return {{"f32", "base", true, fma_portable, 24 * 4 * 2}};
#endif
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Seconds that `threads` threads take for work(thread), from the moment when all of them run.
double seconds(int threads, const std::function<void(int)>& work) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) {
    others.emplace_back([&, i] {
      ++ready;
      while (!go) {}
      work(i);
    });
  }
  while (ready != threads - 1) {}
  const double start = now();
  go = true;
  work(0);
  for (std::thread& thread : others) thread.join();
  return now() - start;
}

constexpr double kSlice = 5e-3;  // seconds of one sample
constexpr int kSamples = 5;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double flop_rate(const Arithmetic& kind, int threads) {
  int64_t turns = 1000;
  while (seconds(1, [&](int) { kind.turn(turns); }) < kSlice) turns *= 2;
  seconds(threads, [&](int) { kind.turn(turns); });  // the first sample finds a core asleep or at a low clock
  std::vector<double> rates;
  for (int i = 0; i < kSamples; ++i) {
    rates.push_back(kind.flops * static_cast<double>(turns) * threads / seconds(threads, [&](int) { kind.turn(turns); }) / 1e9);
  }
  return median(rates);
}

// Two runs of memory far larger than any cache, in huge pages where they can be had.
class Memory {
 public:
  Memory() : from_(take()), to_(take()) {}
  ~Memory() { free(from_), free(to_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  double rate(const std::string& what, int threads) {
    std::vector<double> rates;
    for (int i = 0; i < kSamples; ++i) {
      const double took = seconds(threads, [&](int thread) { pass(what, part(thread, threads), part(thread + 1, threads)); });
      rates.push_back((what == "read" ? 1.0 : 2.0) * kBytes / took / 1e9);
    }
    return median(rates);
  }

 private:
  static constexpr int64_t kBytes = 256 << 20;
  typedef float V __attribute__((vector_size(64), aligned(64), may_alias));  // cut to what the processor has

  static char* take() {
    void* memory = nullptr;
    if (posix_memalign(&memory, 2 << 20, kBytes) != 0) abort();
#if defined(__linux__)
    madvise(memory, kBytes, MADV_HUGEPAGE);
#endif
    memset(memory, 1, kBytes);
    return static_cast<char*>(memory);
  }
  static int64_t part(int i, int threads) { return kBytes / threads * i / 4096 * 4096; }

  void pass(const std::string& what, int64_t begin, int64_t end) {
    if (what == "read") return read(begin, end);
    if (what == "copy") return copy(begin, end);
    stream(begin, end);
  }
  void read(int64_t begin, int64_t end) {
    V a{}, b{}, c{}, d{};
    for (int64_t i = begin; i + 256 <= end; i += 256) {
      a += at(from_, i), b += at(from_, i + 64), c += at(from_, i + 128), d += at(from_, i + 192);
    }
    sink = (a + b + c + d)[0];
  }
  // Ordinary stores: each line written is read first, which the rate doesn't count.
  void copy(int64_t begin, int64_t end) {
    for (int64_t i = begin; i + 64 <= end; i += 64) at(to_, i) = at(from_, i);
  }
  // Stores around the caches, where the processor has them.
  void stream(int64_t begin, int64_t end) {
#if defined(__x86_64__)
    for (int64_t i = begin; i + 16 <= end; i += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to_ + i), _mm_load_si128(reinterpret_cast<const __m128i*>(from_ + i)));
    }
    _mm_sfence();
#else
    memcpy(to_ + begin, from_ + begin, static_cast<size_t>(end - begin));
#endif
  }
  static V& at(char* base, int64_t i) { return *reinterpret_cast<V*>(base + i); }

  char* from_;
  char* to_;
};

bool is_memory(const std::string& what) { return what == "read" || what == "copy" || what == "stream"; }

// GFLOP/s or GB/s; negative: this processor can't.
double measure(const std::string& what, int threads, const std::string& isa) {
  if (is_memory(what)) return Memory().rate(what, threads);
  for (const Arithmetic& kind : arithmetic()) {
    if (kind.runs && what == kind.what && (isa.empty() || isa == kind.isa)) return flop_rate(kind, threads);
  }
  return -1;
}

void serve() {
  char line[256];
  while (fgets(line, sizeof line, stdin) != nullptr) {
    char what[32] = "", isa[32] = "";
    int threads = 1;
    sscanf(line, "%31s %d %31s", what, &threads, isa);
    const double rate = measure(what, std::clamp(threads, 1, 1024), isa);
    if (rate < 0) puts("{\"rate\":null}");
    else printf("{\"rate\":%.2f}\n", rate);
    fflush(stdout);
  }
}

void print_everything() {
  const int all = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  printf("{\"threads\":%d,\"arithmetic\":[", all);
  const char* comma = "";
  for (const Arithmetic& kind : arithmetic()) {
    if (!kind.runs) continue;
    printf("%s{\"what\":\"%s\",\"isa\":\"%s\",\"one\":%.1f,\"all\":%.1f}", comma, kind.what, kind.isa, flop_rate(kind, 1), flop_rate(kind, all));
    comma = ",";
  }
  printf("],\"memory\":[");
  Memory memory;
  comma = "";
  for (const char* what : {"read", "copy", "stream"}) {
    printf("%s{\"what\":\"%s\",\"one\":%.1f,\"all\":%.1f}", comma, what, memory.rate(what, 1), memory.rate(what, all));
    comma = ",";
  }
  printf("]}\n");
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 1) print_everything();
  else if (count == 2 && strcmp(arguments[1], "serve") == 0) serve();
  else return fprintf(stderr, "usage: peak [serve]\n"), 2;
}
