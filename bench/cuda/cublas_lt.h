// bf16 products by cublasLt, which is bound at run time: this program is built where there is none.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#include <memory>
#include <string>

namespace lowrank::bench {

// Row-major y [T, N] = x [T, K] w^T with w [N, K] (forward), or dx [T, N] = dy [T, K] w with w [K, N] (backward); ld: elements from row to row.
struct Product {
  bool backward;
  int64_t T, N, K;
  int64_t ldx, ldw, ldy;
  bool y_is_f32 = false;
  bool split = false;  // K may be cut into pieces that are added in f32, in a workspace: always in the same order
};

class CublasLt {
 public:
  // nullptr: `why` tells what was looked for, or what went wrong.
  static std::unique_ptr<CublasLt> open(std::string& why);
  ~CublasLt();
  const std::string& file() const { return file_; }
  size_t version() const;

  // Finds algorithms that give the same bits in every run, the likeliest first; an empty string, or the reason why it can't be done.
  std::string prepare(const Product& product);
  // How many were found, at most kMostChoices; run() takes the first, unless another has been chosen.
  int choices() const;
  void choose(int which);
  // Queues the product that was prepared last. bf16 operands, f32 sums.
  bool run(const void* x, const void* w, void* y, cudaStream_t stream);

 static constexpr int kMostChoices = 8;

 private:
  struct State;
  explicit CublasLt(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
  std::string file_;
};

}  // namespace lowrank::bench
