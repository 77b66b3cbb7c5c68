// What happened before what, inside a block and between the blocks of a launch: vector clocks with one entry a warp.
// Time is a counter of the block that every synchronisation advances.
#pragma once
#include <cstdint>
#include <vector>

namespace cusim {

constexpr unsigned kMaxWarps = 32;

// One access: by whom, when.
struct Event {
  uint32_t block = 0;  // serial number over all launches; 0: never
  uint32_t time = 0;
  uint16_t thread = 0;

  bool operator==(const Event&) const = default;
};

// Per warp, the time before which its events have been seen.
struct Seen {
  uint32_t before[kMaxWarps] = {};
};

class Clocks {
 public:
  // Blocks of earlier launches lie before `first_block` and are ordered before everything.
  void begin_launch();
  void begin_block(unsigned warps);

  uint32_t block() const { return block_; }
  uint32_t now() const { return now_; }

  // A barrier or a whole-warp synchronisation of the warps in `warps` (a bit mask): each sees what any of them saw or did, and what others
  // left there.
  void join(uint32_t warps, const Seen& left = {});
  // The warp leaves what it saw or did at a barrier, and goes on.
  void leave(unsigned warp, Seen& left);
  // __threadfence of a thread: what it sees and did may be published by its next atomic.
  void fence(uint16_t thread);
  void atomic(uint16_t thread);

  // True if `event` is certain to happen before what `thread` does now.
  bool ordered(const Event& event, uint16_t thread) const;
  // The same for events of every warp in `warps` of this block, none later than `time`.
  bool ordered(uint32_t warps, uint32_t time, uint16_t thread) const;

 private:
  // What one block has published to the others: per warp, the time before which its events may be relied upon.
  struct Published {
    uint32_t seen[kMaxWarps] = {};
    uint16_t self = 0;       // the thread that fenced, whose own events count up to `self_time`
    uint32_t self_time = 0;
  };
  bool published(const Event& event) const;

  uint32_t block_ = 0, first_block_ = 0, now_ = 1;
  unsigned warps_ = 0;
  uint32_t seen_[kMaxWarps][kMaxWarps] = {};
  bool after_atomic_[kMaxWarps] = {};  // the warp has done an atomic: a fence now acquires
  bool acquired_[kMaxWarps] = {};      // the warp sees what other blocks have published
  Published fenced_;                   // by the last fence of this block
  bool has_fenced_ = false;
  std::vector<Published> published_;   // by block - first_block_; of blocks that published nothing: zeros
};

}  // namespace cusim
