#include "arguments.h"

#include "packed_weight.h"

namespace lowrank::capi {

namespace {

// More elements than any memory has; products of a few sizes below it don't overflow.
constexpr int64_t kMostElements = 1000000000000000;

bool is_dtype(int32_t dtype) { return dtype >= 0 && dtype < kDTypes; }

bool is_aligned(const void* data, DType dtype) { return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(size_of(dtype)) == 0; }

// Counts an empty dimension as one: rows and cols must not overflow either.
bool has_size(const int64_t* dims, int32_t rank) {
  int64_t count = 1;
  for (int32_t i = 0; i < rank; ++i) {
    if (dims[i] < 0) return false;
    if (dims[i] > 0 && count > kMostElements / dims[i]) return false;
    count *= dims[i] > 0 ? dims[i] : 1;
  }
  return true;
}

const char* fault_of(const lowrank_weight& from) {
  if (from.parts < 1 || from.parts > kMaxParts) return "parts must be 1 to 3";
  if (!is_dtype(from.dtype) || !is_frozen(static_cast<DType>(from.dtype))) return "dtype must be f32, f16 or bf16";
  if (from.order != LOWRANK_OUT_IN && from.order != LOWRANK_IN_OUT) return "order must be LOWRANK_OUT_IN or LOWRANK_IN_OUT";
  int64_t rows = 0;
  for (int32_t i = 0; i < from.parts; ++i) {
    const int64_t dims[2] = {from.out[i], from.in};
    if (!has_size(dims, 2) || (rows += from.out[i]) > kMostElements) return "sizes must be whole numbers of at most 10^15 elements";
    if (from.data[i] == nullptr && from.out[i] > 0 && from.in > 0) return "each part must have data (found NULL)";
    if (!is_aligned(from.data[i], static_cast<DType>(from.dtype))) return "data must be aligned to its dtype";
  }
  return nullptr;
}

bool is_here(const lowrank_context& context, const char* op, const char* name, int32_t type, int32_t index, Failure& failure) {
  if (type == 0 || (type == context.device_type && index == context.device_index)) return true;
  failure.set("ERR_DEVICE", "%s: %s must be on the context's device (%d:%d; found %d:%d)", op, name, context.device_type, context.device_index, type, index);
  return false;
}

}  // namespace

bool read_tensor(const lowrank_tensor& from, const char* op, const char* name, Tensor& to, Failure& failure) {
  to = Tensor{};
  if (!is_dtype(from.dtype)) {
    failure.set("ERR_DTYPE", "%s: %s must have a dtype of lowrank_dtype (found %d)", op, name, from.dtype);
    return false;
  }
  if (from.rank < 0 || from.rank > kMaxDims || !has_size(from.dims, from.rank)) {
    failure.set("ERR_SHAPE", "%s: %s must have 0 to %d dimensions, none negative, at most 10^15 elements", op, name, kMaxDims);
    return false;
  }
  to.data = from.data;
  to.dtype = static_cast<DType>(from.dtype);
  to.rank = from.rank;
  for (int i = 0; i < from.rank; ++i) to.dims[i] = from.dims[i];
  to.pitch = from.row_pitch == 0 ? to.cols() : from.row_pitch;
  const bool has_rows = to.rows() > 1 && to.cols() > 0;
  if (from.row_pitch < 0 || (has_rows && (to.pitch < to.cols() || to.pitch > kMostElements / to.rows()))) {
    failure.set("ERR_SHAPE", "%s: %s must have a row_pitch of 0 or at least its %lld columns (found %lld)", op, name, static_cast<long long>(to.cols()),
                static_cast<long long>(from.row_pitch));
    return false;
  }
  if (from.reserved != 0 || from.spare < 0 || (from.spare > 0 && from.spare > to.pitch - to.cols())) {
    failure.set("ERR_SHAPE", "%s: %s must have a spare of at most what lies between its rows, and a reserved of 0 (found %d, %d)", op, name, from.spare, from.reserved);
    return false;
  }
  if (to.data == nullptr && to.count() > 0) {
    failure.set("ERR_ARGUMENT", "%s: %s must have data (found NULL)", op, name);
    return false;
  }
  if (!is_aligned(to.data, to.dtype)) {
    failure.set("ERR_ARGUMENT", "%s: %s must be aligned to its dtype", op, name);
    return false;
  }
  return true;
}

bool read_weight(const lowrank_weight& from, const lowrank_context& context, const char* op, const char* name, Weight& to, Failure& failure) {
  const char* fault = fault_of(from);
  to = Weight{};
  if (fault == nullptr) {
    for (int32_t i = 0; i < from.parts; ++i) to.data[i] = from.data[i], to.out[i] = from.out[i];
    to.in = from.in;
    to.pitch = from.row_pitch;
    to.border = from.border;
    to.dtype = static_cast<DType>(from.dtype);
    to.order = static_cast<WeightOrder>(from.order);
    to.parts = from.parts;
    if (!is_as_packed(to, *context.backend)) fault = "row_pitch and border must be 0, or all of it what lowrank_pack made on a device of this kind";
  }
  if (fault != nullptr) failure.set("ERR_ARGUMENT", "%s: %s: %s", op, name, fault);
  return fault == nullptr && is_here(context, op, name, from.device_type, from.device_index, failure);
}

// Kernels put what extends a product behind the rows of its left factor and of a weight with a border. Where there is something of the
// caller's behind the former, the weight's border is told to be too narrow for that. Contracts name the left factor before the weight.
void Arguments::weight(const char* name, Weight& w) {
  const lowrank_weight& from = take<lowrank_weight>();
  if (failure_.happened() || !read_weight(from, context_, op_, name, w, failure_)) return;
  if (w.border > 0 && keeps_gaps_) w.border = 1;
}

void Arguments::tensor(const char* name, Tensor& t, Kind kind, Is is) {
  const lowrank_tensor& from = take<lowrank_tensor>();
  if (failure_.happened()) return;
  if (is == Is::optional && from.data == nullptr && from.rank == 0) {
    t = Tensor{};
    t.rank = -1;
    return;
  }
  if (!read_tensor(from, op_, name, t, failure_) || !is_here(context_, op_, name, from.device_type, from.device_index, failure_)) return;
  if (const char* wanted = refuse(kind, t.dtype, context_.backend->activations)) {
    return failure_.set("ERR_DTYPE", "%s: %s must be %s (found %s)", op_, name, wanted, name_of(t.dtype));
  }
  if (context_.backend->border > 0 && kind == Kind::activation && size_of(t.dtype) == 2) {  // its kernels know gaps
    keeps_gaps_ |= t.pitch - t.cols() >= context_.backend->border && from.spare < context_.backend->border;
    return;
  }
  if (t.contiguous()) return;
  has_gaps_ = true;
  if (context_.backend->host_memory != 0) return;
  failure_.set("ERR_UNSUPPORTED", "%s: %s must have rows without gaps on this device (row_pitch %lld, %lld columns)", op_, name,
               static_cast<long long>(t.pitch), static_cast<long long>(t.cols()));
}

}  // namespace lowrank::capi
