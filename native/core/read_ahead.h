// Brings what queued work will read to where it reads it before the stream gets there, in the order in which it will, by a thread of its
// own; where there is no room for all, what is needed last goes. The system's own choice for mapped files, the least recently used, is
// close to the worst for a model that is gone through again and again.
//
// Work waits until its weights are there: pages that the kernels would have to fetch come one small piece at a time.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "failure.h"
#include "reading_plan.h"
#include "trace.h"

namespace lowrank {

// Where weights are brought to: the system's memory (page_cache.h) or a part of a device's (weight_slots.h).
class Destination {
 public:
  enum class Outcome { there, no_room, failed };
  // Lets go of one more; false when there is none that may go.
  using MoreRoom = std::function<bool(Extent& leaving)>;

  virtual ~Destination() = default;
  virtual bool wanted() const = 0;  // false: work finds what it needs without
  virtual void check(Failure& failure) = 0;  // the stream, before work that reads
  // The helper's thread. Bytes that may be there at once.
  virtual int64_t budget() const = 0;
  // First what is leaving leaves. no_room: in pieces only; it is tried again when the stream has come further.
  virtual Outcome bring(const ReadingPlan::Reading& reading, const MoreRoom& more_room) = 0;
};

class ReadAhead {
 public:
  ReadAhead(Destination& destination, Trace& trace) : destination_(destination), trace_(trace) {}
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  ~ReadAhead() { stop(); }
  void stop();

  // The owner's thread, for work that is about to be queued: what it reads, in order. The ticket for reach(), or 0 for no need of it.
  int64_t expect(const std::vector<Extent>& reads);
  void end_batch();  // the owner is going to wait for the stream

  // The stream, before the work: waits until what it reads is there.
  void reach(int64_t ticket, Failure& failure);

 private:
  bool start();
  void loop();
  Destination::Outcome bring(const ReadingPlan::Reading& reading);

  Destination& destination_;
  Trace& trace_;
  std::mutex mutex_;
  bool off_ = false, batch_ended_ = true, stopping_ = false;
  ReadingPlan plan_;
  std::condition_variable wake_, arrived_;
  std::thread thread_;
};

}  // namespace lowrank
