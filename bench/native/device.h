// The only place where the benches call lowrank: a context of one precision by the C ABI, and memory for operands.
#pragma once
#include <lowrank.h>

#include <initializer_list>
#include <memory>
#include <vector>

namespace lowrank::bench {

// Ends the process.
[[noreturn]] void stop(const char* why);

inline int64_t count(const lowrank_tensor& t) {
  int64_t n = 1;
  for (int i = 0; i < t.rank; ++i) n *= t.dims[i];
  return n;
}
inline int64_t cols(const lowrank_tensor& t) { return t.rank > 0 ? t.dims[t.rank - 1] : 1; }
inline float* f32(const lowrank_tensor& t) { return static_cast<float*>(t.data); }
inline int32_t* i32(const lowrank_tensor& t) { return static_cast<int32_t*>(t.data); }
// Of f32 and bf16.
float at(const lowrank_tensor& t, int64_t i);
lowrank_weight weight_over(const lowrank_tensor& matrix);

class Device {
 public:
  // Ends the process with the reason where it can't be opened. 0 threads: LOWRANK_THREADS, else one for each processor.
  explicit Device(lowrank_matmul_precision precision, int32_t threads = 0);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  lowrank_info info() const;
  // Uninitialised, freed with the device.
  lowrank_tensor empty(std::initializer_list<int64_t> dims, lowrank_dtype dtype = LOWRANK_F32);
  // Numbers in [-1/8, 1/8), the same for the same seed.
  lowrank_tensor noise(std::initializer_list<int64_t> dims, uint32_t seed, lowrank_dtype dtype = LOWRANK_F32);
  // Ends the process when the op fails.
  template <class Args>
  void launch(lowrank_status (*op)(lowrank_context*, const Args*), const Args& args) {
    if (op(context_, &args) != LOWRANK_OK) stop(lowrank_last_error());
  }

 private:
  lowrank_context* context_ = nullptr;
  std::vector<std::pair<void*, int64_t>> memory_;
};

}  // namespace lowrank::bench
