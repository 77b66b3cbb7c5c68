// The seam between the core and whatever computes: one versioned struct of C functions per backend. The CPU backend is linked in;
// CUDA and the emulator are shared libraries that export `lowrank_backend`, opened at run time.
#pragma once
#include <stddef.h>

#include "failure.h"
#include "tensor.h"

namespace lowrank {

constexpr int32_t kBackendAbi = 7;

// How exactly frozen weights are multiplied; PyTorch's words (torch.set_float32_matmul_precision). `medium` lets a backend round
// both factors to bf16 where that is faster; sums and all low-rank products stay f32.
enum class MatmulPrecision : int32_t { highest = 0, medium = 1 };

struct DeviceOptions {
  int32_t index;    // which of those that can be opened (probe)
  int32_t threads;  // of the pool (CPU); 0: LOWRANK_THREADS, else one for each processor
  MatmulPrecision matmul_precision;
  void* stream;     // CUDA: the cudaStream_t of the caller that work is queued on; nullptr: one of its own
  int32_t graphs;   // CUDA: 1: ops may be gathered, and launched together as graphs, until somebody waits or copies
  int64_t weight_memory;  // bytes that frozen weights may take, in turns where they don't all fit; 0: LOWRANK_WEIGHT_MEMORY, else what there is; -1: what there is
  int32_t guest;    // 1: called on threads of somebody else's, who find the same CUDA device current behind each call as before it
};

struct DeviceInfo {
  char name[128];    // "AMD EPYC ..." or "NVIDIA H100"
  char kernels[64];  // which kernel table serves it: "avx512", "sm_90a"
  int64_t memory;    // bytes
  int64_t free_memory;  // of them, nobody's at this moment; 0: that isn't known (CPU)
  int32_t threads;   // workers of the pool (CPU), multiprocessors (CUDA)
  int32_t ordinal;   // by which others know it (DLPack): CUDA's number, which counts GPUs that can't be opened too; 0 on the CPU
  MatmulPrecision matmul_precision;  // in force: `highest` where `medium` would gain nothing
  char products[1024];  // CUDA: what multiplies matrices of 16 bits, cublasLt with its file, or the own kernel, and why. CPU: what `medium` means
};

// What came of DeviceOptions::graphs.
struct GraphCounts {
  int64_t ops;       // launched in all
  int64_t replayed;  // of these by a graph
  int64_t captured, updated;
  int64_t refused;  // runs of ops that could not be captured
  const char* why;  // the last of them
};

// What a device does side by side: its work, and copies that bring weights meanwhile.
enum class Lane : int32_t { work = 0, copies = 1 };

// A matrix on its way into device memory, rows some elements apart; f32, f16 and bf16 are converted into each other, rounded to nearest even.
struct RowsCopy {
  void* to;
  int64_t to_pitch;
  DType to_dtype;
  const void* from;  // host memory, contiguous, until the lane has come past; or device memory
  int64_t from_pitch;
  DType from_dtype;
  int64_t rows, cols;
  int32_t from_host;
};

// `device` is what `open` returned. Transfers, synchronize and launch are called on that device's stream thread; probe, open,
// info, allocate, deallocate, and close (of an idle device) on the thread that owns the device. What takes a lane is called by one thread
// for each lane; marks and host memory by any.
struct Backend {
  int32_t abi;               // kBackendAbi
  int32_t ops;               // number of lines of list.def it was built with
  const char* kind;          // "cpu", "cuda", "cusim"
  uint32_t activations;      // bit i set: activations may have DType(i)
  int32_t border;            // spare columns behind each row of a 16-bit activation, and around frozen weights of 16 bits; 0: none
  int32_t host_memory;       // 1: the host may read and write its memory, and mapped files need no copy

  // Devices that can be opened. `why` tells the reason of 0.
  int (*probe)(char* why, size_t size);
  void* (*open)(const DeviceOptions* options, Failure* failure);
  void (*close)(void* device);
  void (*info)(void* device, DeviceInfo* info);

  void* (*allocate)(void* device, int64_t bytes);  // 64-byte aligned, nullptr when there is no more
  void (*deallocate)(void* device, void* memory, int64_t bytes);
  void (*upload)(void* device, void* to, const void* from, int64_t bytes, Failure* failure);
  void (*download)(void* device, void* to, const void* from, int64_t bytes, Failure* failure);
  void (*synchronize)(void* device, Failure* failure);

  // Runs (or queues) one op. `contract` is the contract struct of list.def's line `op`.
  void (*launch)(void* device, int32_t op, const void* contract, Failure* failure);

  // Any thread; nullptr where there are no graphs.
  void (*count_graphs)(void* device, GraphCounts* counts);

  // Any thread; nullptr where there is none: the most bytes of device memory that kernels held at once beside what `allocate` gave.
  int64_t (*kernel_bytes)(void* device);

  // What follows is there where the host can't read device memory. All of it queues and returns, but for reach_mark.
  // Host memory that copies to the device take no detour from; nullptr when there is none to be had.
  void* (*allocate_host)(void* device, int64_t bytes);
  void (*deallocate_host)(void* device, void* memory);
  void (*copy_rows)(void* device, Lane lane, const RowsCopy* copy, Failure* failure);
  // Zeros in `rows` rows of `bytes`, `pitch` bytes apart.
  void (*clear_rows)(void* device, Lane lane, void* memory, int64_t pitch, int64_t bytes, int64_t rows, Failure* failure);
  // Marks: how far a lane has come. set_mark moves one to behind all that the lane was given so far; await_mark makes a lane wait for it,
  // reach_mark the caller. A mark must have been set before somebody waits for it.
  void* (*new_mark)(void* device);  // nullptr: no more memory
  void (*delete_mark)(void* device, void* mark);
  void (*set_mark)(void* device, Lane lane, void* mark, Failure* failure);
  void (*await_mark)(void* device, Lane lane, void* mark, Failure* failure);
  void (*reach_mark)(void* device, void* mark, Failure* failure);
};

extern "C" typedef const Backend* (*BackendEntry)(int32_t abi);
constexpr const char* kBackendSymbol = "lowrank_backend";

// Finds a backend: "cpu", or a plugin next to this binary ("cuda": or in $LOWRANK_CUDA_PLUGIN; "cusim": or in
// $LOWRANK_CUSIM_PLUGIN). nullptr: `why` tells the reason.
const Backend* find_backend(const char* kind, char* why, size_t size);

}  // namespace lowrank
