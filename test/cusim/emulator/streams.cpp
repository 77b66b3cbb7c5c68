#include "streams.h"

#include <algorithm>
#include <cstring>

#include "memory.h"
#include "report.h"

namespace cusim {

Streams streams;

namespace {

void join(Seen& seen, const Seen& other) {
  if (seen.size() < other.size()) seen.resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) seen[i] = std::max(seen[i], other[i]);
}

void note(Seen& seen, uint32_t stream, uint64_t time) {
  if (seen.size() <= stream) seen.resize(stream + 1);
  seen[stream] = std::max(seen[stream], time);
}

}  // namespace

Stream* Streams::create(int device) {
  const std::lock_guard lock(mutex_);
  auto* stream = new Stream{device, static_cast<uint32_t>(streams_.size()), 0, {}, {}};
  streams_.push_back(stream);
  return stream;
}

Stream* Streams::legacy(int device) {
  {
    const std::lock_guard lock(mutex_);
    if (legacy_[device] != nullptr) return legacy_[device];
  }
  Stream* made = create(device);
  const std::lock_guard lock(mutex_);
  return legacy_[device] == nullptr ? legacy_[device] = made : legacy_[device];
}

bool Streams::pinned(const void* p) {
  const std::lock_guard lock(mutex_);
  return is_pinned(p);
}

void Streams::destroy(Stream* stream) {
  const std::lock_guard lock(mutex_);
  flush(*stream, stream->time);
  note(seen_by_host_, stream->number, stream->time);
  streams_[stream->number] = nullptr;
  delete stream;
}

void Streams::record(Event_* event, Stream* stream) {
  const std::lock_guard lock(mutex_);
  if (event->device != stream->device) throw Error("cusim: an event is recorded in a stream of another device");
  event->stream = stream->number;
  event->time = stream->time;
  event->seen = stream->seen;
  join(event->seen, seen_by_host_);
  note(event->seen, stream->number, stream->time);
}

void Streams::wait(Stream* stream, Event_* event) {
  const std::lock_guard lock(mutex_);
  if (event->stream < 0) throw Error("cusim: a stream waits for an event that was never recorded");
  flush(*event);
  join(stream->seen, event->seen);
}

void Streams::host_waits(Event_* event) {
  const std::lock_guard lock(mutex_);
  if (event->stream < 0) throw Error("cusim: the host waits for an event that was never recorded");
  flush(*event);
  join(seen_by_host_, event->seen);
  forget_what_is_over();
}

void Streams::host_waits(Stream* stream) {
  const std::lock_guard lock(mutex_);
  flush(*stream, stream->time);
  join(seen_by_host_, stream->seen);
  note(seen_by_host_, stream->number, stream->time);
  forget_what_is_over();
}

void Streams::host_waits_for_all() {
  const std::lock_guard lock(mutex_);
  for (Stream* stream : streams_) {
    if (stream == nullptr) continue;
    flush(*stream, stream->time);
    note(seen_by_host_, stream->number, stream->time);
  }
  ranges_.clear();
}

void Streams::forget_what_is_over() {
  const auto over = [this](const Stream* stream) {
    return stream == nullptr || stream->time == 0 || (stream->number < seen_by_host_.size() && seen_by_host_[stream->number] >= stream->time);
  };
  if (std::all_of(streams_.begin(), streams_.end(), over)) ranges_.clear();
}

bool Streams::ordered(const Stamp& stamp, const Stream& stream) const {
  const auto saw = [&stamp](const Seen& seen) { return stamp.stream < seen.size() && seen[stamp.stream] >= stamp.time; };
  return stamp.time == 0 || stamp.stream == stream.number || saw(stream.seen) || saw(seen_by_host_);
}

// A range ends, and another begins, at `at`.
void Streams::cut(uintptr_t at) {
  auto range = ranges_.upper_bound(at);
  if (range == ranges_.begin()) return;
  --range;
  if (range->first == at || range->second.end <= at) return;
  Range behind = range->second;
  range->second.end = at;
  ranges_[at] = std::move(behind);
}

void Streams::touch(Stream& stream, const char* what, const Access& access) {
  const auto begin = reinterpret_cast<uintptr_t>(access.begin), end = begin + access.bytes;
  const auto race = [&](const char* before) {
    throw Error(format("cusim: race between streams: %s %s %s, which another stream %s; no event that was waited for orders them", what,
                       access.write ? "writes" : "reads", access.name, before));
  };
  cut(begin), cut(end);
  const Stamp now{stream.number, stream.time};
  for (auto at = ranges_.lower_bound(begin); at != ranges_.end() && at->first < end; ++at) {
    Range& range = at->second;
    if (!ordered(range.write, stream)) race("wrote");
    if (access.write)
      for (const Stamp& read : range.reads)
        if (!ordered(read, stream)) race("reads");
    const auto own = std::find_if(range.reads.begin(), range.reads.end(), [&](const Stamp& read) { return read.stream == now.stream; });
    if (own != range.reads.end()) own->time = now.time;
    else range.reads.push_back(now);
  }
  if (access.write) {
    ranges_.erase(ranges_.lower_bound(begin), ranges_.lower_bound(end));
    ranges_[begin] = {end, now, {}};
    return;
  }
  for (uintptr_t gap = begin; gap < end;) {  // what nobody has touched yet
    const auto next = ranges_.lower_bound(gap);
    if (next != ranges_.end() && next->first == gap) {
      gap = next->second.end;
      continue;
    }
    const uintptr_t until = next == ranges_.end() ? end : std::min(end, next->first);
    ranges_[gap] = {until, {0, 0}, {now}};
    gap = until;
  }
}

void Streams::advance(Stream& stream, const char* what, const std::vector<Access>& accesses) {
  ++stream.time;
  for (const Access& access : accesses) {
    Allocation in;
    if (access.bytes == 0 || !device_memory.space().contains(access.begin) || !device_memory.find(access.begin, in)) continue;
    if (in.device != stream.device) {
      throw Error(format("cusim: %s runs on device %d, but %s is memory of device %d", what, stream.device, access.name, in.device));
    }
    touch(stream, what, access);
  }
}

void Streams::begin(Stream* stream, const char* what, const std::vector<Access>& accesses) {
  const std::lock_guard lock(mutex_);
  flush(*stream, stream->time);
  advance(*stream, what, accesses);
}

void Streams::copy_in(Stream* stream, const RowsOfBytes& to, const RowsOfBytes& from) {
  const std::lock_guard lock(mutex_);
  device_memory.require_range(to.begin, to.extent(), "copy to the device");
  advance(*stream, "a copy to the device", {{to.begin, to.extent(), true, "memory"}});
  stream->pending.push_back({to, from, stream->time});
  if (!is_pinned(from.begin)) flush(*stream, stream->time);
}

void Streams::flush(Stream& stream, uint64_t time) {
  for (; !stream.pending.empty() && stream.pending.front().time <= time; stream.pending.pop_front()) {
    const auto& [to, from, when] = stream.pending.front();
    for (size_t i = 0; i < to.rows; ++i) device_memory.copy_in(const_cast<char*>(to.row(i)), from.row(i), to.width);
  }
}

void Streams::flush(const Event_& event) {
  Stream* stream = streams_[static_cast<size_t>(event.stream)];
  if (stream != nullptr) flush(*stream, event.time);
}

void Streams::pin(void* memory, size_t bytes) {
  const std::lock_guard lock(mutex_);
  pinned_[reinterpret_cast<uintptr_t>(memory)] = bytes;
}

void Streams::unpin(void* memory) {
  host_waits_for_all();
  const std::lock_guard lock(mutex_);
  pinned_.erase(reinterpret_cast<uintptr_t>(memory));
}

bool Streams::is_pinned(const void* p) const {
  const auto at = reinterpret_cast<uintptr_t>(p);
  const auto next = pinned_.upper_bound(at);
  return next != pinned_.begin() && at < std::prev(next)->first + std::prev(next)->second;
}

}  // namespace cusim
