// Element types of tensors. Plain numbers, because they cross the N-API seam and the backend table.
#pragma once
#include <stdint.h>

// Kernel files are compiled once per instruction set; an inline function that is not inlined would leave
// a weak symbol holding AVX-512 code for everybody. So everything in these headers is forced inline.
#define LOWRANK_INLINE __attribute__((always_inline)) inline

namespace lowrank {

enum class DType : int32_t { f32 = 0, f16 = 1, bf16 = 2, i32 = 3, u8 = 4 };

constexpr int kDTypes = 5;

LOWRANK_INLINE constexpr int64_t size_of(DType dtype) {
  return dtype == DType::f32 || dtype == DType::i32 ? 4 : dtype == DType::u8 ? 1 : 2;
}

// What a frozen weight may be stored in.
LOWRANK_INLINE constexpr bool is_frozen(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

LOWRANK_INLINE constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::f16: return "f16";
    case DType::bf16: return "bf16";
    case DType::i32: return "i32";
    case DType::u8: return "u8";
  }
  return "?";
}

}  // namespace lowrank
