#include "lt_library.h"

#ifndef LOWRANK_CUSIM
#include <dlfcn.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

namespace lowrank::cuda::lt {

namespace {

constexpr const char* kName = "libcublasLt.so.13";
constexpr size_t kMajor = 13;

struct Bound {
  Library library;
  std::string status;
  bool good = false;
};

std::string variable(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

// Where pip and conda put it, under `root`.
void add_python(std::vector<std::string>& patterns, const std::string& root) {
  if (!root.empty()) patterns.push_back(root + "/lib/python3*/*-packages/nvidia/cu13/lib");
}

std::vector<std::string> folders() {
  std::vector<std::string> patterns;
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
    const std::string root = variable(name);
    if (!root.empty()) patterns.insert(patterns.end(), {root + "/lib64", root + "/targets/*-linux/lib"});
  }
  patterns.insert(patterns.end(), {"/usr/local/cuda/lib64", "/usr/local/cuda-13*/lib64"});
  add_python(patterns, variable("VIRTUAL_ENV"));
  const std::string conda = variable("CONDA_PREFIX");
  if (!conda.empty()) patterns.push_back(conda + "/lib");
  add_python(patterns, conda);
  const std::string home = variable("HOME");
  if (!home.empty()) add_python(patterns, home + "/.local");
  for (const char* root : {"/usr", "/usr/local", "/opt/*", "/opt/*/.venv"}) add_python(patterns, root);
  return patterns;
}

std::vector<std::string> files() {
  std::vector<std::string> found;
  for (const std::string& folder : folders()) {
    glob_t matches{};
    if (glob((folder + "/" + kName).c_str(), 0, nullptr, &matches) == 0) found.insert(found.end(), matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
    globfree(&matches);
  }
  return found;
}

template <class Function>
bool find(void* file, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(file, name));
  return function != nullptr;
}

const char* missing_of(void* file, Library& l) {
  if (!find(file, "cublasLtGetVersion", l.version)) return "cublasLtGetVersion";
  if (!find(file, "cublasLtCreate", l.create)) return "cublasLtCreate";
  if (!find(file, "cublasLtMatmulDescCreate", l.description_create)) return "cublasLtMatmulDescCreate";
  if (!find(file, "cublasLtMatmulDescDestroy", l.description_destroy)) return "cublasLtMatmulDescDestroy";
  if (!find(file, "cublasLtMatmulDescSetAttribute", l.description_set)) return "cublasLtMatmulDescSetAttribute";
  if (!find(file, "cublasLtMatrixLayoutCreate", l.layout_create)) return "cublasLtMatrixLayoutCreate";
  if (!find(file, "cublasLtMatrixLayoutDestroy", l.layout_destroy)) return "cublasLtMatrixLayoutDestroy";
  if (!find(file, "cublasLtMatmulPreferenceCreate", l.preference_create)) return "cublasLtMatmulPreferenceCreate";
  if (!find(file, "cublasLtMatmulPreferenceDestroy", l.preference_destroy)) return "cublasLtMatmulPreferenceDestroy";
  if (!find(file, "cublasLtMatmulPreferenceSetAttribute", l.preference_set)) return "cublasLtMatmulPreferenceSetAttribute";
  if (!find(file, "cublasLtMatmulAlgoGetHeuristic", l.heuristics)) return "cublasLtMatmulAlgoGetHeuristic";
  if (!find(file, "cublasLtMatmul", l.multiply)) return "cublasLtMatmul";
  return nullptr;
}

// True: `path` is it. Otherwise the status tells what was wrong with it, but for a file that isn't there.
bool try_file(const std::string& path, Bound& bound) {
  void* file = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (file == nullptr) {
    const char* error = dlerror();
    if (error != nullptr && strstr(error, "No such file") == nullptr) bound.status = error;
    return false;
  }
  if (const char* missing = missing_of(file, bound.library)) {
    bound.status = path + " has no " + missing;
  } else if (const size_t version = bound.library.version(); version / 10000 != kMajor) {  // 130101 is 13.1.1
    bound.status = path + " has version " + std::to_string(version / 10000) + " (13 is needed)";
  } else {
    bound.status = "cublasLt " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100) + " (" + path + ")";
    return bound.good = true;
  }
  dlclose(file);
  return false;
}

std::string not_found() {
  std::string text = std::string(kName) + " was not found by the linker, nor in";
  for (const std::string& folder : folders()) text += " " + folder;
  return text + "; LOWRANK_CUBLASLT may name it";
}

Bound bind() {
  Bound bound;
  const std::string wish = variable("LOWRANK_CUBLASLT");
  if (wish == "off") {
    bound.status = "own kernel (LOWRANK_CUBLASLT=off)";
    return bound;
  }
  if (!wish.empty()) {
    if (!try_file(wish, bound)) bound.status = "own kernel (LOWRANK_CUBLASLT: " + (bound.status.empty() ? "there is no " + wish : bound.status) + ")";
    return bound;
  }
  if (try_file(kName, bound)) return bound;  // loaded already, or where the linker looks
  for (const std::string& path : files()) {
    if (try_file(path, bound)) return bound;
  }
  bound.status = "own kernel (" + (bound.status.empty() ? not_found() : bound.status) + ")";
  return bound;
}

const Bound& bound() {
  static const Bound once = bind();
  return once;
}

}  // namespace

const Library* library() { return bound().good ? &bound().library : nullptr; }

}  // namespace lowrank::cuda::lt

namespace lowrank::cuda {

const char* lt_status() { return lt::bound().status.c_str(); }

}  // namespace lowrank::cuda

#else

namespace lowrank::cuda {

const lt::Library* lt::library() { return nullptr; }
const char* lt_status() { return "own kernel (the emulator has nothing else)"; }

}  // namespace lowrank::cuda
#endif
