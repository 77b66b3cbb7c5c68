// Device memory, and DLPack.
#include "../core/dlpack.h"
#include "arguments.h"
#include "context.h"

namespace lowrank::capi {

namespace {

bool is_size(int64_t bytes, const char* what, Failure& failure) {
  if (bytes >= 0) return true;
  failure.set("ERR_ARGUMENT", "%s: bytes must not be negative (found %lld)", what, static_cast<long long>(bytes));
  return false;
}

// Whether there is something to copy.
bool is_copy(const void* to, const void* from, int64_t bytes, const char* what, Failure& failure) {
  if (!is_size(bytes, what, failure) || bytes == 0) return false;
  if (to == nullptr || from == nullptr) failure.set("ERR_ARGUMENT", "%s: to and from must be given (found NULL)", what);
  return !failure.happened();
}

void write_dlpack(const lowrank_tensor& tensor, bool versioned, void* owner, void (*release)(void*), void** managed, Failure& failure) {
  dlpack::Export from{};
  from.owner = owner, from.release = release;
  if (!read_tensor(tensor, "lowrank_tensor_to_dlpack", "the tensor", from.tensor, failure)) return;
  from.device = {tensor.device_type == 0 ? dlpack::kCpu : tensor.device_type, tensor.device_type == 0 ? 0 : tensor.device_index};
  if (versioned) *managed = dlpack::write_versioned(from);
  else *managed = dlpack::write(from);
  if (*managed == nullptr) failure.set("ERR_MEMORY", "lowrank_tensor_to_dlpack: out of host memory");
}

}  // namespace

}  // namespace lowrank::capi

using lowrank::Failure;
using lowrank::capi::guarded;
using lowrank::capi::in_context;

lowrank_status lowrank_allocate(lowrank_context* context, int64_t bytes, void** memory) {
  if (memory != nullptr) *memory = nullptr;
  return in_context("lowrank_allocate", context, [&](Failure& failure) {
    if (memory == nullptr) return failure.set("ERR_ARGUMENT", "lowrank_allocate: memory must be given (found NULL)");
    if (!lowrank::capi::is_size(bytes, "lowrank_allocate", failure)) return;
    *memory = context->backend->allocate(context->device, bytes < 1 ? 1 : bytes);
    if (*memory == nullptr) failure.set("ERR_MEMORY", "lowrank_allocate: no memory for %lld bytes", static_cast<long long>(bytes));
  });
}

lowrank_status lowrank_release(lowrank_context* context, void* memory, int64_t bytes) {
  return in_context("lowrank_release", context, [&](Failure&) {
    if (memory != nullptr) context->backend->deallocate(context->device, memory, bytes < 1 ? 1 : bytes);
  });
}

lowrank_status lowrank_upload(lowrank_context* context, void* to, const void* from, int64_t bytes) {
  return in_context("lowrank_upload", context, [&](Failure& failure) {
    if (lowrank::capi::is_copy(to, from, bytes, "lowrank_upload", failure)) context->backend->upload(context->device, to, from, bytes, &failure);
  });
}

lowrank_status lowrank_download(lowrank_context* context, void* to, const void* from, int64_t bytes) {
  return in_context("lowrank_download", context, [&](Failure& failure) {
    if (lowrank::capi::is_copy(to, from, bytes, "lowrank_download", failure)) context->backend->download(context->device, to, from, bytes, &failure);
  });
}

lowrank_status lowrank_tensor_from_dlpack(const void* dl_tensor, lowrank_tensor* tensor) {
  return guarded("lowrank_tensor_from_dlpack", [&](Failure& failure) {
    if (dl_tensor == nullptr || tensor == nullptr) return failure.set("ERR_ARGUMENT", "lowrank_tensor_from_dlpack: both must be given (found NULL)");
    const auto& from = *static_cast<const lowrank::dlpack::DLTensor*>(dl_tensor);
    const bool pinned = from.device.type == lowrank::dlpack::kPinned;
    if (!pinned && lowrank::capi::kind_of(from.device.type) == nullptr) {
      return failure.set("ERR_DEVICE", "dlpack: must be on the CPU or CUDA (found device type %d)", from.device.type);
    }
    lowrank::Tensor rows{};
    if (!lowrank::dlpack::read(from, rows, failure)) return;
    *tensor = {};
    tensor->data = rows.data;
    tensor->dtype = static_cast<int32_t>(rows.dtype);
    tensor->rank = rows.rank;
    for (int i = 0; i < rows.rank; ++i) tensor->dims[i] = rows.dims[i];
    tensor->row_pitch = rows.pitch;
    tensor->device_type = pinned ? lowrank::dlpack::kCpu : from.device.type;
    tensor->device_index = pinned || from.device.type == lowrank::dlpack::kCpu ? 0 : from.device.id;
  });
}

lowrank_status lowrank_tensor_to_dlpack(const lowrank_tensor* tensor, int32_t versioned, void* owner, void (*release)(void*), void** managed) {
  if (managed != nullptr) *managed = nullptr;
  return guarded("lowrank_tensor_to_dlpack", [&](Failure& failure) {
    if (tensor == nullptr || managed == nullptr) return failure.set("ERR_ARGUMENT", "lowrank_tensor_to_dlpack: both must be given (found NULL)");
    lowrank::capi::write_dlpack(*tensor, versioned != 0, owner, release, managed, failure);
  });
}
