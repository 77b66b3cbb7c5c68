#include "page_cache.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <string>

#include "memory_limit.h"

namespace lowrank {

namespace {

constexpr int64_t kSmall = int64_t{1} << 30;  // mapped files below this are left to the system
constexpr int64_t kPiece = 8 << 20;           // asked for at once
constexpr int64_t kUnderWay = 64 << 20;       // asked for and not waited for: disks want many requests
constexpr int64_t kLookEvery = 1000000000;    // nanoseconds between two looks at how much memory there is

// What must stay free beside the weights: the rest of the process still grows in its first step.
int64_t reserve_of(int64_t available) { return std::max<int64_t>(available / 16, 256 << 20); }

int64_t what_the_system_has() {
  const int64_t available = available_memory();
  return available < 0 ? INT64_MAX : std::max<int64_t>(0, available - reserve_of(available));
}

const MappedFile& file_of(const Extent& extent) { return *static_cast<const MappedFile*>(extent.owner.get()); }
const char* begin_of(const Extent& extent) { return static_cast<const char*>(extent.begin); }

}  // namespace

PageCache::PageCache(Trace& trace, int64_t budget) : trace_(trace), fixed_budget_(budget) {
  const char* chosen = getenv("LOWRANK_READ_AHEAD");
  if (fixed_budget_ == 0 && chosen != nullptr && *chosen != 0) {
    off_ = strcmp(chosen, "off") == 0;
    fixed_budget_ = off_ ? 0 : atoll(chosen);
  }
  if (fixed_budget_ > 0) budget_ = fixed_budget_;
}

void PageCache::add(const std::shared_ptr<MappedFile>& file) {
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

std::shared_ptr<MappedFile> PageCache::containing(const void* begin) const {
  auto after = files_.upper_bound(static_cast<const char*>(begin));
  if (after == files_.begin()) return nullptr;
  std::shared_ptr<MappedFile> file = std::prev(after)->second.lock();
  return file != nullptr && begin < file->data() + file->bytes() ? file : nullptr;
}

std::vector<Extent> PageCache::extents_of(const WeightBytes& reads) const {
  std::vector<Extent> extents;
  const std::lock_guard lock(mutex_);
  for (int i = 0; i < reads.count(); ++i) {
    const auto& [begin, bytes] = reads.parts()[i];
    if (auto file = containing(begin)) extents.push_back({begin, bytes, std::move(file)});
  }
  return extents;
}

bool PageCache::wanted() const {
  const std::lock_guard lock(mutex_);
  return !off_ && (fixed_budget_ > 0 || mapped_bytes_ >= kSmall);
}

void PageCache::check(Failure& failure) {
  const std::lock_guard lock(mutex_);
  for (const auto& [begin, slot] : files_) {
    const std::shared_ptr<MappedFile> file = slot.lock();
    if (file != nullptr && !file->check_whole(failure)) return;
  }
}

void PageCache::look_at_memory() {
  const int64_t now = Trace::now();
  if (fixed_budget_ > 0 || now - looked_ns_ < kLookEvery) return;
  looked_ns_ = now;
  budget_ = what_the_system_has();
}

int64_t PageCache::room() const {
  if (!wanted()) return 0;
  return fixed_budget_ > 0 ? fixed_budget_ : what_the_system_has();
}

Destination::Outcome PageCache::bring(const ReadingPlan::Reading& reading, const MoreRoom&) {
  look_at_memory();
  read(file_of(reading.extent), reading.extent, reading.leaving);
  return Outcome::there;
}

void PageCache::read(const MappedFile& file, const Extent& extent, const std::vector<Extent>& leaving) {
  // What is greater than the memory would push itself out again before its use.
  if (extent.bytes > budget_ / 2) return;
  int64_t begin = Trace::now();
  const int64_t asked = ask(file, extent, 0, kUnderWay);  // the disk works while the system lets go
  for (const Extent& other : leaving) {
    const int64_t since = Trace::now();
    file_of(other).let_go(begin_of(other), other.bytes);
    tell("let_go", other, since);
  }
  bring_pieces(file, extent, asked);
  tell("read_ahead", extent, begin);
}

std::string told(const MappedFile& file, const char* begin, int64_t bytes) {
  const std::string name = file.path().substr(file.path().rfind('/') + 1);
  std::string text = std::to_string(begin - file.data()) + "+" + std::to_string(bytes) + " of ";
  for (const char c : name)
    if (c != '"' && c != '\\' && c >= ' ') text += c;  // as JSON takes it
  return text;
}

void PageCache::tell(const char* what, const Extent& extent, int64_t begin) {
  if (trace_.on()) trace_.op(what, told(file_of(extent), begin_of(extent), extent.bytes).c_str(), begin, Trace::now(), 2);
}

int64_t PageCache::ask(const MappedFile& file, const Extent& extent, int64_t from, int64_t to) {
  for (; from < std::min(to, extent.bytes); from += kPiece) file.ask_for(begin_of(extent) + from, std::min(kPiece, extent.bytes - from));
  return from;
}

void PageCache::bring_pieces(const MappedFile& file, const Extent& extent, int64_t asked) {
  for (int64_t at = 0; at < extent.bytes; at += kPiece) {
    asked = ask(file, extent, asked, at + kUnderWay);
    can_bring_ = can_bring_ && file.bring(begin_of(extent) + at, std::min(kPiece, extent.bytes - at));
  }
}

}  // namespace lowrank
