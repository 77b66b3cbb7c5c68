// Frozen weights that take turns in a part of a device's memory that is too small for all: each is brought from its mapped file before the
// work that reads it, beside the work that comes before.
#pragma once
#include <atomic>
#include <mutex>

#include "frozen_weight.h"
#include "pool.h"
#include "read_ahead.h"

namespace lowrank {

class WeightSlots;

// One of them. Whoever queues work that reads it keeps it until the work has run.
class PagedWeight {
 public:
  PagedWeight(WeightSlots& slots, FrozenWeight frozen) : slots_(slots), frozen_(std::move(frozen)) {}
  PagedWeight(const PagedWeight&) = delete;
  PagedWeight& operator=(const PagedWeight&) = delete;
  ~PagedWeight();

  const FrozenWeight& frozen() const { return frozen_; }

 private:
  friend class WeightSlots;
  WeightSlots& slots_;
  FrozenWeight frozen_;
  void* place_ = nullptr;
  void* brought_ = nullptr;  // mark on the lane of copies, behind its last copy
  void* used_ = nullptr;     // mark on the lane of work, behind the last work that read it
  bool was_used_ = false;    // since it was brought
  Failure failure_{};        // why it has no place
};

class WeightSlots : public Destination {
 public:
  // `bytes`: what they may take together.
  WeightSlots(const Backend* backend, void* device, Trace& trace, int64_t bytes);
  void clear();  // gives back what isn't the device pool's; all weights are gone, and so is the helper

  // The owner's thread. `memory`: where they are put, of so many bytes, from now on.
  int64_t bytes() const { return bytes_; }
  void choose(int64_t bytes) { bytes_ = bytes; }  // before the first weight
  bool opened() const { return opened_; }
  void open(void* memory);
  std::shared_ptr<PagedWeight> add(FrozenWeight frozen);  // nullptr: no memory
  static Extent extent_of(const std::shared_ptr<PagedWeight>& weight);

  // The stream's thread, behind reach() and around the work: the weight where it is. Fails if it couldn't be brought.
  Weight begin_use(PagedWeight& weight, Failure& failure);
  void end_use(PagedWeight& weight, Failure& failure);

  // Any thread: bytes of files that have been brought so far.
  int64_t brought_bytes() const { return brought_bytes_; }

  bool wanted() const override { return true; }
  void check(Failure&) override {}
  int64_t budget() const override { return bytes_; }
  Outcome bring(const ReadingPlan::Reading& reading, const MoreRoom& more_room) override;

 private:
  friend class PagedWeight;
  // What a weight that is gone leaves behind.
  struct Left {
    void* place;
    void* brought;
    void* used;
    bool was_used;
  };
  void leave(PagedWeight& weight);
  void vacate(const Left& left, Failure& failure);
  void clear_up();
  void evict(PagedWeight& weight);
  bool fill(PagedWeight& weight, void* place);
  void settle(PagedWeight& weight, void* place, const Failure& failure);
  void tell(const char* what, const PagedWeight& weight, int64_t begin);

  const Backend* backend_;
  void* device_;
  Trace& trace_;
  int64_t bytes_;
  bool opened_ = false;
  Pool places_;  // the helper's, once it is opened
  Staging staging_;
  std::mutex mutex_;  // of what is left, and of each weight's place and failure
  std::vector<Left> left_;
  std::atomic<int64_t> brought_bytes_{0};
};

}  // namespace lowrank
