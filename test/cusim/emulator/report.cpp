#include "report.h"

#include <dlfcn.h>
#include <string.h>

#include <cstdarg>
#include <cstdio>

#include "block.h"

namespace cusim {

bool Site::operator==(const Site& other) const {
  return line == other.line && (file == other.file || (file != nullptr && other.file != nullptr && strcmp(file, other.file) == 0));
}

namespace {

// The last folder and the file: enough to find it, short enough for a report.
std::string shortened(const std::string& path) {
  const size_t file = path.rfind('/');
  const size_t folder = file == std::string::npos || file == 0 ? std::string::npos : path.rfind('/', file - 1);
  return folder == std::string::npos ? path : path.substr(folder + 1);
}

}  // namespace

std::string Site::text() const { return file == nullptr ? "?" : shortened(file) + ":" + std::to_string(line); }

std::string format(const char* pattern, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, pattern);
  vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  return text;
}

std::string place_of(const void* instruction) {
  Dl_info info{};
  if (instruction == nullptr || dladdr(instruction, &info) == 0) return "?";
  // The byte before: a return address is that of the next instruction, which may be on the next line.
  const size_t offset = static_cast<size_t>(static_cast<const char*>(instruction) - static_cast<const char*>(info.dli_fbase)) - 1;
  const std::string command = format("addr2line -e '%s' 0x%zx 2>/dev/null", info.dli_fname, offset);
  char line[512] = "";
  if (FILE* pipe = popen(command.c_str(), "r")) {
    if (fgets(line, sizeof line, pipe) == nullptr) line[0] = 0;
    pclose(pipe);
  }
  line[strcspn(line, " \n")] = 0;  // behind a space: which of several instructions of the line
  return line[0] == 0 ? "?" : shortened(line);
}

void fail(const std::string& what, const std::string& where) {
  std::string report = "cusim: " + what;
  if (block.running != nullptr) report += format("\n  in %s, %s", block.kernel, name_of(*block.running).c_str());
  if (!where.empty()) report += "\n  at " + where;
  if (!block.active) throw Error(report);
  stop_block(report);
}

void fail(const std::string& what, const Site& site) { fail(what, site.file == nullptr ? std::string() : site.text()); }

}  // namespace cusim
