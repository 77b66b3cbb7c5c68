// memcpy by several threads: one alone reads memory at a fraction of the rate at which a device takes it.
#pragma once
#include <stdint.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace lowrank {

// Used by one thread, which does its share. The others are started when there is something large for the first time.
class CopyCrew {
 public:
  CopyCrew() = default;
  CopyCrew(const CopyCrew&) = delete;
  CopyCrew& operator=(const CopyCrew&) = delete;
  ~CopyCrew() { stop(); }

  void copy(char* to, const char* from, int64_t bytes);
  void stop();

 private:
  struct Share {
    char* to;
    const char* from;
    int64_t bytes;
  };
  void start();
  void loop(size_t member);

  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::vector<std::thread> threads_;
  std::vector<Share> shares_;  // by member; no bytes: none, or it is done
  size_t busy_ = 0;
  bool stopping_ = false, started_ = false;
};

}  // namespace lowrank
