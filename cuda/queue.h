// What the host code of an op works with: the device's stream, scratch memory, and two ways to say that the op can't go on:
// at once (fail), or when a kernel finds out (watch).
#pragma once
#include <stdint.h>

#include <vector>

#include "copies.h"

namespace lowrank::cuda {

// A place in device memory where a kernel reports rows whose index is out of range; the first row counts.
using Report = unsigned long long;
constexpr Report kNothing = ~Report{0};

// outside: an index that isn't in [0, limit); rising: an element of offsets that don't rise from 0 to limit.
enum class Says : int32_t { outside, rising };

// What was found, in which op: "rope_inplace: position".
struct Watch {
  const char* what;
  int64_t limit;
  Says says = Says::outside;
};

class Queue {
 public:
  // nullptr: `failure` tells why.
  // `stream` is the caller's, or nullptr: one of its own.
  static Queue* open(int device, void* stream, Failure& failure);
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  ~Queue();

  cudaStream_t stream() const { return stream_; }
  int multiprocessors() const { return multiprocessors_; }
  int device() const { return device_; }

  // 256-byte aligned memory that belongs to the running op. nullptr: the op has been failed.
  void* scratch(int64_t bytes);
  template <class T>
  T* scratch_for(int64_t count) {
    return static_cast<T*>(scratch(count * static_cast<int64_t>(sizeof(T))));
  }
  // 256-byte aligned memory that a product may use until the op's next product. nullptr: the op has been failed.
  void* workspace(int64_t bytes);
  __attribute__((format(printf, 3, 4))) void fail(const char* code, const char* format, ...);
  // For kernels that look indices up. The failure comes with the next synchronize or download.
  Report* watch(const Watch& watch);
  // All reports since the last synchronize: an optimizer behind a failure must not run.
  struct Reports {
    const Report* data;
    int64_t count;
  };
  Reports reports() const { return {reports_, static_cast<int64_t>(watches_.size())}; }

  // Where kernels of the running op find the number of its step: in its contract (nullptr), or in a word that `set_steps` writes before a
  // graph of the op is launched. `steps_asked` counts who wanted to know.
  const uint32_t* step_at();
  int64_t steps_asked() const { return steps_asked_; }
  void find_step_in_contract() { step_at_ = nullptr; }
  void find_step_in_word(int64_t word) { step_at_ = steps_ + word; }
  void set_steps(const std::vector<uint32_t>& steps);

  // Raised when scratch or workspace moves: what was captured before points to where it was.
  int64_t generation() const { return generation_; }
  // Times that there was no memory for scratch or workspace: what a capture finds may be otherwise at the next.
  int64_t shortages() const { return shortages_; }
  // Watches since the last synchronize. An op that is run again from a graph finds its own at the same places, if `repeat` adds them.
  size_t watched() const { return watches_.size(); }
  void make_room_for_watches(size_t count, Failure* failure);
  std::vector<Watch> take_back_watches(size_t from);
  void repeat(const std::vector<Watch>& watches) { watches_.insert(watches_.end(), watches.begin(), watches.end()); }

  Copies& copies(Lane lane) { return copies_[static_cast<int>(lane)]; }
  OwnMemory& own_memory() { return memory_; }

  void begin(Failure* failure);  // of an op
  void end();                    // takes launch failures; an op of the same needs finds them met from now on
  void synchronize(Failure* failure);
  void download(void* to, const void* from, int64_t bytes, Failure* failure);
  void upload(void* to, const void* from, int64_t bytes, Failure* failure);

 private:
  Queue() = default;
  bool settle(Failure* failure);
  bool grow(int64_t bytes, Failure* failure);
  cudaError_t claim(void** memory, int64_t bytes);

  OwnMemory memory_;
  cudaStream_t stream_ = nullptr;
  bool owns_stream_ = false;
  int device_ = 0, multiprocessors_ = 1;
  Failure* failure_ = nullptr;
  char* scratch_ = nullptr;
  int64_t scratch_bytes_ = 0, scratch_used_ = 0, op_bytes_ = 0;  // of the block; of it, of all blocks, what the op has taken
  void* workspace_ = nullptr;
  int64_t workspace_bytes_ = 0;
  int64_t generation_ = 0, shortages_ = 0;
  std::vector<void*> outgrown_;  // scratch that this op still uses
  Report* reports_ = nullptr;    // [kWatches]
  std::vector<Watch> watches_;
  uint32_t* steps_ = nullptr;  // [kMostSteps]
  const uint32_t* step_at_ = nullptr;
  int64_t steps_asked_ = 0;
  Copies copies_[2]{Copies(memory_), Copies(memory_)};  // by lane
};

// False: the call failed, and `failure` says how.
bool succeeded(cudaError_t error, const char* what, Failure* failure);

}  // namespace lowrank::cuda
