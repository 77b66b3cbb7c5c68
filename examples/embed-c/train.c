/* A LoRA layer over a frozen bf16 matrix, trained from C: forward, loss, gradients and AdamW are lowrank's, the memory is ours.
 *
 *   cc -std=c99 train.c $(pkg-config --cflags --libs lowrank) -lm -o train && ./train
 *
 * Prints loss and gradient norm of each step; PEFT's for the same numbers are in test/golden/embed.json. */
#include <lowrank.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { T = 24, K = 40, N = 27, R = 4, STEPS = 20, PARAMETERS = R * K + N * R };
static const float kAlpha = 8, kRate = 0.02f, kClip = 0.25f;
static const double kBeta1 = 0.9, kBeta2 = 0.999; /* their powers are close to 1: a float would lose digits of 1 - beta^step */

/* What is trained: A and B one behind the other, with their gradient and moments. */
typedef struct {
  float parameters[PARAMETERS], gradient[PARAMETERS], m[PARAMETERS], v[PARAMETERS];
} Arena;

typedef struct {
  uint16_t w0[N * K]; /* bf16 */
  float x[T * K], y[T * N], u[T * R];
  int32_t targets[T];
  Arena arena;
} Layer;

static void must(lowrank_status status) {
  if (status == LOWRANK_OK) return;
  fprintf(stderr, "%s: %s\n", lowrank_status_name(status), lowrank_last_error());
  exit(1);
}

static lowrank_tensor matrix(void* data, int64_t rows, int64_t cols) {
  const lowrank_tensor tensor = {.data = data, .rank = 2, .dims = {rows, cols}};
  return tensor;
}

static lowrank_tensor vector(void* data, int64_t count) {
  const lowrank_tensor tensor = {.data = data, .rank = 1, .dims = {count}};
  return tensor;
}

static void fill_noise(float* numbers, int count, uint32_t seed, float scale) {
  for (int i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    numbers[i] = ((float)(seed >> 8) / 16777216.0f - 0.5f) * scale;
  }
}

/* A by noise, B zero: at first the layer is W0 alone. */
static void set_up(lowrank_context* context, Layer* layer) {
  float w0[N * K];
  fill_noise(w0, N * K, 2, 1);
  lowrank_cast_args cast = {.y = matrix(layer->w0, N, K), .x = matrix(w0, N, K)};
  cast.y.dtype = LOWRANK_BF16;
  must(lowrank_cast(context, &cast));
  fill_noise(layer->x, T * K, 1, 1);
  fill_noise(layer->arena.parameters, R * K, 10, 0.5f);
  for (int t = 0; t < T; ++t) layer->targets[t] = t * 7 % N;
}

/* The mean loss; the gradient of A and B is in the arena. */
static float forward_backward(lowrank_context* context, Layer* layer, float* loss_sum) {
  Arena* arena = &layer->arena;
  const lowrank_weight w = {.data = {layer->w0}, .out = {N}, .in = K, .dtype = LOWRANK_BF16, .parts = 1};
  const lowrank_tensor x = matrix(layer->x, T, K), y = matrix(layer->y, T, N), u = matrix(layer->u, T, R);
  const lowrank_tensor a = matrix(arena->parameters, R, K), b = matrix(arena->parameters + R * K, N, R);
  must(lowrank_lora_linear(context, &(lowrank_lora_linear_args){.y = y, .u = u, .x = x, .w = w, .a = a, .b = b, .rank = {R}, .scale = {kAlpha / R}}));

  lowrank_tensor targets = vector(layer->targets, T);
  targets.dtype = LOWRANK_I32;
  must(lowrank_cross_entropy_inplace(context, &(lowrank_cross_entropy_inplace_args){.loss = vector(loss_sum, 1), .logits = y, .targets = targets, .scale = 1.0f / T}));

  /* y holds dy now. dx is not given: below this layer nothing is trained. */
  must(lowrank_fill(context, &(lowrank_fill_args){.y = vector(arena->gradient, PARAMETERS), .value = 0}));
  must(lowrank_lora_linear_grad(context, &(lowrank_lora_linear_grad_args){.da = matrix(arena->gradient, R, K), .db = matrix(arena->gradient + R * K, N, R), .dy = y,
                                .x = x, .u = u, .w = w, .a = a, .b = b, .rank = {R}, .scale = {kAlpha / R}}));
  return *loss_sum / T;
}

/* Changes nothing if loss or gradient are not finite. Returns the gradient's norm before clipping. */
static float update(lowrank_context* context, Arena* arena, float* loss_sum, int step) {
  float squares = 0;
  const lowrank_tensor g = vector(arena->gradient, PARAMETERS), sum = vector(&squares, 1);
  must(lowrank_sum_squares(context, &(lowrank_sum_squares_args){.sum = sum, .x = g}));
  must(lowrank_adamw(context, &(lowrank_adamw_args){.p = vector(arena->parameters, PARAMETERS), .m = vector(arena->m, PARAMETERS), .v = vector(arena->v, PARAMETERS),
                     .g = g, .sum_squares = sum, .losses = vector(loss_sum, 1), .clip = kClip, .lr = kRate, .beta1 = (float)kBeta1, .beta2 = (float)kBeta2, .eps = 1e-8f,
                     .weight_decay = 0.01f, .correction1 = (float)(1 - pow(kBeta1, step)), .correction2 = (float)(1 - pow(kBeta2, step))}));
  return sqrtf(squares);
}

int main(void) {
  lowrank_context* context = NULL;
  must(lowrank_open(&(lowrank_options){.abi = LOWRANK_ABI, .device_type = LOWRANK_CPU, .threads = 2}, &context));
  Layer* layer = calloc(1, sizeof *layer);
  if (layer == NULL) return 1;
  set_up(context, layer);
  for (int step = 1; step <= STEPS; ++step) {
    float loss_sum = 0;
    const float loss = forward_backward(context, layer, &loss_sum);
    printf("%.9g %.9g\n", loss, update(context, &layer->arena, &loss_sum, step));
  }
  free(layer);
  lowrank_close(context);
}
