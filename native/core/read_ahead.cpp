#include "read_ahead.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "memory_limit.h"

namespace lowrank {

namespace {

constexpr int64_t kSmall = int64_t{1} << 30;  // mapped files below this are left to the system
constexpr int64_t kPiece = 8 << 20;           // asked for at once
constexpr int64_t kUnderWay = 64 << 20;       // asked for and not waited for: disks want many requests
constexpr int64_t kLookEvery = 1000000000;    // nanoseconds between two looks at how much memory there is

// What must stay free beside the weights: the rest of the process still grows in its first step.
int64_t reserve_of(int64_t available) { return std::max<int64_t>(available / 16, 256 << 20); }

}  // namespace

ReadAhead::ReadAhead(Trace& trace) : trace_(trace) {
  const char* chosen = getenv("LOWRANK_READ_AHEAD");
  if (chosen == nullptr || *chosen == 0) return;
  off_ = strcmp(chosen, "off") == 0;
  fixed_budget_ = off_ ? 0 : atoll(chosen);
  if (fixed_budget_ > 0) budget_ = fixed_budget_;
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  arrived_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ReadAhead::add(const std::shared_ptr<MappedFile>& file) {
  const std::lock_guard lock(mutex_);
  std::weak_ptr<MappedFile>& slot = files_[file->data()];
  if (slot.lock() == file) return;
  slot = file;
  mapped_bytes_ = 0;
  for (auto at = files_.begin(); at != files_.end();) {
    const std::shared_ptr<MappedFile> live = at->second.lock();
    if (live != nullptr) mapped_bytes_ += live->bytes();
    at = live != nullptr ? std::next(at) : files_.erase(at);
  }
}

std::shared_ptr<MappedFile> ReadAhead::file_of(const void* begin) const {
  auto after = files_.upper_bound(static_cast<const char*>(begin));
  if (after == files_.begin()) return nullptr;
  std::shared_ptr<MappedFile> file = std::prev(after)->second.lock();
  return file != nullptr && begin < file->data() + file->bytes() ? file : nullptr;
}

bool ReadAhead::start() {
  if (off_ || (fixed_budget_ == 0 && mapped_bytes_ < kSmall)) return false;
  if (thread_.joinable()) return true;
  try {
    thread_ = std::thread([this] { loop(); });
  } catch (const std::system_error&) {
    off_ = true;  // the system gives no more threads: then it reads by itself
  }
  return !off_;
}

int64_t ReadAhead::expect(const WeightBytes& reads) {
  if (reads.count() == 0) return 0;
  const std::lock_guard lock(mutex_);
  if (files_.empty()) return 0;
  const bool first = std::exchange(batch_ended_, false);
  if (!start()) return first ? -1 : 0;
  const int64_t ticket = plan_.add_work();
  for (int i = 0; i < reads.count(); ++i) {
    const auto& [begin, bytes] = reads.parts()[i];
    if (auto file = file_of(begin)) plan_.add({static_cast<const char*>(begin), bytes, std::move(file)});
  }
  wake_.notify_one();
  return ticket;
}

void ReadAhead::end_batch() {
  const std::lock_guard lock(mutex_);
  batch_ended_ = true;
  plan_.end_batch();
}

void ReadAhead::check_files(Failure& failure) const {
  for (const auto& [begin, slot] : files_) {
    const std::shared_ptr<MappedFile> file = slot.lock();
    if (file == nullptr || file->whole()) continue;
    failure.set("ERR_FILE", "%s: must keep its length while it is mapped (it had %lld bytes and was made shorter)", file->path().c_str(),
                static_cast<long long>(file->bytes()));
    return;
  }
}

void ReadAhead::reach(int64_t ticket, Failure& failure) {
  std::unique_lock lock(mutex_);
  check_files(failure);
  if (ticket < 0) return;
  plan_.reach(ticket);
  wake_.notify_one();
  if (plan_.ready(ticket)) return;
  const int64_t begin = Trace::now();
  arrived_.wait(lock, [this, ticket] { return stopping_ || plan_.ready(ticket); });
  if (trace_.on()) trace_.op("wait_for_weights", "", begin, Trace::now());
}

void ReadAhead::look_at_memory() {
  const int64_t now = Trace::now();
  if (fixed_budget_ > 0 || now - looked_ns_ < kLookEvery) return;
  looked_ns_ = now;
  const int64_t available = available_memory();
  budget_ = available < 0 ? INT64_MAX : std::max<int64_t>(0, available - reserve_of(available));
}

void ReadAhead::loop() {
  std::unique_lock lock(mutex_);
  ReadingPlan::Reading reading;
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || plan_.take(budget_, reading); });
    if (stopping_) return;
    if (!reading.fresh && reading.extent.file != nullptr) {
      lock.unlock();
      look_at_memory();
      read(reading.extent, reading.leaving);
      lock.lock();
    }
    plan_.done(reading);
    arrived_.notify_all();
  }
}

void ReadAhead::read(const Extent& extent, const std::vector<Extent>& leaving) {
  // What is greater than the memory would push itself out again before its use.
  if (extent.bytes > budget_ / 2) return;
  int64_t begin = Trace::now();
  const int64_t asked = ask(extent, 0, kUnderWay);  // the disk works while the system lets go
  for (const Extent& other : leaving) {
    const int64_t since = Trace::now();
    other.file->let_go(other.begin, other.bytes);
    tell("let_go", other, since);
  }
  bring(extent, asked);
  tell("read_ahead", extent, begin);
}

void ReadAhead::tell(const char* what, const Extent& extent, int64_t begin) {
  if (!trace_.on()) return;
  const std::string name = extent.file->path().substr(extent.file->path().rfind('/') + 1);
  std::string text = std::to_string(extent.begin - extent.file->data()) + "+" + std::to_string(extent.bytes) + " of ";
  for (const char c : name)
    if (c != '"' && c != '\\' && c >= ' ') text += c;  // as JSON takes it
  trace_.op(what, text.c_str(), begin, Trace::now(), 2);
}

int64_t ReadAhead::ask(const Extent& extent, int64_t from, int64_t to) {
  for (; from < std::min(to, extent.bytes); from += kPiece) extent.file->ask_for(extent.begin + from, std::min(kPiece, extent.bytes - from));
  return from;
}

void ReadAhead::bring(const Extent& extent, int64_t asked) {
  for (int64_t at = 0; at < extent.bytes; at += kPiece) {
    asked = ask(extent, asked, at + kUnderWay);
    can_bring_ = can_bring_ && extent.file->bring(extent.begin + at, std::min(kPiece, extent.bytes - at));
  }
}

}  // namespace lowrank
