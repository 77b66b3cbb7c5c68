// Graphs: what is captured runs at a launch and not before, with the arguments it was captured with; what no capture survives.
#include <cusim/emulator/runtime.h>

#include "run.cuh"

namespace planted {

namespace {

__global__ void add_to(float* y, float value) { y[threadIdx.x] += value; }
__global__ void set_to(float* y, float value) { y[threadIdx.x] = value; }

constexpr unsigned kCount = 4;
using Kernel = void (*)(float*, float);

class Captured {
 public:
  Captured() {
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMalloc(reinterpret_cast<void**>(&y), kCount * sizeof(float));
    cudaMemsetAsync(y, 0, kCount * sizeof(float), stream);
  }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  ~Captured() {
    if (exec != nullptr) cudaGraphExecDestroy(exec);
    cudaFree(y), cudaStreamDestroy(stream), cudaGetLastError();
  }
  void launch(Kernel kernel, float value) { cusim::launch_on(stream, "kernel", {dim3(1), dim3(kCount), 0}, kernel, y, value); }
  cudaGraph_t capture(Kernel kernel, float value) {
    cudaGraph_t graph = nullptr;
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    launch(kernel, value);
    cudaStreamEndCapture(stream, &graph);
    return graph;
  }
  float first() const {
    float values[kCount] = {};
    cudaMemcpyAsync(values, y, sizeof values, cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    return values[0];
  }

  cudaStream_t stream = nullptr;
  cudaGraphExec_t exec = nullptr;
  float* y = nullptr;
};

// What EndCapture says where `slip` was done in between.
template <class Slip>
std::string spoiled(const Slip& slip) {
  Captured captured;
  cudaGraph_t graph = nullptr;
  cudaStreamBeginCapture(captured.stream, cudaStreamCaptureModeThreadLocal);
  captured.launch(add_to, 1);
  const cudaError_t refused = slip(captured);
  const cudaError_t error = cudaStreamEndCapture(captured.stream, &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  return std::string(cudaGetErrorName(refused)) + ", " + cudaGetErrorName(error);
}

void find(const char* what, const std::string& report) {
  claim(std::string("found: ") + what + " while a stream captures", report == "cudaErrorStreamCaptureUnsupported, cudaErrorStreamCaptureInvalidated", report);
}

}  // namespace

void test_graphs() {
  Captured captured;
  cudaGraph_t graph = captured.capture(add_to, 2);
  const float before = captured.first();
  cudaGraphInstantiate(&captured.exec, graph, 0);
  cudaGraphDestroy(graph);
  for (int i = 0; i < 3; ++i) cudaGraphLaunch(captured.exec, captured.stream);
  claim("a captured kernel runs at each launch of its graph and not before", before == 0 && captured.first() == 6, std::to_string(captured.first()));

  cudaGraphExecUpdateResultInfo result;
  graph = captured.capture(add_to, 10);
  const cudaError_t updated = cudaGraphExecUpdate(captured.exec, graph, &result);
  cudaGraphDestroy(graph);
  cudaGraphLaunch(captured.exec, captured.stream);
  claim("an updated graph runs with the new arguments", updated == cudaSuccess && captured.first() == 16, std::to_string(captured.first()));

  graph = captured.capture(set_to, 1);
  const cudaError_t other = cudaGraphExecUpdate(captured.exec, graph, &result);
  cudaGraphDestroy(graph);
  cudaGraphLaunch(captured.exec, captured.stream);
  claim("found: an update with another kernel", other == cudaErrorGraphExecUpdateFailure && captured.first() == 26, std::to_string(captured.first()));

  find("a wait for the stream", spoiled([](Captured& own) { return cudaStreamSynchronize(own.stream); }));
  find("an allocation", spoiled([](Captured&) {
         void* memory = nullptr;
         return cudaMalloc(&memory, 64);
       }));
  find("a copy to the host", spoiled([](Captured& own) {
         float value;
         return cudaMemcpyAsync(&value, own.y, sizeof value, cudaMemcpyDeviceToHost, own.stream);
       }));
}

}  // namespace planted
