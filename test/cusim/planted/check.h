// How the emulator's own tests say what they found: a line each, "ok" or "FAIL", the claim, the evidence. vitest reads them.
#pragma once
#include <cusim/emulator/config.h>
#include <cusim/emulator/memory.h>
#include <cusim/emulator/report.h>

#include <cstdio>
#include <string>
#include <vector>

namespace planted {

inline int failures = 0;

inline void claim(const std::string& what, bool holds, std::string evidence = "") {
  for (char& c : evidence)
    if (c == '\n' || c == '\t') c = ' ';
  printf("%s\t%s\t%s\n", holds ? "ok" : "FAIL", what.c_str(), evidence.c_str());
  failures += holds ? 0 : 1;
}

// A device buffer of one test.
template <class T>
class Buffer {
 public:
  Buffer(size_t count, const char* name) : count_(count), data_(static_cast<T*>(cusim::device_memory.allocate(count * sizeof(T), name))) {}
  Buffer(const std::vector<T>& values, const char* name) : Buffer(values.size(), name) {
    cusim::device_memory.copy_in(data_, values.data(), count_ * sizeof(T));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cusim::device_memory.release(data_); }
  T* data() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> copy(count_);
    cusim::device_memory.copy_out(copy.data(), data_, count_ * sizeof(T));
    return copy;
  }

 private:
  size_t count_;
  T* data_;
};

// Small whole numbers, so that sums of products are exact in any order.
inline std::vector<float> small_integers(size_t count, unsigned seed) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(static_cast<int>((seed = seed * 1664525 + 1013904223) >> 24) % 9 - 4);
  return values;
}

void test_clean_kernels();
void test_planted_defects();
void test_machine();
void test_streams();
void test_graphs();

}  // namespace planted
