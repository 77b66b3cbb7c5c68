#include "backend.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string>

#include "../cpu/backend.h"
#include "../ops/all.h"

namespace lowrank {

namespace {

// Linked into a program, dladdr tells what that was called by, which says nothing of where it lies: it may have been found through PATH,
// or have changed its folder since.
std::string own_file() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&find_backend), &info) == 0 || info.dli_fname == nullptr) return "";
#ifdef __linux__
  char program[PATH_MAX];
  const ssize_t length = strcmp(info.dli_fname, program_invocation_name) == 0 ? readlink("/proc/self/exe", program, sizeof program) : -1;
  if (length > 0) return {program, static_cast<size_t>(length)};
#endif
  return info.dli_fname;
}

std::string own_folder() {
  const std::string file = own_file();
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "." : file.substr(0, slash);
}

std::string plugin_path(const char* kind) {
  const char* chosen = getenv(strcmp(kind, "cuda") == 0 ? "LOWRANK_CUDA_PLUGIN" : "LOWRANK_CUSIM_PLUGIN");
  return chosen != nullptr ? chosen : own_folder() + "/liblowrank_" + kind + ".so";
}

}  // namespace

const Backend* find_backend(const char* kind, char* why, size_t size) {
  if (strcmp(kind, "cpu") == 0) return cpu::backend();
  const std::string path = plugin_path(kind);
  // Never closed: kernels' code and static state must outlive every environment that used them.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    snprintf(why, size, "no %s plugin: %s", kind, dlerror());
    return nullptr;
  }
  const auto entry = reinterpret_cast<BackendEntry>(dlsym(library, kBackendSymbol));
  const Backend* backend = entry != nullptr ? entry(kBackendAbi) : nullptr;
  if (backend == nullptr || backend->abi != kBackendAbi || backend->ops != static_cast<int32_t>(Op::count)) {
    snprintf(why, size, "%s was built for another version of lowrank; rebuild both together", path.c_str());
    return nullptr;
  }
  return backend;
}

}  // namespace lowrank
