/* The C ABI with activations of 16 bits, on the caller's stream: the CUDA kernels in the emulator, held to the CPU in f32.
 *   halves bf16|f16 */
#include "layer.h"

enum { kBorder = 64 };
static const uint16_t kGap = 0x4040; /* a number of neither's */

static lowrank_context *cpu, *first, *second; /* the latter two on one stream, the caller's */
static lowrank_dtype dtype;
static double rounding; /* of a number to 16 bits, relatively, at most */

static void must(lowrank_status status) {
  if (status == LOWRANK_OK) return;
  printf("FAILED to go on: %s\n", lowrank_last_error());
  exit(1);
}

static lowrank_context* open_emulator(void* stream) {
  lowrank_options options = {0};
  lowrank_context* context = NULL;
  options.abi = LOWRANK_ABI, options.device_type = LOWRANK_EMULATOR, options.stream = stream;
  must(lowrank_open(&options, &context));
  return context;
}

static void* to_device(const void* from, int64_t bytes) {
  void* memory = NULL;
  must(lowrank_allocate(first, bytes, &memory));
  must(lowrank_upload(first, memory, from, bytes));
  return memory;
}

static void cast(lowrank_tensor y, lowrank_tensor x) {
  const lowrank_cast_args args = {y, x};
  must(lowrank_cast(cpu, &args));
}

static lowrank_tensor halves_over(void* data, int64_t rows, int64_t cols, int64_t pitch) {
  lowrank_tensor t = pitched(data, rows, cols, pitch);
  t.dtype = dtype;
  return t;
}

/* What 16 bits hold of them. */
static void round_numbers(float* numbers, int64_t n) {
  uint16_t* halves = malloc((size_t)n * sizeof(uint16_t));
  cast(halves_over(halves, 1, n, n), matrix(numbers, 1, n));
  cast(matrix(numbers, 1, n), halves_over(halves, 1, n, n));
  free(halves);
}

/* On the device, `gap` numbers between rows; where a border fits, rows are aligned as tensor cores want them, too. */
static lowrank_tensor there(const float* from, int64_t rows, int64_t cols, int64_t gap, int32_t spare) {
  const int64_t pitch = gap < kBorder ? cols + gap : (cols + gap + 7) / 8 * 8, bytes = rows * pitch * 2;
  uint16_t* halves = malloc((size_t)bytes);
  for (int64_t i = 0; i < rows * pitch; ++i) halves[i] = kGap;
  cast(halves_over(halves, rows, cols, pitch), matrix((void*)(uintptr_t)from, rows, cols));
  lowrank_tensor t = halves_over(to_device(halves, bytes), rows, cols, pitch);
  t.spare = spare;
  free(halves);
  return t;
}

static uint16_t* download(const lowrank_tensor* t) {
  const int64_t bytes = t->dims[0] * t->row_pitch * 2;
  uint16_t* halves = malloc((size_t)bytes);
  must(lowrank_download(second, halves, t->data, bytes));
  return halves;
}

static int gaps_are_kept(const lowrank_tensor* t) {
  uint16_t* halves = download(t);
  int kept = 1;
  for (int64_t row = 0; row < t->dims[0]; ++row)
    for (int64_t i = t->dims[1]; i < t->row_pitch; ++i) kept = kept && halves[row * t->row_pitch + i] == kGap;
  free(halves);
  return kept;
}

/* Rounded once, of `length` products that are at most `term` each, and of low-rank ones that add up to at most `low`. */
static int is_close(double found, double wanted, double stored, int64_t length, double term, double low) {
  const double sums = (double)length * term + low;
  return fabs(found - wanted) <= stored * fabs(wanted) + 4 * rounding * rounding * low + (double)length * ldexp(sums, -23);
}

static int rows_are_close(const lowrank_tensor* t, const float* wanted, int64_t length, double low) {
  const int64_t rows = t->dims[0], cols = t->dims[1];
  uint16_t* halves = download(t);
  float* found = malloc((size_t)(rows * cols) * sizeof(float));
  cast(matrix(found, rows, cols), halves_over(halves, rows, cols, t->row_pitch));
  int close = 1;
  for (int64_t i = 0; i < rows * cols; ++i) close = close && is_close(found[i], wanted[i], rounding, length, 0.25, low);
  free(halves), free(found);
  return close;
}

/* Gradients of A and B, in f32: sums over the tokens of what is at most `term`. */
static int sums_are_close(const float* device, const float* wanted, int64_t n, double term) {
  float* found = malloc((size_t)n * sizeof(float));
  must(lowrank_download(second, found, device, n * 4));
  int close = 1;
  for (int64_t i = 0; i < n; ++i) close = close && is_close(found[i], wanted[i], 0, kT, term, kT * term);
  free(found);
  return close;
}

typedef struct Case {
  const char* name;
  int64_t gap;
  int32_t spare;
  int packed, joined; /* joined: the low-rank product is to be made on the border */
} Case;

static lowrank_weight packed_weight(const lowrank_weight* stored) {
  int64_t bytes = 0;
  void* memory = NULL;
  lowrank_weight packed = {0};
  must(lowrank_packed_bytes(first, stored, dtype, &bytes));
  must(lowrank_allocate(first, bytes, &memory));
  must(lowrank_pack(first, stored, dtype, memory, &packed));
  return packed;
}

/* Forward by one context, backward by the other: the caller's stream is what orders them. */
static void check_case(const Layer* here, Case c) {
  /* At most: u = s x A^T, v = s dy B, of the first part and of the third. */
  const double u0 = 2 * kK / 4.0, u2 = 0.5 * kK / 4.0, v0 = 2 * kN0 / 4.0, v2 = 0.5 * kN2 / 4.0;
  lowrank_lora_linear_args forward = layer_args(here, 0, 1);
  lowrank_lora_linear_grad_args backward = layer_grad_args(here, 0, 1);
  Layer plain = make_layer(0); /* what dA and dB are added to */
  forward.x = there(here->x, kT, kK, c.gap, c.spare), forward.y = there(here->y, kT, kN, c.gap, c.spare);
  forward.u.data = to_device(here->u, kT * kRanks * 4);
  forward.a.data = to_device(here->a, kRanks * kK * 4), forward.b.data = to_device(here->b, kFlatB * 4);
  float* w = to_device(here->w, kN * kK * 4);
  forward.w.data[0] = w, forward.w.data[1] = w + kN0 * kK, forward.w.data[2] = w + (kN0 + kN1) * kK;
  if (c.packed) forward.w = packed_weight(&forward.w);
  backward.dy = there(here->dy, kT, kN, c.gap, c.spare), backward.dx = there(here->dx, kT, kK, c.gap, c.spare);
  backward.da.data = to_device(plain.da, kRanks * kK * 4), backward.db.data = to_device(plain.db, kFlatB * 4);
  backward.x = forward.x, backward.u = forward.u, backward.w = forward.w, backward.a = forward.a, backward.b = forward.b;
  char claim[160];
  snprintf(claim, sizeof claim, "%s: y, dx, dA and dB are the CPU's", c.name);
  CHECK(claim, lowrank_lora_linear(first, &forward) == LOWRANK_OK && lowrank_lora_linear_grad(second, &backward) == LOWRANK_OK &&
                   rows_are_close(&forward.y, here->y, kK, (3 * u0 + 2 * u2) / 2) && rows_are_close(&backward.dx, here->dx, kN, (3 * v0 + 2 * v2) / 2) &&
                   sums_are_close(backward.da.data, here->da, kRanks * kK, v0 / 2) && sums_are_close(backward.db.data, here->db, kFlatB, u0 / 2));
  snprintf(claim, sizeof claim, "%s: %s", c.name, c.joined ? "u and v are put on the border, beside x and dy" : "gaps keep what they hold");
  CHECK(claim, gaps_are_kept(&forward.x) == !c.joined && gaps_are_kept(&backward.dy) == !c.joined && gaps_are_kept(&forward.y) && gaps_are_kept(&backward.dx));
  free_layer(&plain);
}

static void check_refusals(const lowrank_weight* stored) {
  lowrank_weight packed = packed_weight(stored), again = {0};
  lowrank_linear_args args = {0};
  args.x = there((const float[kK]){0}, 1, kK, 0, 0), args.y = there((const float[kN]){0}, 1, kN, 0, 0), args.w = packed;
  CHECK("a packed weight serves every op that takes one", lowrank_linear(first, &args) == LOWRANK_OK);
  REFUSES("what is packed is not packed again", lowrank_pack(first, &packed, dtype, NULL, &again), LOWRANK_ERR_ARGUMENT, "packed yet");
  REFUSES("packing needs memory", lowrank_pack(first, stored, dtype, NULL, &again), LOWRANK_ERR_ARGUMENT, "256");
  args.w.row_pitch += 64;
  REFUSES("a packed weight is as it was packed", lowrank_linear(first, &args), LOWRANK_ERR_ARGUMENT, "lowrank_pack");
}

/* Two contexts with streams of their own. */
static void check_without_stream(void) {
  lowrank_context *one = open_emulator(NULL), *other = open_emulator(NULL);
  const float numbers[4] = {1, 2, 3, 4};
  void* memory = NULL;
  must(lowrank_allocate(one, 16, &memory));
  must(lowrank_upload(one, memory, numbers, 16));
  const lowrank_fill_args fill = {vector(memory, 4), 1};
  CHECK("without a common stream nothing orders two contexts", lowrank_fill(other, &fill) != LOWRANK_OK || lowrank_synchronize(other) != LOWRANK_OK);
  must(lowrank_release(one, memory, 16));
  lowrank_close(one), lowrank_close(other);
}

int main(int count, char** arguments) {
  dtype = count > 1 && strcmp(arguments[1], "f16") == 0 ? LOWRANK_F16 : LOWRANK_BF16;
  rounding = dtype == LOWRANK_F16 ? 1.0 / 2048 : 1.0 / 256;
  void* const stream = (void*)1; /* cudaStreamLegacy */
  cpu = open_cpu(1), first = open_emulator(stream), second = open_emulator(stream);
  Layer here = make_layer(0);
  round_numbers(here.x, kT * kK), round_numbers(here.dy, kT * kN), round_numbers(here.w, kN * kK);
  CHECK("the CPU has a layer to compare with", run_layer(cpu, &here, 0, 1));
  const Case cases[] = {{"rows without gaps", 0, 0, 0, 0},
                        {"rows with gaps", 3, 0, 0, 0},
                        {"rows with spare numbers", kBorder, kBorder, 0, 0},
                        {"a packed weight, rows without gaps", 0, 0, 1, 0},
                        {"a packed weight, rows with gaps", kBorder, 0, 1, 0},
                        {"a packed weight, rows with spare numbers", kBorder, kBorder, 1, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) check_case(&here, cases[i]);
  lowrank_weight stored = layer_weight(&here);
  float* w = to_device(here.w, kN * kK * 4);
  stored.data[0] = w, stored.data[1] = w + kN0 * kK, stored.data[2] = w + (kN0 + kN1) * kK;
  check_refusals(&stored);
  check_without_stream();
  lowrank_close(first), lowrank_close(second), lowrank_close(cpu);
  free_layer(&here);
  printf("%d failures\n", check_failures);
  return check_failures == 0 ? 0 : 1;
}
