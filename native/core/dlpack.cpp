#include "dlpack.h"

#include <new>

namespace lowrank::dlpack {

namespace {

bool read_dtype(DLDataType from, DType& to) {
  if (from.lanes != 1) return false;
  const int kind = from.code << 8 | from.bits;
  switch (kind) {
    case kFloat << 8 | 32: to = DType::f32; return true;
    case kFloat << 8 | 16: to = DType::f16; return true;
    case kBfloat << 8 | 16: to = DType::bf16; return true;
    case kInt << 8 | 32: to = DType::i32; return true;
    case kUint << 8 | 8: to = DType::u8; return true;
    default: return false;
  }
}

DLDataType dtype_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return {kFloat, 32, 1};
    case DType::f16: return {kFloat, 16, 1};
    case DType::bf16: return {kBfloat, 16, 1};
    case DType::i32: return {kInt, 32, 1};
    case DType::u8: return {kUint, 8, 1};
  }
  return {};
}

// The distance between rows that these strides amount to; -1: they aren't rows of one matrix. A dimension of one element has any stride.
int64_t pitch_of(const DLTensor& from) {
  const int32_t last = from.ndim - 1;
  const int64_t cols = from.ndim > 0 ? from.shape[last] : 1;
  if (from.strides == nullptr || from.ndim == 0) return cols;
  if (cols > 1 && from.strides[last] != 1) return -1;
  int64_t pitch = cols, next = -1;
  for (int32_t i = last - 1; i >= 0; --i) {
    if (from.shape[i] == 1) continue;
    if (next < 0) pitch = from.strides[i];
    else if (from.strides[i] != next) return -1;
    next = from.strides[i] * from.shape[i];
  }
  return pitch >= cols ? pitch : -1;
}

// What every export carries: the struct that the consumer sees first, so that one pointer serves for both.
template <class Managed>
struct Exported {
  Managed managed;
  int64_t shape[kMaxDims], strides[kMaxDims];
  void* owner;
  void (*release)(void* owner);

  static void finish(Managed* self) {
    auto* exported = reinterpret_cast<Exported*>(self);
    if (exported->release != nullptr) exported->release(exported->owner);
    delete exported;
  }
};

template <class Managed>
Managed* make(const Export& from) {
  auto* exported = new (std::nothrow) Exported<Managed>{};
  if (exported == nullptr) return nullptr;
  const Tensor& tensor = from.tensor;
  int64_t stride = 1;
  for (int32_t i = tensor.rank - 1; i >= 0; --i) {
    exported->shape[i] = tensor.dims[i];
    exported->strides[i] = stride;
    stride = i == tensor.rank - 1 ? tensor.pitch : stride * tensor.dims[i];
  }
  exported->owner = from.owner;
  exported->release = from.release;
  exported->managed.dl_tensor = {tensor.data, from.device, tensor.rank, dtype_of(tensor.dtype), exported->shape, exported->strides, 0};
  exported->managed.manager_ctx = exported;
  exported->managed.deleter = Exported<Managed>::finish;
  return &exported->managed;
}

}  // namespace

bool read(const DLTensor& from, Tensor& to, Failure& failure) {
  to = {};
  if (!read_dtype(from.dtype, to.dtype)) {
    failure.set("ERR_DTYPE", "dlpack: the dtype must be f32, f16, bf16, i32 or u8 (found code %d, %d bits, %d lanes)", from.dtype.code, from.dtype.bits,
                from.dtype.lanes);
    return false;
  }
  if (from.ndim < 0 || from.ndim > kMaxDims) {
    failure.set("ERR_SHAPE", "dlpack: a tensor has 0 to %d dimensions (found %d)", kMaxDims, from.ndim);
    return false;
  }
  to.pitch = pitch_of(from);
  if (to.pitch < 0) {
    failure.set("ERR_SHAPE", "dlpack: must be row-major, its rows evenly apart (found other strides)");
    return false;
  }
  to.rank = from.ndim;
  for (int32_t i = 0; i < from.ndim; ++i) to.dims[i] = from.shape[i];
  to.data = static_cast<char*>(from.data) + from.byte_offset;
  return true;
}

DLManagedTensor* write(const Export& from) { return make<DLManagedTensor>(from); }

DLManagedTensorVersioned* write_versioned(const Export& from) {
  DLManagedTensorVersioned* managed = make<DLManagedTensorVersioned>(from);
  if (managed == nullptr) return nullptr;
  managed->major = kMajor, managed->minor = kMinor;
  managed->flags = from.flags;
  return managed;
}

}  // namespace lowrank::dlpack
