// One inline function per PTX instruction: asm under nvcc, the emulator's function under g++.
#pragma once
#include "half.cuh"

namespace lowrank::cuda::ptx {

#ifdef LOWRANK_CUSIM

inline void cp_async16(void* to, const void* from, bool given, CUSIM_SITE) { cusim::async_copy(to, from, 16, given ? 16 : 0, {file, line}); }
inline void cp_async16(void* to, const void* from, int bytes, CUSIM_SITE) { cusim::async_copy(to, from, 16, static_cast<size_t>(bytes), {file, line}); }
inline void store16(void* to, uint4 words) { *static_cast<uint4*>(to) = words; }
// A place in shared memory, as instructions take it.
using SharedAt = unsigned char*;
inline SharedAt shared_at(void* p) { return static_cast<SharedAt>(p); }
inline SharedAt flipped(SharedAt at, uintptr_t bits) { return reinterpret_cast<SharedAt>(reinterpret_cast<uintptr_t>(at) ^ bits); }
inline int made_here(int x) { return x; }
inline void cp_async_commit() { cusim::async_commit(); }
template <int kUnderWay>
inline void cp_async_wait() { cusim::async_wait(kUnderWay); }
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, CUSIM_SITE) { cusim::ldmatrix(r, 4, cusim::Transpose::no, row, {file, line}); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, CUSIM_SITE) { cusim::ldmatrix(r, 4, cusim::Transpose::yes, row, {file, line}); }
template <class H>
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, CUSIM_SITE) {
  const uint32_t b[2] = {b0, b1};
  cusim::mma_m16n8k16(H::kIsBrain ? cusim::Half::bf16 : cusim::Half::f16, d, a, b, {file, line});
}
// Two numbers rounded to 16 bits, `low` in the low half.
template <class H>
inline uint32_t pack_halves(float low, float high) { return from_f32<H>(low).bits | static_cast<uint32_t>(from_f32<H>(high).bits) << 16; }
inline float exp2_approximate(float x) { return exp2f(x); }
inline float reciprocal_approximate(float x) { return 1.0f / x; }
inline void bar_sync(int id, int threads, CUSIM_SITE) { cusim::sync_named(id, threads, {file, line}); }
inline void bar_arrive(int id, int threads, CUSIM_SITE) { cusim::arrive_named(id, threads, {file, line}); }
inline void fence_gpu() { cusim::thread_fence(); }

#else

GPU_FN uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
using SharedAt = uint32_t;
// The compiler can't see how it was made, so it adds steps of known size where they are used, for nothing, and keeps no register for each.
GPU_FN SharedAt shared_at(const void* p) {
  SharedAt at;
  asm volatile("mov.b32 %0, %1;" : "=r"(at) : "r"(shared_address(p)));
  return at;
}
GPU_FN SharedAt flipped(SharedAt at, uint32_t bits) { return at ^ bits; }
// The same number. What is computed from it is computed where that is written, not ahead of a loop and kept in registers.
GPU_FN int made_here(int x) {
  int y;
  asm volatile("mov.b32 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
// 16 bytes from device memory to shared memory, or 16 zeros. Both 16-byte aligned.
GPU_FN void cp_async16(SharedAt to, const void* from, bool given) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(given ? 16 : 0) : "memory");
}
GPU_FN void cp_async16(void* to, const void* from, bool given) { cp_async16(shared_address(to), from, given); }
// The first `bytes` (0 to 16) of them, which alone are read, and zeros.
GPU_FN void cp_async16(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
// 16 bytes to where they are aligned.
GPU_FN void store16(void* to, uint4 words) { asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w) : "memory"); }
GPU_FN void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kUnderWay>
GPU_FN void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(kUnderWay) : "memory"); }
GPU_FN void ldmatrix_x4(uint32_t (&r)[4], SharedAt row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}
GPU_FN void ldmatrix_x4(uint32_t (&r)[4], const void* row) { ldmatrix_x4(r, shared_address(row)); }
GPU_FN void ldmatrix_x4_trans(uint32_t (&r)[4], SharedAt row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}
GPU_FN void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) { ldmatrix_x4_trans(r, shared_address(row)); }
// d[16][8] += a[16][16] b[16][8]; H is f16 or bf16.
template <class H>
GPU_FN void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (H::kIsBrain) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}
template <class H>
GPU_FN uint32_t pack_halves(float low, float high) {
  uint32_t pair;
  if constexpr (H::kIsBrain) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// Off by 2^-22 relatively; results below 2^-126 are 0.
GPU_FN float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Off by one in the last place.
GPU_FN float reciprocal_approximate(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
GPU_FN void bar_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
// The warp is counted, with what it wrote, and doesn't wait.
GPU_FN void bar_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
// Orders memory between blocks: before the atomic that publishes, after the atomic that finds out.
GPU_FN void fence_gpu() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

#endif

}  // namespace lowrank::cuda::ptx
