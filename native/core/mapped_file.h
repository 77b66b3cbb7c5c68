// A file mapped for reading. Weights stay in it; the page cache is the only copy.
#pragma once
#include <stdint.h>

#include <memory>
#include <string>
#include <utility>

#include "failure.h"

namespace lowrank {

class MappedFile {
 public:
  static std::shared_ptr<MappedFile> open(const std::string& path, Failure& failure);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  const char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

  // False, and a failure: the file was made shorter since it was mapped, and reading beyond its end would end the process.
  bool check_whole(Failure& failure) const;
  // The rest is about [begin, begin + bytes) inside the mapping, and changes nothing but what is in memory.
  // Starts reading what isn't there; doesn't wait for it. Where the system reads far ahead of bring() by itself there is no need of it,
  // and then it does nothing: the system would read into single pages, which cost ten times as much to fill, map and give back.
  void ask_for(const char* begin, int64_t bytes) const;
  // Waits until all of it is there and maps its pages. False: the system has no call for that.
  bool bring(const char* begin, int64_t bytes) const;
  // Gives the memory back at once: of whole pages, unless somebody else has them mapped.
  void let_go(const char* begin, int64_t bytes) const;

 private:
  MappedFile(std::string path, int fd, char* data, int64_t bytes, bool far)
      : path_(std::move(path)), fd_(fd), data_(data), bytes_(bytes), far_(far) {}
  std::string path_;
  int fd_;
  char* data_;
  int64_t bytes_;
  bool far_;  // the system's read-ahead for this file's disk is long
};

// Writes header and pieces to `path` and flushes them to the disk.
struct Piece {
  const void* data;
  int64_t bytes;
};
void write_file(const std::string& path, const Piece* pieces, size_t count, Failure& failure);

}  // namespace lowrank
