// DLPack's structs (dlpack.h, Apache 2.0, declared here as far as they are used; the ABI of version 1) and the way between them and
// Tensor. Nothing is copied.
#pragma once
#include <stdint.h>

#include "failure.h"
#include "tensor.h"

namespace lowrank::dlpack {

constexpr uint32_t kMajor = 1, kMinor = 0;
constexpr int32_t kCpu = 1, kCuda = 2, kPinned = 3 /* by CUDA: the host's memory */, kExtension = 12;
constexpr uint8_t kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4;
constexpr uint64_t kReadOnly = 1;

struct DLDevice {
  int32_t type, id;
};

struct DLDataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; nullptr: row-major without gaps
  uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor* self);
};

struct DLManagedTensorVersioned {
  uint32_t major, minor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  uint64_t flags;
  DLTensor dl_tensor;
};

// False: `failure` tells what a Tensor can't be: a dtype, more than four dimensions, rows that don't lie evenly.
bool read(const DLTensor& from, Tensor& to, Failure& failure);

struct Export {
  Tensor tensor;
  DLDevice device;
  uint64_t flags;
  void* owner;
  void (*release)(void* owner);  // by the deleter, with `owner`; nullptr: nothing to release
};

// nullptr: out of memory. The consumer calls the deleter, once, from any thread.
DLManagedTensor* write(const Export& from);
DLManagedTensorVersioned* write_versioned(const Export& from);

}  // namespace lowrank::dlpack
