#include "trace.h"

#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <string>

namespace lowrank {

Trace::Trace() : file_(nullptr) {
  const char* path = getenv("LOWRANK_TRACE");
  if (path == nullptr || *path == 0) return;
  static std::atomic<int> opened{0};  // devices so far, of all threads: each writes a file of its own
  const int number = ++opened;
  std::string own = path;
  if (number > 1) own.append(".").append(std::to_string(number));
  file_ = fopen(own.c_str(), "w");
  if (file_ != nullptr) fputs("[\n", file_);
}

Trace::~Trace() {
  if (file_ == nullptr) return;
  fputs("{}]\n", file_);
  fclose(file_);
}

void Trace::op(const char* name, const char* shapes, int64_t begin, int64_t end, int line) {
  fprintf(file_, "{\"name\":\"%s\",\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"shapes\":\"%s\"}},\n",
          name, getpid(), line, static_cast<double>(begin) / 1e3, static_cast<double>(end - begin) / 1e3, shapes);
}

}  // namespace lowrank
