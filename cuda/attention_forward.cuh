// The forward pass as attention and attention_cache both run it: queries against keys, all of them or in runs whose parts are joined.
#pragma once
#include "attention_view.cuh"

namespace lowrank::cuda {

// What runs of keys gave to each row of y, before they are joined: rows in the order of [tokens, H].
struct AttentionParts {
  float* maxima;  // [runs, tokens * H], in units of ln 2
  float* sums;    // [runs, tokens * H]
  float* y;       // [runs, tokens * H, D], not divided by the sums
  int32_t runs;   // 1: no parts
  int32_t run;    // keys of one, counted from the first that any row sees
};

template <class T>
struct Attend {
  AttentionView<T> view;
  T* y;
  int64_t y_pitch;
  float* lse;  // [tokens, H] or nullptr
  int32_t heads;  // H
  AttentionParts parts;

  // The block's run of the keys that `whole` tile of rows sees.
  GPU_FN Sight keys_of_run(Sight whole, int32_t run) const {
    if (parts.runs == 1) return whole;
    const int32_t begin = view.first_key(view.start) + run * parts.run, end = begin + parts.run;
    return {begin > whole.begin ? begin : whole.begin, end < whole.end ? end : whole.end};
  }
};

// y (and lse) of all queries. attention.cu has it for every type of activations.
template <class T>
void attend(Queue& queue, const Attend<T>& p);

// The same in 16 bits, where rows can be read in pieces of 16 bytes and scale is positive (of scores it finds the greatest before they are
// scaled); parts, if there are any, are left to be joined. False: not so.
template <class T>
bool attend_on_tensor_cores(Queue& queue, const Attend<T>& p);

}  // namespace lowrank::cuda
