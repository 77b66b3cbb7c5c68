// The one header that kernels include: nvcc and the emulator (g++ with LOWRANK_CUSIM) compile the same text.
// Rules for kernels: no asm but in ptx.cuh, no <<<>>>, no __shared__ declarations (carve GPU_SHARED), warp operations with their mask,
// no waiting for other blocks, 64-bit offsets. Host code that launches stands in the same file. Files without a kernel are .cpp: they see
// the runtime's API and GPU_HOST_FN, not what lies behind GPU_KERNELS.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__) || defined(LOWRANK_CUSIM)
#define GPU_KERNELS
#endif

#ifdef LOWRANK_CUSIM
#include <cusim/emulator/runtime.h>
#define GPU_SHARED(name) unsigned char* name = ::cusim::shared_bytes()
#define GPU_LAUNCH(kernel, grid, block, shared, stream, ...) \
  ::cusim::launch_on(stream, #kernel, {grid, block, static_cast<size_t>(shared)}, kernel, __VA_ARGS__)
#define GPU_UNROLL
#define GPU_NO_UNROLL
#define GPU_ARGUMENT const
#else
#include <cuda_runtime.h>
#define GPU_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define GPU_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define GPU_UNROLL _Pragma("unroll")
#define GPU_NO_UNROLL _Pragma("unroll 1")
// A large argument that is read where it lies, also at an index that is not known: without this it is copied to local memory.
#define GPU_ARGUMENT const __grid_constant__
#endif

#define GPU_FN __device__ __forceinline__
#define GPU_HOST_FN __host__ __device__ __forceinline__

#ifdef GPU_KERNELS
namespace lowrank::cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;

GPU_FN unsigned lane_id() { return threadIdx.x % 32; }
GPU_FN unsigned warp_id() { return threadIdx.x / 32; }

}  // namespace lowrank::cuda
#endif
