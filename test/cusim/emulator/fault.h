// A memory fault of a kernel ends its launch, not the process.
#pragma once

namespace cusim {

// While alive, faults of this host thread that happen inside a kernel become failures of the launch.
class FaultGuard {
 public:
  FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;
  ~FaultGuard();

 private:
  struct State;
  State* state_;
};

}  // namespace cusim
