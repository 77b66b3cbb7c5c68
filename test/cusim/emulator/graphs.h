// Graphs: what a stream is given while it captures is kept instead of run, to be run by a launch of the graph. Only work that needs nothing from
// the host can be kept. The capturing thread must not wait, allocate or release meanwhile: that spoils the capture, as with CUDA's
// thread-local mode.
#pragma once
#include <functional>
#include <vector>

namespace cusim {

struct Stream;

struct GraphNode {
  const void* kind;  // a kernel, or which other work: an update must find the same
  std::function<void(Stream*)> run;
};

struct Graph_ {
  std::vector<GraphNode> nodes;
  bool spoiled = false;
};

struct GraphExec_ {
  std::vector<GraphNode> nodes;
};

// What the calling thread captures; nullptr: nothing.
struct Capture {
  Stream* stream;
  Graph_* graph;
};
extern thread_local Capture capture;

// If the calling thread captures, `run` becomes a node. False: it doesn't.
bool keep(const void* kind, std::function<void(Stream*)> run);
// Work for a stream: kept if the stream captures, else run now.
void submit(Stream* stream, const void* kind, std::function<void(Stream*)> run);
// A call that no capture outlives. True: there was none.
bool outside_capture();

}  // namespace cusim
