// Neighbouring elements that one thread reads or writes at once: 4 of them where everything is aligned, else 1.
#pragma once
#include "half.cuh"

namespace lowrank::cuda {

template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Pack {
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

template <int kCount, class T>
GPU_FN void store(T* to, const Floats<kCount>& values) {
  Pack<T, kCount> pack;
  GPU_UNROLL
  for (int i = 0; i < kCount; ++i) pack.at[i] = from_f32<T>(values.at[i]);
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

// Whether rows of `cols` elements may be walked four at a time, starting at each of these addresses.
template <class... Pointers>
bool fours(int64_t cols, const Pointers*... p) {
  return cols % 4 == 0 && ((reinterpret_cast<uintptr_t>(p) % (4 * sizeof(*p)) == 0) && ...);
}

}  // namespace lowrank::cuda
