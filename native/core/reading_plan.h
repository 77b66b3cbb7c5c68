// What queued work will read, in order, and which of what is there should go where there is no room for all. Knows neither threads nor
// system calls, nor where "there" is. Places are counted by tickets: the n-th piece of work that reads weights has ticket n.
#pragma once
#include <stdint.h>

#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

namespace lowrank {

// A weight, or a part of one, and what its owner keeps.
struct Extent {
  const void* begin;  // names it
  int64_t bytes;
  std::shared_ptr<void> owner;  // nullptr: it is gone
};

class ReadingPlan {
 public:
  // The host will wait for what was queued so far. What it queues next is likely to be the same again.
  void end_batch() { batch_ended_ = true; }
  // A piece of work is about to be queued; its ticket.
  int64_t add_work();
  void add(const Extent& extent);  // what that work reads

  // The stream has come to this work; all before it is done.
  void reach(int64_t ticket);
  // Whether all that the work reads has been read.
  bool ready(int64_t ticket) const { return read_ == queued_.size() || queued_[read_].ticket > ticket; }

  struct Reading {
    Extent extent;
    size_t known;
    bool held;   // it should still be there
    bool fresh;  // it was read a moment ago
    std::vector<Extent> leaving;
  };
  // What to read next, and what must go so that all together is at most `budget` bytes: what isn't queued (of that, what its last
  // batch used last), then what is queued last. False: nothing is queued, or all that is held comes first.
  bool take(int64_t budget, Reading& reading);
  // One more that must go, where room for `reading` is there but in pieces. False: all that is held comes first.
  bool take_more_room(const Reading& reading, Extent& leaving);
  void done(const Reading& reading, bool good = true);  // not good: it isn't there, but waiting won't help
  int64_t reached() const { return reached_; }

 private:
  struct Known {
    const void* begin;
    int64_t bytes;
    std::weak_ptr<void> owner;
    bool held;
    int64_t looked;            // read_bytes_ when it was last read
    std::deque<int64_t> uses;  // tickets, of which those behind the stream are dropped
    int64_t batch, place;      // its first use in the last batch that used it, from that batch's begin
  };
  struct Queued {
    int64_t ticket;
    size_t known;
  };
  size_t known_of(const Extent& extent);
  bool make_room(int64_t bytes, const Queued& coming, std::vector<Extent>& leaving);
  Known* last_behind(int64_t ticket);
  int64_t next_use(Known& known) const;
  void drop_past(Known& known) const;
  void forget(Known& known);

  std::vector<Known> known_;
  std::unordered_map<const void*, size_t> by_begin_;
  std::deque<Queued> queued_;  // the first read_ of them are read, and their use is not over
  size_t read_ = 0;
  int64_t ticket_ = 0, reached_ = 0;
  int64_t batch_ = 0, batch_begin_ = 0;
  bool batch_ended_ = true;
  int64_t held_bytes_ = 0, read_bytes_ = 0;
};

}  // namespace lowrank
