// ldmatrix and mma.sync, as PTX defines their fragments (PTX ISA, "Matrix Fragments for mma.m16n8k16").
#pragma once
#include <cstdint>

#include "report.h"

namespace cusim {

enum class Transpose { no, yes };
enum class Half { f16, bf16 };

// ldmatrix.sync.aligned.m8n8.x<count>[.trans].shared.b16: lane 8j + i names row i of matrix j.
void ldmatrix(uint32_t* registers, int count, Transpose transpose, const void* row, const Site& site);
// d[16][8] += a[16][16] b[16][8]. Exact products, one rounding at the end: hardware rounds more often.
void mma_m16n8k16(Half type, float* d, const uint32_t* a, const uint32_t* b, const Site& site);

}  // namespace cusim
