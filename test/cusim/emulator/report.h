// How the emulator says what it found: one sentence, the thread, the line of the kernel.
#pragma once
#include <stdexcept>
#include <string>

namespace cusim {

// A place in a kernel's source. The kernel-side functions take it from __builtin_FILE and __builtin_LINE.
struct Site {
  const char* file = nullptr;
  int line = 0;

  bool operator==(const Site& other) const;
  std::string text() const;  // "planted/kernels.cuh:31", or "?"
};

// A launch or a call of the runtime that failed. what() is the report.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Ends the launch that is running (from one of its threads or from inside the emulator) or, outside of a launch, throws Error.
[[noreturn]] void fail(const std::string& what, const std::string& where);
[[noreturn]] void fail(const std::string& what, const Site& site);

// "planted/kernels.cuh:31" of an instruction, by addr2line; "?" without debug information.
std::string place_of(const void* instruction);

__attribute__((format(printf, 1, 2))) std::string format(const char* pattern, ...);

}  // namespace cusim
