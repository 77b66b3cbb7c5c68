#include "mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace lowrank {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

bool write_all(int fd, const char* data, int64_t bytes) {
  while (bytes > 0) {
    const ssize_t n = write(fd, data, static_cast<size_t>(bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    bytes -= n;
  }
  return true;
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path, Failure& failure) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a pipe must not hold up the caller
  struct stat facts;
  if (file.get() < 0 || fstat(file.get(), &facts) != 0) {
    failure.set("ERR_FILE", "%s: cannot be opened (%s)", path.c_str(), strerror(errno));
    return nullptr;
  }
  if (!S_ISREG(facts.st_mode)) {
    failure.set("ERR_FILE", "%s: must be a regular file", path.c_str());
    return nullptr;
  }
  const int64_t bytes = facts.st_size;
  if (bytes == 0) {
    failure.set("ERR_FORMAT", "%s: is empty", path.c_str());
    return nullptr;
  }
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) {
    failure.set("ERR_FILE", "%s: cannot be mapped (%s)", path.c_str(), strerror(errno));
    return nullptr;
  }
  return std::shared_ptr<MappedFile>(new MappedFile(static_cast<char*>(data), bytes));
}

MappedFile::~MappedFile() { munmap(data_, static_cast<size_t>(bytes_)); }

void write_file(const std::string& path, const Piece* pieces, size_t count, Failure& failure) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  bool good = file.get() >= 0;
  for (size_t i = 0; good && i < count; ++i) good = write_all(file.get(), static_cast<const char*>(pieces[i].data), pieces[i].bytes);
  if (good) good = fsync(file.get()) == 0;
  if (!good) failure.set("ERR_FILE", "%s: cannot be written (%s)", path.c_str(), strerror(errno));
}

}  // namespace lowrank
