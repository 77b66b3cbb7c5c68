// Steps repeat: the same ops on the same memory, with another learning rate. So ops are gathered, some at a time, and a run of them that comes
// again is captured as a CUDA graph and from then on launched in one call. Each time it is looked up by what its ops are and where their operands
// lie, so that a step which differs needs no help: its ops are launched one by one.
#pragma once
#include <stdint.h>

#include <atomic>
#include <unordered_map>
#include <vector>

#include "queue.h"
#include "table.h"

namespace lowrank::cuda {

class Graphs {
 public:
  // Off: each op is launched when it comes.
  Graphs(Queue& queue, bool on) : queue_(queue), on_(on) {}
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;
  ~Graphs() { forget(); }

  void add(int32_t op, const void* contract, Failure* failure);
  // What was gathered goes to the stream: before anything else does, and before anybody waits. The first op that fails ends it.
  void flush(Failure* failure);
  // For any thread.
  GraphCounts counts() const;

 private:
  // A run of ops that was seen before; `exec` is what was captured of it.
  struct Known {
    cudaGraphExec_t exec = nullptr;
    int64_t generation = 0;       // of the queue's memory, which it points into
    std::vector<int64_t> values;  // that it was captured with
    std::vector<Watch> watches;
    bool reads_steps = false;
    uint64_t used = 0;
    bool refused = false;  // it can't be captured, whatever memory there is
  };
  struct Hash {
    size_t operator()(const std::vector<int64_t>& key) const;
  };

  Known* look_up();
  bool replay(Failure* failure);
  bool made_current(Known& known);
  cudaGraph_t capture(Known& known);
  int64_t ops_that_differ(const Known& known) const;
  enum class StepsLie { in_contracts, in_words };
  void run_each(StepsLie steps, Failure* failure);
  void make_room();
  void forget();

  Queue& queue_;
  bool on_;
  Gathered gathered_;
  std::unordered_map<std::vector<int64_t>, Known, Hash> known_;
  uint64_t flushes_ = 0;
  std::atomic<int64_t> ops_{0}, replayed_{0}, captured_{0}, updated_{0}, refused_{0};
  std::atomic<const char*> why_{""};
};

}  // namespace lowrank::cuda
