// Tensors from arguments, for the functions that make some.
#pragma once
#include "environment.h"

namespace lowrank::addon {

// The handle of a new object.
Napi::Value give(const Napi::CallbackInfo& info, Object object);
DType dtype_argument(const Napi::CallbackInfo& info, size_t i);
int64_t offset_argument(const Napi::CallbackInfo& info, size_t i);  // in elements or bytes, below 2^53
// Arguments from `first` on are the dims.
Tensor shape_arguments(const Napi::CallbackInfo& info, size_t first, DType dtype);

// A block of the pool, which goes back with its last owner; nullptr: there is no memory.
std::shared_ptr<void> new_block(Device& device, int64_t bytes);
// "no memory for a weight of 8 bytes (5 in use)"
std::string no_memory(Device& device, const char* what, int64_t bytes);
Object new_tensor(const Napi::CallbackInfo& info, int32_t device, Tensor tensor);

}  // namespace lowrank::addon
