// cublasLt, opened at the first product where it is installed: our own declarations of what is used of it (values and layouts as in its
// version 13), so that building needs no header of it and running needs no library.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace lowrank::cuda::lt {

using Status = int;  // 0: success
using Handle = void*;
using Description = void*;
using Layout = void*;
using Preference = void*;

struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  Status status;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Heuristic) == 96 && offsetof(Heuristic, workspace) == 64, "cublasLtMatmulHeuristicResult_t");

constexpr int kComputeF32 = 68;                       // cublasComputeType_t
constexpr int kTypeF32 = 0, kTypeF16 = 2, kTypeBf16 = 14;  // cudaDataType_t
constexpr int kTransposeA = 3;                        // of a description: int32_t, 1 is "transposed"
constexpr int kWorkspace = 1, kReductions = 3;        // of a preference: size_t, uint32_t
constexpr uint32_t kReduceInWorkspace = 2;            // CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
constexpr int kAlignments[] = {5, 6, 7, 8};           // of a preference, for A, B, C, D: uint32_t, 256 unless said otherwise

struct Library {
  size_t (*version)() = nullptr;
  Status (*create)(Handle*) = nullptr;
  Status (*description_create)(Description*, int compute, int scale) = nullptr;
  Status (*description_destroy)(Description) = nullptr;
  Status (*description_set)(Description, int attribute, const void* value, size_t bytes) = nullptr;
  Status (*layout_create)(Layout*, int type, uint64_t rows, uint64_t cols, int64_t pitch) = nullptr;
  Status (*layout_destroy)(Layout) = nullptr;
  Status (*preference_create)(Preference*) = nullptr;
  Status (*preference_destroy)(Preference) = nullptr;
  Status (*preference_set)(Preference, int attribute, const void* value, size_t bytes) = nullptr;
  Status (*heuristics)(Handle, Description, Layout a, Layout b, Layout c, Layout d, Preference, int wanted, Heuristic* found, int* count) = nullptr;
  Status (*multiply)(Handle, Description, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta, const void* c, Layout, void* d, Layout,
                     const Algorithm*, void* workspace, size_t workspace_bytes, void* stream) = nullptr;
};

// nullptr: there is none, or LOWRANK_CUBLASLT=off. Looks once.
const Library* library();

}  // namespace lowrank::cuda::lt

namespace lowrank::cuda {

// What 16-bit products are computed by, in words: cublasLt's version and file, or the own kernel, and why or where it was looked for.
const char* lt_status();

}  // namespace lowrank::cuda
