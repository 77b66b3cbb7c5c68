// One thread that runs queued work in order. The JS thread decides and enqueues; it never waits here.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "backend.h"

namespace lowrank {

// The first failure of a stream, with where it happened. Work queued behind it is skipped until somebody takes it.
struct StreamFailure {
  Failure failure{};
  const char* op = "";
  int64_t sequence = 0;
};

class Stream {
 public:
  // Work that computes is skipped once the stream has failed; work that ends something (a fence, an unmap) always runs.
  enum class When { healthy, always };
  using Work = std::function<void(Failure&)>;

  Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { stop(); }

  void enqueue(const char* op, When when, Work work);
  // Drops what is queued (work marked `always` still runs, also what comes later: then at once), finishes what is running, joins. Idempotent.
  void stop();
  // Called by work on the stream thread (a fence): the failure so far, which is thereby taken.
  StreamFailure take_failure();
  int64_t queued() const { return sequence_; }

 private:
  struct Item {
    const char* op;
    When when;
    int64_t sequence;
    Work work;
  };
  void loop();
  void run(Item& item);
  void drop(const Item& item);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Item> queue_;
  bool stopping_ = false;
  bool stopped_ = false;
  int64_t sequence_ = 0;
  StreamFailure failed_;  // stream thread only
  std::thread thread_;
};

}  // namespace lowrank
