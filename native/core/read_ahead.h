// Brings the mapped weights that queued work will read into memory before the stream gets there, in the order in which it will, by a
// thread of its own. Where all mapped weights don't fit into memory it also lets go of those that are needed last: the system's
// own choice, the least recently used, is close to the worst for a model that is gone through again and again.
//
// Work waits until its weights are there: pages that the kernels would have to fetch come one small piece at a time.
#pragma once
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "../ops/visitors.h"
#include "failure.h"
#include "reading_plan.h"
#include "trace.h"

namespace lowrank {

class ReadAhead {
 public:
  explicit ReadAhead(Trace& trace);  // LOWRANK_READ_AHEAD: off, or a number of bytes
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  ~ReadAhead();

  // The owner's thread. A file whose bytes work may read.
  void add(const std::shared_ptr<MappedFile>& file);
  // The owner's thread, for work that is about to be queued: what it reads, in order; what lies in no mapped file is passed over.
  // The ticket for reach(), or 0 for no need of it.
  int64_t expect(const WeightBytes& reads);
  void end_batch();  // the owner is going to wait for the stream

  // The stream, before the work: waits until what it reads is there. Fails if a file has become shorter.
  void reach(int64_t ticket, Failure& failure);

 private:
  std::shared_ptr<MappedFile> file_of(const void* begin) const;
  bool start();
  void check_files(Failure& failure) const;
  void loop();
  void read(const Extent& extent, const std::vector<Extent>& leaving);
  static int64_t ask(const Extent& extent, int64_t from, int64_t to);
  void bring(const Extent& extent, int64_t asked);
  void tell(const char* what, const Extent& extent, int64_t begin);
  void look_at_memory();

  Trace& trace_;
  bool off_ = false;
  int64_t fixed_budget_ = 0;  // 0: what the system has

  mutable std::mutex mutex_;
  std::map<const char*, std::weak_ptr<MappedFile>> files_;  // by begin
  int64_t mapped_bytes_ = 0;
  bool batch_ended_ = true;
  ReadingPlan plan_;
  bool stopping_ = false;
  std::condition_variable wake_, arrived_;
  std::thread thread_;

  // The helper's.
  int64_t budget_ = INT64_MAX, looked_ns_ = 0;
  bool can_bring_ = true;
};

}  // namespace lowrank
