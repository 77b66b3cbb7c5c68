// LOWRANK_TRACE=file: what each op took, in Chrome's trace format (chrome://tracing, Perfetto). The second device that this process
// opens writes file.2, and so on.
#pragma once
#include <stdint.h>
#include <stdio.h>

#include <chrono>

namespace lowrank {

class Trace {
 public:
  Trace();  // reads the variable; silent when it is not set
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  ~Trace();

  bool on() const { return file_ != nullptr; }
  static int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  // What the stream does is on line 1, what is done beside it on line 2. Any thread.
  void op(const char* name, const char* shapes, int64_t begin, int64_t end, int line = 1);

 private:
  FILE* file_;
};

}  // namespace lowrank
