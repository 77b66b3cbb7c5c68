// Scratch memory of ops that are run again inside of a capture, which no allocation survives.
#include "../../../cuda/queue.h"

#include <memory>

#include "operands.cuh"

namespace kernels {

namespace {

using lowrank::Failure;
using lowrank::cuda::Queue;

// An op that asks for `pieces` of scratch of `bytes` each; what it failed with.
std::string take(Queue& queue, int pieces, int64_t bytes) {
  Failure failure{};
  queue.begin(&failure);
  for (int i = 0; i < pieces; ++i) queue.scratch(bytes);
  queue.end();
  return failure.happened() ? failure.text : "";
}

// What a capture of that op ends with, after it has been run once.
std::string captured(int pieces, int64_t bytes) {
  Failure failure{};
  const std::unique_ptr<Queue> queue(Queue::open(0, nullptr, failure));
  if (queue == nullptr) return failure.text;
  if (const std::string fault = take(*queue, pieces, bytes); !fault.empty()) return fault;
  cudaGraph_t graph = nullptr;
  cudaStreamBeginCapture(queue->stream(), cudaStreamCaptureModeThreadLocal);
  const std::string fault = take(*queue, pieces, bytes);
  const cudaError_t error = cudaStreamEndCapture(queue->stream(), &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
  return fault + (error == cudaSuccess ? "" : cudaGetErrorName(error));
}

}  // namespace

void test_queue() {
  for (const int pieces : {1, 2, 3, 7}) {
    const std::string fault = captured(pieces, int64_t{3} << 20);
    claim("an op that has taken 3 MiB of scratch " + std::to_string(pieces) + " times finds room for all of it when it is captured", fault.empty(), fault);
  }
}

}  // namespace kernels
