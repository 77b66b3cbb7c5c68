/* Every op on rows with gaps: the bits that it gives without, and gaps that keep what they held. */
#include "check.h"

enum { kT = 5, kC = 6, kN = 4, kV = 9, kR = 2, kHeads = 2, kKvHeads = 1, kHeadSize = 4, kJoined = (kHeads + 2 * kKvHeads) * kHeadSize, kMostOperands = 16 };

/* The operands of one call, rows `gap` numbers further apart than they are long. */
typedef struct Operands {
  int64_t gap;
  int count;
  lowrank_tensor all[kMostOperands];
  float* weight;
} Operands;

static const uint32_t kSpare = 0x40e00000; /* 7 */

static uint32_t* word(const lowrank_tensor* t, int64_t row, int64_t i) { return (uint32_t*)t->data + row * t->row_pitch + i; }

static lowrank_tensor rows_of(Operands* o, int64_t rows, int64_t cols) {
  lowrank_tensor t = pitched(malloc((size_t)(rows * (cols + o->gap)) * sizeof(uint32_t)), rows, cols, cols + o->gap);
  float* from = noise(rows * cols, (uint32_t)o->count + 1);
  for (int64_t row = 0; row < rows; ++row) {
    memcpy(word(&t, row, 0), from + row * cols, (size_t)cols * sizeof(float));
    for (int64_t i = cols; i < t.row_pitch; ++i) *word(&t, row, i) = kSpare;
  }
  free(from);
  return o->all[o->count++] = t;
}

/* first, first + step, first + 2 step, ... as a column, so that these have gaps too. */
static lowrank_tensor indices(Operands* o, int64_t rows, int32_t first, int32_t step) {
  lowrank_tensor t = rows_of(o, rows, 1);
  t.dtype = LOWRANK_I32;
  for (int32_t row = 0; row < rows; ++row) *word(&t, row, 0) = (uint32_t)(first + row * step);
  return t;
}

/* Numbers that are variances, say. */
static lowrank_tensor positive(Operands* o, int64_t rows, int64_t cols) {
  lowrank_tensor t = rows_of(o, rows, cols);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < cols; ++i) *word(&t, row, i) &= 0x7fffffff;
  return t;
}

static lowrank_weight weight_of(Operands* o, int64_t out, int64_t in) {
  o->weight = noise(out * in, 99);
  return weight(o->weight, out, in);
}

#define ACT(rows, cols) rows_of(o, rows, cols)
#define CASE(op, ...)                                                        \
  static lowrank_status case_##op(lowrank_context* context, Operands* o) {   \
    const lowrank_##op##_args args = {__VA_ARGS__};                          \
    return lowrank_##op(context, &args);                                     \
  }

#define HEADS .heads = kHeads, .kv_heads = kKvHeads
#define GATE .sum_squares = positive(o, 1, 1), .losses = ACT(3, 1)
#define ADAPTER(n, k) .a = ACT(kR, k), .b = ACT(n, kR)
#define PARTS .rank = {kR, 0, 0}, .scale = {2, 0, 0}, .dropout = 0.25f, .seed_low = 3, .step = 1

CASE(copy, .y = ACT(kT, kC), .x = ACT(kT, kC))
CASE(cast, .y = ACT(kT, kC), .x = ACT(kT, kC))
CASE(fill, .y = ACT(kT, kC), .value = 3)
CASE(add, .y = ACT(kT, kC), .a = ACT(kT, kC), .b = ACT(kT, kC))
CASE(embedding, .y = ACT(kT, kC), .ids = indices(o, kT, 1, 1), .table = ACT(kV, kC), .positions = indices(o, kT, 0, 1), .position_table = ACT(kV, kC))
CASE(linear, .y = ACT(kT, kN), .x = ACT(kT, kC), .w = weight_of(o, kN, kC), .bias = ACT(kN, 1), .carry = ACT(kT, kN))
CASE(linear_grad, .dx = ACT(kT, kC), .dy = ACT(kT, kN), .w = weight_of(o, kN, kC))
CASE(lora_linear, .y = ACT(kT, kN), .u = ACT(kT, kR), .x = ACT(kT, kC), .w = weight_of(o, kN, kC), .bias = ACT(kN, 1), .carry = ACT(kT, kN), ADAPTER(kN, kC), PARTS)
CASE(lora_linear_grad, .dx = ACT(kT, kC), .da = ACT(kR, kC), .db = ACT(kN, kR), .dy = ACT(kT, kN), .x = ACT(kT, kC), .u = ACT(kT, kR), .w = weight_of(o, kN, kC), ADAPTER(kN, kC), PARTS)
CASE(lora_merge, .merged = ACT(kN, kC), .w = ACT(kN, kC), ADAPTER(kN, kC), .scale = 2)
CASE(rms_norm, .y = ACT(kT, kC), .r = ACT(kT, 1), .x = ACT(kT, kC), .w = ACT(kC, 1), .eps = 1e-5f)
CASE(rms_norm_grad, .dx = ACT(kT, kC), .dy = ACT(kT, kC), .x = ACT(kT, kC), .w = ACT(kC, 1), .r = ACT(kT, 1), .carry = ACT(kT, kC))
CASE(layer_norm, .y = ACT(kT, kC), .mean = ACT(kT, 1), .r = ACT(kT, 1), .x = ACT(kT, kC), .w = ACT(kC, 1), .b = ACT(kC, 1), .eps = 1e-5f)
CASE(layer_norm_grad, .dx = ACT(kT, kC), .dy = ACT(kT, kC), .x = ACT(kT, kC), .w = ACT(kC, 1), .mean = ACT(kT, 1), .r = ACT(kT, 1), .carry = ACT(kT, kC))
CASE(qk_norm, .y = ACT(kT, kJoined), .r = ACT(kT, kHeads + kKvHeads), .x = ACT(kT, kJoined), .wq = ACT(kHeadSize, 1), .wk = ACT(kHeadSize, 1), HEADS, .eps = 1e-5f)
CASE(qk_norm_grad, .dx = ACT(kT, kJoined), .dy = ACT(kT, kJoined), .x = ACT(kT, kJoined), .wq = ACT(kHeadSize, 1), .wk = ACT(kHeadSize, 1), .r = ACT(kT, kHeads + kKvHeads), HEADS)
CASE(rope_inplace, .x = ACT(kT, kJoined), .positions = indices(o, kT, 0, 1), .table = ACT(kV, kHeadSize), HEADS, .direction = 1)
CASE(attention, .y = ACT(kT, kHeads * kHeadSize), .lse = ACT(kT, kHeads), .qkv = ACT(kT, kJoined), .offsets = indices(o, 2, 0, kT), HEADS, .scale = 0.5f)
CASE(attention_grad, .dqkv = ACT(kT, kJoined), .dy = ACT(kT, kHeads * kHeadSize), .qkv = ACT(kT, kJoined), .y = ACT(kT, kHeads * kHeadSize), .lse = ACT(kT, kHeads),
     .offsets = indices(o, 2, 0, kT), HEADS, .scale = 0.5f)
CASE(attention_cache, .y = ACT(kT, kHeads * kHeadSize), .k_cache = ACT(kV, kKvHeads * kHeadSize), .v_cache = ACT(kV, kKvHeads * kHeadSize), .qkv = ACT(kT, kJoined), HEADS,
     .start = 2, .scale = 0.5f)
CASE(swiglu, .y = ACT(kT, kC), .x = ACT(kT, 2 * kC))
CASE(swiglu_grad, .dx = ACT(kT, 2 * kC), .dy = ACT(kT, kC), .x = ACT(kT, 2 * kC))
CASE(swiglu_then_lora_linear, .y = ACT(kT, kN), .u = ACT(kT, kR), .h = ACT(kT, kC), .x = ACT(kT, 2 * kC), .w = weight_of(o, kN, kC), .carry = ACT(kT, kN), ADAPTER(kN, kC), PARTS)
CASE(swiglu_grad_then_lora_linear_grad, .dx = ACT(kT, kC), .da = ACT(kR, kC), .db = ACT(kN, kR), .dy = ACT(kT, kN), .dh = ACT(kT, kN / 2), .y = ACT(kT, kN), .x = ACT(kT, kC),
     .u = ACT(kT, kR), .w = weight_of(o, kN, kC), ADAPTER(kN, kC), PARTS)
CASE(gelu, .y = ACT(kT, kC), .x = ACT(kT, kC))
CASE(gelu_grad, .dx = ACT(kT, kC), .dy = ACT(kT, kC), .x = ACT(kT, kC))
CASE(cross_entropy_inplace, .loss = ACT(1, 1), .logits = ACT(kT, kV), .targets = indices(o, kT, 2, 1), .scale = 1)
CASE(linear_cross_entropy, .loss = ACT(1, 1), .dx = ACT(kT, kC), .x = ACT(kT, kC), .w = weight_of(o, kV, kC), .targets = indices(o, kT, 2, 1), .scale = 1)
CASE(sum_squares, .sum = ACT(1, 1), .x = ACT(kT, kC))
CASE(adamw, .p = ACT(kT, kC), .m = ACT(kT, kC), .v = positive(o, kT, kC), .g = ACT(kT, kC), GATE, .lr = 0.1f, .beta1 = 0.9f, .beta2 = 0.99f,
     .eps = 1e-8f, .correction1 = 0.1f, .correction2 = 0.01f)
/* The second step: it reads what the first left in the buffer. */
CASE(sgd, .p = ACT(kT, kC), .buffer = ACT(kT, kC), .g = ACT(kT, kC), GATE, .lr = 0.1f, .momentum = 0.9f)

typedef lowrank_status (*Run)(lowrank_context* context, Operands* o);

static int same_numbers(const Operands* plain, const Operands* wide) {
  for (int k = 0; k < plain->count; ++k)
    for (int64_t row = 0; row < plain->all[k].dims[0]; ++row)
      if (memcmp(word(&plain->all[k], row, 0), word(&wide->all[k], row, 0), (size_t)plain->all[k].dims[1] * sizeof(uint32_t)) != 0) return 0;
  return 1;
}

static int keeps_gaps(const Operands* wide) {
  for (int k = 0; k < wide->count; ++k)
    for (int64_t row = 0; row < wide->all[k].dims[0]; ++row)
      for (int64_t i = wide->all[k].dims[1]; i < wide->all[k].row_pitch; ++i)
        if (*word(&wide->all[k], row, i) != kSpare) return 0;
  return 1;
}

static void free_operands(Operands* o) {
  for (int k = 0; k < o->count; ++k) free(o->all[k].data);
  free(o->weight);
}

static void check_op(lowrank_context* context, const char* name, Run run) {
  Operands plain = {0}, wide = {0};
  wide.gap = 3;
  const int good = run(context, &plain) == LOWRANK_OK && run(context, &wide) == LOWRANK_OK;
  CHECK(name, good && same_numbers(&plain, &wide) && keeps_gaps(&wide));
  free_operands(&plain), free_operands(&wide);
}

int main(void) {
  lowrank_context* context = open_cpu(2);
#define OP(stem, Contract) check_op(context, #stem, case_##stem);
#include "../../native/ops/list.def"
#undef OP
  lowrank_close(context);
  return check_failures == 0 ? 0 : 1;
}
