// The only place where the benches call the backend: a device of one precision, its memory, and its kernels by contract.
#pragma once
#include <initializer_list>
#include <memory>
#include <vector>

#include "../../native/core/backend.h"
#include "../../native/ops/all.h"

namespace lowrank::bench {

class Device {
 public:
  // Ends the process with the reason where the backend can't be opened.
  explicit Device(MatmulPrecision precision);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  DeviceInfo info() const;
  // Uninitialised, freed with the device.
  Tensor empty(std::initializer_list<int64_t> dims, DType dtype = DType::f32);
  // Numbers in [-1/8, 1/8), the same for the same seed.
  Tensor noise(std::initializer_list<int64_t> dims, uint32_t seed, DType dtype = DType::f32);
  // Ends the process when the kernel fails or the operands don't fit.
  template <class Contract>
  void launch(Op op, Contract& contract) {
    if (const char* fault = contract.misfit()) stop(fault);
    launch_checked(op, &contract);
  }

 private:
  [[noreturn]] static void stop(const char* why);
  void launch_checked(Op op, const void* contract);

  void* device_;
  std::vector<std::pair<void*, int64_t>> memory_;
};

// An operand that is not given.
inline Tensor absent() { return {nullptr, DType::f32, -1, {}}; }

}  // namespace lowrank::bench
