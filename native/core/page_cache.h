// Mapped files in the system's memory, which is where weights are brought to when the device reads them there.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "../ops/visitors.h"
#include "mapped_file.h"
#include "read_ahead.h"

namespace lowrank {

class PageCache : public Destination {
 public:
  // `budget`: bytes that weights may take; 0: LOWRANK_READ_AHEAD (off, or a number of bytes), else what the system has.
  PageCache(Trace& trace, int64_t budget);

  // The owner's thread. A file whose bytes work may read.
  void add(const std::shared_ptr<MappedFile>& file);
  // What lies in these files of what work reads; the rest is passed over.
  std::vector<Extent> extents_of(const WeightBytes& reads) const;

  // Bytes that weights may take at this moment; 0: they are left to the system.
  int64_t room() const;

  bool wanted() const override;
  void check(Failure& failure) override;  // fails if a file has become shorter
  int64_t budget() const override { return budget_; }
  Outcome bring(const ReadingPlan::Reading& reading, const MoreRoom& more_room) override;

 private:
  std::shared_ptr<MappedFile> containing(const void* begin) const;
  void read(const MappedFile& file, const Extent& extent, const std::vector<Extent>& leaving);
  static int64_t ask(const MappedFile& file, const Extent& extent, int64_t from, int64_t to);
  void bring_pieces(const MappedFile& file, const Extent& extent, int64_t asked);
  void tell(const char* what, const Extent& extent, int64_t begin);
  void look_at_memory();

  Trace& trace_;
  bool off_ = false;
  int64_t fixed_budget_ = 0;  // 0: what the system has

  mutable std::mutex mutex_;
  std::map<const char*, std::weak_ptr<MappedFile>> files_;  // by begin
  int64_t mapped_bytes_ = 0;

  // The helper's.
  int64_t budget_ = INT64_MAX, looked_ns_ = 0;
  bool can_bring_ = true;
};

// "8192+4096 of model.safetensors": what a trace says of bytes of a file.
std::string told(const MappedFile& file, const char* begin, int64_t bytes);

}  // namespace lowrank
