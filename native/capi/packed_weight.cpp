#include "packed_weight.h"

#include "../core/frozen_weight.h"
#include "arguments.h"

namespace lowrank::capi {

namespace {

constexpr uintptr_t kAlign = 256;  // of FrozenWeight::at

FrozenWeight layout_of(const Weight& stored, const FrozenWeight::Form& form) {
  FrozenWeight::Part parts[kMaxParts];
  for (int i = 0; i < stored.parts; ++i) parts[i] = {static_cast<const char*>(stored.data[i]), nullptr};
  return {stored, parts, form};
}

// What is asked for, read. Without a border the weight stays as it is stored.
struct Request {
  Weight stored;
  FrozenWeight::Form form;
};

bool read_request(const lowrank_context& context, const lowrank_weight* weight, int32_t activations, const char* what, Request& request, Failure& failure) {
  if (weight == nullptr) {
    failure.set("ERR_ARGUMENT", "%s: weight must be given (found NULL)", what);
    return false;
  }
  if (!read_weight(*weight, context, what, "weight", request.stored, failure)) return false;
  if (request.stored.border > 0) {
    failure.set("ERR_ARGUMENT", "%s: weight must not be packed yet", what);
    return false;
  }
  const bool is_dtype = activations >= 0 && activations < kDTypes;
  const char* wanted = is_dtype ? refuse(Kind::activation, static_cast<DType>(activations), context.backend->activations) : "a lowrank_dtype";
  if (wanted != nullptr) {
    failure.set("ERR_DTYPE", "%s: activations must be %s (found %d)", what, wanted, activations);
    return false;
  }
  const auto dtype = static_cast<DType>(activations);
  request.form = {dtype, size_of(dtype) == 2 ? context.backend->border : 0};
  return true;
}

void pack(lowrank_context& context, const Request& request, void* memory, lowrank_weight& packed, Failure& failure) {
  if (memory == nullptr || reinterpret_cast<uintptr_t>(memory) % kAlign != 0) {
    return failure.set("ERR_ARGUMENT", "lowrank_pack: memory must be given, and begin at a multiple of 256 bytes");
  }
  const FrozenWeight frozen = layout_of(request.stored, request.form);
  Staging nothing_from_files(context.backend, context.device, Lane::work);
  frozen.fill(*context.backend, context.device, memory, nothing_from_files, failure);
  const Weight weight = frozen.at(memory);
  for (int i = 0; i < weight.parts; ++i) packed.data[i] = weight.data[i];
  packed.dtype = static_cast<int32_t>(weight.dtype);
  packed.row_pitch = weight.pitch;
  packed.border = weight.border;
}

}  // namespace

bool is_as_packed(const Weight& weight, const Backend& backend) {
  if (weight.border == 0) return weight.pitch == 0;
  if (weight.border != backend.border || size_of(weight.dtype) != 2) return false;
  Weight stored = weight;
  stored.pitch = 0, stored.border = 0;
  const Weight packed = layout_of(stored, {weight.dtype, weight.border}).at(const_cast<void*>(weight.data[0]));
  for (int i = 0; i < weight.parts; ++i)
    if (packed.data[i] != weight.data[i]) return false;
  return packed.pitch == weight.pitch && reinterpret_cast<uintptr_t>(weight.data[0]) % kAlign == 0;
}

}  // namespace lowrank::capi

using lowrank::Failure;
using lowrank::capi::Request;
using lowrank::capi::in_context;
using lowrank::capi::read_request;

lowrank_status lowrank_packed_bytes(lowrank_context* context, const lowrank_weight* weight, int32_t activations, int64_t* bytes) {
  return in_context("lowrank_packed_bytes", context, [&](Failure& failure) {
    Request request{};
    if (bytes == nullptr) return failure.set("ERR_ARGUMENT", "lowrank_packed_bytes: bytes must be given (found NULL)");
    if (!read_request(*context, weight, activations, "lowrank_packed_bytes", request, failure)) return;
    *bytes = request.form.border == 0 ? 0 : lowrank::capi::layout_of(request.stored, request.form).bytes();
  });
}

lowrank_status lowrank_pack(lowrank_context* context, const lowrank_weight* weight, int32_t activations, void* memory, lowrank_weight* packed) {
  return in_context("lowrank_pack", context, [&](Failure& failure) {
    Request request{};
    if (packed == nullptr) return failure.set("ERR_ARGUMENT", "lowrank_pack: packed must be given (found NULL)");
    if (!read_request(*context, weight, activations, "lowrank_pack", request, failure)) return;
    *packed = *weight;
    if (request.form.border > 0) lowrank::capi::pack(*context, request, memory, *packed, failure);
  });
}
