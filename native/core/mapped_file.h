// A file mapped for reading. Weights stay in it; the page cache is the only copy.
#pragma once
#include <stdint.h>

#include <memory>
#include <string>

#include "failure.h"

namespace lowrank {

class MappedFile {
 public:
  static std::shared_ptr<MappedFile> open(const std::string& path, Failure& failure);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  MappedFile(char* data, int64_t bytes) : data_(data), bytes_(bytes) {}
  char* data_;
  int64_t bytes_;
};

// Writes header and pieces to `path` and flushes them to the disk.
struct Piece {
  const void* data;
  int64_t bytes;
};
void write_file(const std::string& path, const Piece* pieces, size_t count, Failure& failure);

}  // namespace lowrank
