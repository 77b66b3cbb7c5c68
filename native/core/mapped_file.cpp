#include "mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/sysmacros.h>
#endif
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
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct Pages {
  void* begin;
  size_t bytes;
};

uintptr_t page_size() {
  static const auto size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  return size;
}

Pages pages_around(const char* begin, int64_t bytes) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin) / page_size() * page_size();
  return {reinterpret_cast<void*>(first), reinterpret_cast<uintptr_t>(begin) + static_cast<uintptr_t>(bytes) - first};
}

// Pages at the ends are shared with the neighbours.
Pages pages_inside(const char* begin, int64_t bytes) {
  const uintptr_t page = page_size();
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(begin) + static_cast<uintptr_t>(bytes)) / page * page;
  return {reinterpret_cast<void*>(first), end > first ? end - first : 0};
}

// Whether the system reads at least 1 MiB ahead on this device, a disk or a part of one.
bool reads_far(dev_t device) {
#ifdef __linux__
  for (const char* queue : {"queue", "../queue"}) {
    char path[128];
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s/read_ahead_kb", major(device), minor(device), queue);
    FILE* file = fopen(path, "re");
    if (file == nullptr) continue;
    int kib = 0;
    const bool told = fscanf(file, "%d", &kib) == 1;
    fclose(file);
    return told && kib >= 1024;
  }
#endif
  (void)device;
  return false;
}

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
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a pipe must not hold up the caller
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
  return std::shared_ptr<MappedFile>(new MappedFile(path, file.release(), static_cast<char*>(data), bytes, reads_far(facts.st_dev)));
}

MappedFile::~MappedFile() {
  munmap(data_, static_cast<size_t>(bytes_));
  close(fd_);
}

bool MappedFile::check_whole(Failure& failure) const {
  struct stat facts;
  if (fstat(fd_, &facts) == 0 && facts.st_size >= bytes_) return true;
  failure.set("ERR_FILE", "%s: must keep its length while it is mapped (it had %lld bytes and was made shorter)", path_.c_str(), static_cast<long long>(bytes_));
  return false;
}

void MappedFile::ask_for(const char* begin, int64_t bytes) const {
  if (far_) return;
  const Pages pages = pages_around(begin, bytes);
  madvise(pages.begin, pages.bytes, MADV_WILLNEED);
}

bool MappedFile::bring(const char* begin, int64_t bytes) const {
#ifdef __linux__
  constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ, since Linux 5.14; older headers lack it
  const Pages pages = pages_around(begin, bytes);
  return madvise(pages.begin, pages.bytes, kPopulateRead) == 0 || errno != EINVAL;
#else
  (void)begin, (void)bytes;
  return false;
#endif
}

void MappedFile::let_go(const char* begin, int64_t bytes) const {
#ifdef __linux__
  const Pages pages = pages_inside(begin, bytes);
  if (pages.bytes == 0) return;
  madvise(pages.begin, pages.bytes, MADV_DONTNEED);  // only pages that nobody maps can leave the cache
  posix_fadvise(fd_, static_cast<char*>(pages.begin) - data_, static_cast<off_t>(pages.bytes), POSIX_FADV_DONTNEED);
#else
  (void)begin, (void)bytes;
#endif
}

void write_file(const std::string& path, const Piece* pieces, size_t count, Failure& failure) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  bool good = file.get() >= 0;
  for (size_t i = 0; good && i < count; ++i) good = write_all(file.get(), static_cast<const char*>(pieces[i].data), pieces[i].bytes);
  if (good) good = fsync(file.get()) == 0;
  if (!good) failure.set("ERR_FILE", "%s: cannot be written (%s)", path.c_str(), strerror(errno));
}

}  // namespace lowrank
