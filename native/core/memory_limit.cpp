#include "memory_limit.h"

#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <string>

namespace lowrank {

namespace {

constexpr int64_t kUnlimited = INT64_MAX;

// The number behind `name` at the begin of a line; `otherwise` if there is none.
int64_t number_in(const std::string& path, const char* name, int64_t otherwise) {
  FILE* file = fopen(path.c_str(), "re");
  if (file == nullptr) return otherwise;
  char line[256];
  const size_t length = strlen(name);
  int64_t number = otherwise;
  while (number == otherwise && fgets(line, sizeof line, file) != nullptr) {
    long long found = 0;
    if (strncmp(line, name, length) == 0 && sscanf(line + length, " %lld", &found) == 1) number = found;
  }
  fclose(file);
  return number;
}

struct Hierarchy {
  const char* line;   // how its line of /proc/self/cgroup begins, behind the number
  const char* mount;
  const char *limit, *usage, *active, *inactive;
};

constexpr Hierarchy kHierarchies[] = {
    {"memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file"},
    {":", "/sys/fs/cgroup", "memory.max", "memory.current", "active_file", "inactive_file"},
};

int64_t available_in(const std::string& group, const Hierarchy& hierarchy) {
  const int64_t limit = number_in(group + "/" + hierarchy.limit, "", kUnlimited);
  if (limit >= kUnlimited / 2) return kUnlimited;  // "max" is no number; v1 says a great one
  const std::string stat = group + "/memory.stat";
  const int64_t cached = number_in(stat, hierarchy.active, 0) + number_in(stat, hierarchy.inactive, 0);
  return limit - number_in(group + "/" + hierarchy.usage, "", 0) + cached;
}

// The group and all above it. In a container the mount may begin at our own group: then the path doesn't exist, and the mount is it.
int64_t available_in_all(std::string path, const Hierarchy& hierarchy) {
  int64_t least = kUnlimited;
  for (;;) {
    least = std::min(least, available_in(hierarchy.mount + path, hierarchy));
    if (path.empty()) return least;
    path.resize(path.rfind('/'));
  }
}

int64_t available_in_groups() {
  FILE* file = fopen("/proc/self/cgroup", "re");
  if (file == nullptr) return kUnlimited;
  int64_t least = kUnlimited;
  char line[4096];
  while (fgets(line, sizeof line, file) != nullptr) {
    line[strcspn(line, "\n")] = 0;
    const char* colon = strchr(line, ':');
    if (colon == nullptr) continue;
    for (const Hierarchy& hierarchy : kHierarchies) {
      const size_t length = strlen(hierarchy.line);
      if (strncmp(colon + 1, hierarchy.line, length) != 0) continue;
      const std::string path = colon + 1 + length;
      least = std::min(least, available_in_all(path == "/" || path[0] != '/' ? "" : path, hierarchy));
    }
  }
  fclose(file);
  return least;
}

}  // namespace

int64_t available_memory() {
  const int64_t kib = number_in("/proc/meminfo", "MemAvailable:", -1);
  return kib < 0 ? -1 : std::min(kib * 1024, available_in_groups());
}

}  // namespace lowrank
