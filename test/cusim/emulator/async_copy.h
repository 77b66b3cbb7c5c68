// cp.async: bytes that travel from device memory to shared memory while the thread goes on. Until the thread waits for their group,
// the destination holds NaN that nobody wrote.
#pragma once
#include <cstddef>
#include <vector>

#include "report.h"

namespace cusim {

// What one thread has under way.
struct AsyncCopies {
  struct Copy {
    unsigned char* to;
    const unsigned char* from;
    size_t bytes, source_bytes;  // the rest becomes zeros
  };
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> groups;
  size_t landed = 0;  // groups

  void clear() {
    open.clear();
    groups.clear();
    landed = 0;
  }
};

// cp.async.cg.shared.global [to], [from], bytes, source_bytes
void async_copy(void* to, const void* from, size_t bytes, size_t source_bytes, const Site& site);
void async_commit();
// cp.async.wait_group: at most `under_way` groups of this thread are left.
void async_wait(size_t under_way);

}  // namespace cusim
