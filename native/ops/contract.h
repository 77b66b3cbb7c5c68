// The words contracts are written in. A contract is plain data: operands and scalars in call order, one `visit`
// that names them, one `misfit` that states the shape rule. Every table of the project is made from these two.
#pragma once
#include "../core/tensor.h"

namespace lowrank {

// What dtypes an operand may have. Activations are f32 on the CPU, 16 bits or f32 on CUDA: the backend says which.
// Rows may lie further apart than they are long (Tensor.pitch) in activations, `floating` and `any`; others are contiguous.
enum class Kind : int32_t { activation, f32, i32, frozen /* f32, f16 or bf16 */, floating /* the same, with any pitch */, any };

LOWRANK_INLINE bool takes_pitch(Kind kind) { return kind == Kind::activation || kind == Kind::floating || kind == Kind::any; }

// nullptr: an operand of this kind may have this dtype; otherwise which it must have. `activations` is the backend's.
LOWRANK_INLINE const char* refuse(Kind kind, DType dtype, uint32_t activations) {
  switch (kind) {
    case Kind::activation:
      if ((activations >> static_cast<int>(dtype) & 1) != 0) return nullptr;
      return activations == 1u ? "f32 on this device" : "an activation dtype of this device";
    case Kind::f32: return dtype == DType::f32 ? nullptr : "f32";
    case Kind::i32: return dtype == DType::i32 ? nullptr : "i32";
    case Kind::frozen:
    case Kind::floating: return is_frozen(dtype) ? nullptr : "f32, f16 or bf16";
    case Kind::any: return nullptr;
  }
  return nullptr;
}

// A visitor has: out(name, Tensor&, Kind), in(name, Tensor&, Kind), inout(name, Tensor&, Kind),
// optional(name, Tensor&, Kind), optional_out(name, Tensor&, Kind), optional_inout(name, Tensor&, Kind), weight(name, Weight&), and
// value(name, T&) for int64_t, float and uint32_t. Who copies operands (capi/pack_rows) or watches them (the emulator) relies on
// `out` being written before it is read.

}  // namespace lowrank
