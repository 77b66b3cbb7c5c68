// From a dtype, known when the op is called, to the type that a kernel is compiled for.
#pragma once
#include "../native/core/dtype.h"
#include "half.cuh"

namespace lowrank::cuda {

template <class T>
struct Stored {
  using Type = T;
};

// body(Stored<T>{}) for a frozen operand: f32, f16 or bf16.
template <class Body>
void with_frozen(DType dtype, const Body& body) {
  if (dtype == DType::f32) return body(Stored<float>{});
  if (dtype == DType::f16) return body(Stored<f16>{});
  return body(Stored<bf16>{});
}

// The same for activations, which are stored in the same types: `activations` in backend.cpp.
template <class Body>
void with_activation(DType dtype, const Body& body) {
  with_frozen(dtype, body);
}

}  // namespace lowrank::cuda
