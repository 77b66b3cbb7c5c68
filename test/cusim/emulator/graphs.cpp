#include "graphs.h"

#include <utility>

namespace cusim {

thread_local Capture capture{nullptr, nullptr};

bool keep(const void* kind, std::function<void(Stream*)> run) {
  if (capture.stream == nullptr) return false;
  capture.graph->nodes.push_back({kind, std::move(run)});
  return true;
}

void submit(Stream* stream, const void* kind, std::function<void(Stream*)> run) {
  if (capture.stream != stream) return run(stream);
  keep(kind, std::move(run));
}

bool outside_capture() {
  if (capture.stream == nullptr) return true;
  capture.graph->spoiled = true;
  return false;
}

}  // namespace cusim
