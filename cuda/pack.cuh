// Neighbouring elements that one thread reads or writes at once: 16 bytes of activations where everything is aligned, else one element.
#pragma once
#include "../native/core/tensor.h"
#include "ptx.cuh"

namespace lowrank::cuda {

// Activations of type T in 16 bytes.
template <class T>
constexpr int kPack = 16 / sizeof(T);

template <class T, int kCount>
struct alignas(kCount * sizeof(T) < 16 ? kCount * sizeof(T) : 16) Pack {
  T at[kCount];
};

// The same as f32, in registers.
template <int kCount>
struct Floats {
  float at[kCount];
};

template <int kCount, class T>
GPU_FN Floats<kCount> load(const T* from) {
  const auto pack = *reinterpret_cast<const Pack<T, kCount>*>(from);
  Floats<kCount> values;
  GPU_UNROLL
  for (int i = 0; i < kCount; ++i) values.at[i] = to_f32(pack.at[i]);
  return values;
}

template <class T, int kCount>
GPU_FN Pack<T, kCount> pack_of(const Floats<kCount>& values) {
  Pack<T, kCount> pack;
  GPU_UNROLL
  for (int i = 0; i < kCount; ++i) pack.at[i] = from_f32<T>(values.at[i]);
  return pack;
}

template <int kCount, class T>
GPU_FN void store(T* to, const Floats<kCount>& values) {
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack_of<T>(values);
}

// The first `count` of them: at once where that is all, and `to` is aligned. The instruction is named, since of two ways that store the same
// elements the compiler makes one that stores them singly.
template <int kCount, class T>
GPU_FN void store_first(T* to, const Floats<kCount>& values, int64_t count) {
  const Pack<T, kCount> pack = pack_of<T>(values);
  static_assert(sizeof pack == sizeof(uint4));
  if (count >= kCount && reinterpret_cast<uintptr_t>(to) % sizeof(uint4) == 0) {
    uint4 words;
    memcpy(&words, &pack, sizeof words);
    return ptx::store16(to, words);
  }
  GPU_UNROLL
  for (int i = 0; i < kCount; ++i) {
    if (i < count) to[i] = pack.at[i];
  }
}

// A tensor as a kernel walks it: rows `pitch` elements apart. Not given: data is nullptr and pitch 0, so every row is nullptr.
template <class T>
struct Rows {
  T* data;
  int64_t pitch;

  GPU_FN T* at(int64_t row) const { return data + row * pitch; }
};

template <class T>
Rows<T> rows_of(const Tensor& t) {
  return t.given() ? Rows<T>{t.as<T>(), t.pitch} : Rows<T>{nullptr, 0};
}

template <int kCount, class T>
bool aligned(const T* data) {
  return reinterpret_cast<uintptr_t>(data) % alignof(Pack<T, kCount>) == 0;
}
template <int kCount, class T>
bool aligned(const Rows<T>& rows) {
  return aligned<kCount>(rows.data) && rows.pitch % kCount == 0;
}

template <int kCount>
struct Count {
  static constexpr int value = kCount;
};

// body(Count<kCount>{}) if rows of `cols` elements may be walked that many at a time in all of these operands, else body(Count<1>{}).
template <int kCount, class Body, class... Operands>
void by_packs(int64_t cols, const Body& body, const Operands&... operands) {
  if (cols % kCount == 0 && (aligned<kCount>(operands) && ...)) body(Count<kCount>{});
  else body(Count<1>{});
}

}  // namespace lowrank::cuda
