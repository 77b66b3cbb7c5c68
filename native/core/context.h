// What a running kernel may ask for: more hands, scratch memory, and a way to say that it can't go on.
// C types only: kernel files for AVX-512 include this, and plugins get it across a C ABI.
#pragma once
#include "dtype.h"

namespace lowrank {

constexpr int64_t kScratchAlign = 64;

// How frozen weights are multiplied. MatmulPrecision::medium: both factors in bf16, where the processor does that faster, by AVX-512's products
// of pairs or by AMX's tiles. emulated_tiles: what the tiles do in plain C++, for tests on processors without them.
enum class FrozenProducts : int32_t { f32, pairs, tiles, emulated_tiles };

// The services of one stream. All pointers are set; `self` is handed back to each.
struct Context {
  void* self;
  int threads;  // size of the pool, the calling thread included; results must not depend on it
  FrozenProducts frozen;

  // Runs task(arg, i, worker) for every i in [0, tasks), in any order, worker in [0, threads); returns when all are done.
  void (*run)(void* self, int64_t tasks, void (*task)(void* arg, int64_t i, int worker), void* arg);
  // 64-byte aligned memory that belongs to `worker` until the op ends; successive calls within one op give distinct
  // blocks. worker < threads, or -1 for the op as a whole (call that before `run`). nullptr: out of memory, and the op
  // has been failed.
  void* (*scratch)(void* self, int worker, int64_t bytes);
  // Marks the op as failed; the first failure counts. `code` is one of LowrankError's codes. printf format. Any thread.
  void (*fail)(void* self, const char* code, const char* format, ...) __attribute__((format(printf, 3, 4)));
  // Tells how a product is done, where somebody wants to know (LOWRANK_PLAN=1); else nullptr.
  void (*tell)(void* self, const char* plan);

  // body(i, worker) for i in [0, tasks). Split by shape, never by thread count.
  template <class Body>
  LOWRANK_INLINE void parallel_for(int64_t tasks, const Body& body) const {
    if (tasks <= 0) return;
    if (tasks == 1) return body(int64_t{0}, 0);
    run(self, tasks, [](void* arg, int64_t i, int worker) { (*static_cast<const Body*>(arg))(i, worker); },
        const_cast<Body*>(&body));
  }
  template <class T>
  LOWRANK_INLINE T* scratch_for(int worker, int64_t count) const {
    return static_cast<T*>(scratch(self, worker, count * static_cast<int64_t>(sizeof(T))));
  }
};

}  // namespace lowrank
