#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../table.h"
#include "amx_permission.h"

namespace lowrank::cpu {

// As native/cpu/CMakeLists.txt makes them.
#if defined(__x86_64__)
namespace base { extern const Table kTable; }
#if !defined(LOWRANK_BASE_ONLY)
namespace avx2 { extern const Table kTable; }
namespace avx512 { extern const Table kTable; }
#endif
#elif defined(__aarch64__)
namespace neon { extern const Table kTable; }
#else
namespace base { extern const Table kTable; }
#endif

namespace {

struct Candidate {
  const Table* table;
  bool runs;
};

const Table* pick(const Candidate* candidates, size_t count, char* why, size_t size) {
  const char* forced = getenv("LOWRANK_ISA");
  for (size_t i = 0; i < count; ++i) {
    const Candidate& candidate = candidates[i];
    if (forced != nullptr ? strcmp(forced, candidate.table->isa) != 0 : !candidate.runs) continue;
    if (candidate.runs) return candidate.table;
    snprintf(why, size, "LOWRANK_ISA=%s: this processor doesn't run it", forced);
    return nullptr;
  }
  if (forced != nullptr) {
    snprintf(why, size, "LOWRANK_ISA must name a kernel table of this build, such as %s (found %s)", candidates[0].table->isa, forced);
  } else {
    snprintf(why, size, "this processor is older than x86-64-v2 with AES (SSE4.2, PCLMUL), the least that lowrank runs on");
  }
  return nullptr;
}

}  // namespace

const Table* choose_table(char* why, unsigned long size) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool aes = __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
  const Candidate candidates[] = {
#if !defined(LOWRANK_BASE_ONLY)
      {&avx512::kTable, aes && __builtin_cpu_supports("x86-64-v4")},
      {&avx2::kTable, aes && __builtin_cpu_supports("x86-64-v3")},
#endif
      {&base::kTable, aes && __builtin_cpu_supports("x86-64-v2")}};
#elif defined(__aarch64__)
  const Candidate candidates[] = {{&neon::kTable, true}};
#else
  const Candidate candidates[] = {{&base::kTable, true}};
#endif
  return pick(candidates, sizeof candidates / sizeof candidates[0], why, size);
}

// Intel's processors with AMX have AVX-512 dot products at half the rate of f32's multiply-adds (178 of 354 GFLOP/s were measured), and twice as
// many of them are no gain: there it is the tiles or f32.
FrozenProducts medium_products([[maybe_unused]] const Table* table, AmxUse use) {
  if (use == AmxUse::emulated) return FrozenProducts::emulated_tiles;
#if defined(__x86_64__)
  if (has_amx()) return use == AmxUse::usual && ask_for_tiles() ? FrozenProducts::tiles : FrozenProducts::f32;
  if (table->has_pairs() && __builtin_cpu_supports("avx512bf16")) return FrozenProducts::pairs;
#endif
  return FrozenProducts::f32;
}

}  // namespace lowrank::cpu
