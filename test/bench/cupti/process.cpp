// Loads a library as CUDA does when a process begins to use it, and ends.
#include <dlfcn.h>

int main(int, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW);
  auto* initialize = library == nullptr ? nullptr : reinterpret_cast<int (*)()>(dlsym(library, "InitializeInjection"));
  return initialize != nullptr && initialize() == 1 ? 0 : 1;
}
