#include "graphs.h"

#include <algorithm>
#include <utility>

#include "steps.h"

namespace lowrank::cuda {

namespace {

constexpr size_t kMost = kMostSteps;  // ops gathered: the device begins when so many are there
constexpr size_t kFewest = 4;    // of which a graph is made
constexpr size_t kKnown = 1024;  // runs remembered
constexpr size_t kWatchesOfAnOp = 4;
// With more ops than this share in which a number differs, to capture the run anew would cost what launching it costs.
constexpr int64_t kDiffering = 4;

}  // namespace

size_t Graphs::Hash::operator()(const std::vector<int64_t>& key) const {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a by words, with its high bits brought down
  for (const int64_t word : key) {
    hash = (hash ^ static_cast<uint64_t>(word)) * 0x100000001b3u;
    hash ^= hash >> 29;
  }
  return hash;
}

GraphCounts Graphs::counts() const { return {ops_, replayed_, captured_, updated_, refused_, why_}; }

void Graphs::add(int32_t op, const void* contract, Failure* failure) {
  gather_op(op, contract, gathered_);
  if (!on_ || gathered_.count() == kMost) flush(failure);
}

void Graphs::flush(Failure* failure) {
  if (gathered_.count() == 0) return;
  ops_ += static_cast<int64_t>(gathered_.count());
  queue_.make_room_for_watches(gathered_.count() * kWatchesOfAnOp, failure);
  if (!failure->happened() && !replay(failure)) run_each(StepsLie::in_contracts, failure);
  gathered_.clear();
}

void Graphs::run_each(StepsLie steps, Failure* failure) {
  for (size_t i = 0; i < gathered_.count() && !failure->happened(); ++i) {
    queue_.begin(failure);
    if (steps == StepsLie::in_words) queue_.find_step_in_word(static_cast<int64_t>(i));
    else queue_.find_step_in_contract();
    run_op(gathered_.op(i), gathered_.contract(i), queue_);
    queue_.end();
  }
}

// False: nothing has been launched.
bool Graphs::replay(Failure* failure) {
  if (!on_ || gathered_.count() < kFewest) return false;
  Known* known = look_up();
  if (known == nullptr || !made_current(*known)) return false;
  queue_.repeat(known->watches);
  replayed_ += static_cast<int64_t>(gathered_.count());
  if (known->reads_steps) queue_.set_steps(gathered_.steps());
  succeeded(cudaGraphLaunch(known->exec, queue_.stream()), "a graph", failure);
  return true;
}

// nullptr: it comes for the first time, or is no good.
Graphs::Known* Graphs::look_up() {
  gathered_.key().push_back(static_cast<int64_t>(queue_.watched()));  // its reports have their places
  const auto [at, first] = known_.try_emplace(std::move(gathered_.key()));
  Known& known = at->second;
  known.used = ++flushes_;
  if (first && known_.size() > kKnown) make_room();
  return first || known.refused ? nullptr : &known;
}

// Whether its graph does what was gathered, if need be after it was captured anew.
bool Graphs::made_current(Known& known) {
  if (known.exec != nullptr && known.generation == queue_.generation()) {
    const int64_t differing = ops_that_differ(known);
    if (differing == 0) return true;
    if (differing * kDiffering > static_cast<int64_t>(gathered_.count())) return false;
  }
  cudaGraph_t graph = capture(known);
  if (graph == nullptr) return false;
  cudaGraphExecUpdateResultInfo result;
  const bool updated = known.exec != nullptr && cudaGraphExecUpdate(known.exec, graph, &result) == cudaSuccess;
  if (!updated) {
    cudaGetLastError();
    if (known.exec != nullptr) cudaGraphExecDestroy(known.exec);
    if (cudaGraphInstantiate(&known.exec, graph, 0) != cudaSuccess) known.exec = nullptr, known.refused = true, ++refused_, why_ = cudaGetErrorName(cudaGetLastError());
  }
  cudaGraphDestroy(graph);
  ++(updated ? updated_ : captured_);
  return known.exec != nullptr;
}

// nullptr: it can't be captured, or an op fails, which running it will tell.
cudaGraph_t Graphs::capture(Known& known) {
  const size_t watched = queue_.watched();
  const int64_t shortages = queue_.shortages(), asked = queue_.steps_asked();
  Failure failure{};
  cudaGraph_t graph = nullptr;
  cudaError_t error = cudaStreamBeginCapture(queue_.stream(), cudaStreamCaptureModeThreadLocal);
  if (error == cudaSuccess) {
    run_each(StepsLie::in_words, &failure);
    error = cudaStreamEndCapture(queue_.stream(), &graph);
  }
  cudaGetLastError();  // what went wrong here is no failure of the ops
  known.watches = queue_.take_back_watches(watched);
  known.values = gathered_.values();
  known.reads_steps = queue_.steps_asked() > asked;
  known.generation = queue_.generation();
  if (error == cudaSuccess && !failure.happened()) return graph;
  if (graph != nullptr) cudaGraphDestroy(graph);
  known.refused = error != cudaSuccess && queue_.shortages() == shortages;  // once run, the ops have the memory that they lacked
  if (known.refused) ++refused_, why_ = cudaGetErrorName(error);
  return nullptr;
}

int64_t Graphs::ops_that_differ(const Known& known) const {
  const std::vector<int64_t>& now = gathered_.values();
  int64_t differing = 0;
  size_t begin = 0;
  for (size_t i = 0; i < gathered_.count(); ++i) {
    const size_t end = gathered_.values_end(i);
    differing += !std::equal(now.begin() + static_cast<ptrdiff_t>(begin), now.begin() + static_cast<ptrdiff_t>(end), known.values.begin() + static_cast<ptrdiff_t>(begin));
    begin = end;
  }
  return differing;
}

// Forgets the half that was used least recently: sequences of any length leave runs that never come again.
void Graphs::make_room() {
  const uint64_t since = flushes_ - kKnown / 2;
  for (auto at = known_.begin(); at != known_.end();) {
    if (at->second.used > since) {
      ++at;
      continue;
    }
    if (at->second.exec != nullptr) cudaGraphExecDestroy(at->second.exec);
    at = known_.erase(at);
  }
}

void Graphs::forget() {
  for (auto& [key, known] : known_)
    if (known.exec != nullptr) cudaGraphExecDestroy(known.exec);
  known_.clear();
}

}  // namespace lowrank::cuda
