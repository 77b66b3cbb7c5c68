/* A LoRA layer with its gradient, as data: q|k|v of ragged sizes, dropout, rows with or without gaps. */
#ifndef LOWRANK_TEST_LAYER_H
#define LOWRANK_TEST_LAYER_H

#include "check.h"

enum { kT = 37, kK = 29, kN0 = 23, kN1 = 7, kN2 = 11, kN = kN0 + kN1 + kN2, kRanks = 5, kFlatB = kN0 * 3 + kN2 * 2 };

typedef struct Layer {
  float *x, *w, *a, *b, *dy, *y, *u, *dx, *da, *db;
  int64_t x_pitch, y_pitch;
} Layer;

static inline float* spaced(const float* from, int64_t rows, int64_t cols, int64_t pitch, float gap) {
  float* to = malloc((size_t)(rows * pitch) * sizeof(float));
  for (int64_t i = 0; i < rows * pitch; ++i) to[i] = gap;
  for (int64_t i = 0; from != NULL && i < rows; ++i) memcpy(to + i * pitch, from + i * cols, (size_t)cols * sizeof(float));
  return to;
}

static inline Layer make_layer(int64_t gap) {
  Layer layer;
  float *x = noise(kT * kK, 1), *dy = noise(kT * kN, 2);
  layer.x_pitch = kK + gap, layer.y_pitch = kN + gap;
  layer.x = spaced(x, kT, kK, layer.x_pitch, 7), layer.dy = spaced(dy, kT, kN, layer.y_pitch, 7);
  layer.y = spaced(NULL, kT, kN, layer.y_pitch, 7), layer.dx = spaced(NULL, kT, kK, layer.x_pitch, 7);
  layer.w = noise(kN * kK, 3), layer.a = noise(kRanks * kK, 4), layer.b = noise(kFlatB, 5);
  layer.u = noise(kT * kRanks, 6), layer.da = noise(kRanks * kK, 7), layer.db = noise(kFlatB, 8);
  free(x), free(dy);
  return layer;
}

static inline void free_layer(Layer* layer) {
  float* all[] = {layer->x, layer->w, layer->a, layer->b, layer->dy, layer->y, layer->u, layer->dx, layer->da, layer->db};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) free(all[i]);
}

static inline lowrank_weight layer_weight(const Layer* layer) {
  lowrank_weight w = weight(layer->w, kN0, kK);
  w.parts = 3;
  w.data[1] = layer->w + kN0 * kK, w.out[1] = kN1;
  w.data[2] = layer->w + (kN0 + kN1) * kK, w.out[2] = kN2;
  return w;
}

/* The middle part has no adapter. */
static inline lowrank_lora_linear_args layer_args(const Layer* layer, float dropout, uint32_t step) {
  lowrank_lora_linear_args args = {0};
  args.y = pitched(layer->y, kT, kN, layer->y_pitch), args.u = matrix(layer->u, kT, kRanks), args.x = pitched(layer->x, kT, kK, layer->x_pitch);
  args.w = layer_weight(layer), args.a = matrix(layer->a, kRanks, kK), args.b = vector(layer->b, kFlatB);
  args.rank[0] = 3, args.rank[2] = 2;
  args.scale[0] = 2, args.scale[2] = 0.5f;
  args.layer[2] = 9;
  args.dropout = dropout, args.seed_low = 5, args.step = step;
  return args;
}

static inline lowrank_lora_linear_grad_args layer_grad_args(const Layer* layer, float dropout, uint32_t step) {
  const lowrank_lora_linear_args forward = layer_args(layer, dropout, step);
  lowrank_lora_linear_grad_args args = {0};
  args.dx = pitched(layer->dx, kT, kK, layer->x_pitch), args.da = matrix(layer->da, kRanks, kK), args.db = vector(layer->db, kFlatB);
  args.dy = pitched(layer->dy, kT, kN, layer->y_pitch), args.x = forward.x, args.u = forward.u, args.w = forward.w, args.a = forward.a, args.b = forward.b;
  memcpy(args.rank, forward.rank, sizeof args.rank), memcpy(args.scale, forward.scale, sizeof args.scale), memcpy(args.layer, forward.layer, sizeof args.layer);
  args.dropout = dropout, args.seed_low = forward.seed_low, args.step = step;
  return args;
}

/* Forward and backward. */
static inline int run_layer(lowrank_context* context, const Layer* layer, float dropout, uint32_t step) {
  const lowrank_lora_linear_args forward = layer_args(layer, dropout, step);
  const lowrank_lora_linear_grad_args backward = layer_grad_args(layer, dropout, step);
  return lowrank_lora_linear(context, &forward) == LOWRANK_OK && lowrank_lora_linear_grad(context, &backward) == LOWRANK_OK;
}

static inline int same_rows(const float* a, int64_t a_pitch, const float* b, int64_t b_pitch, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i)
    if (memcmp(a + i * a_pitch, b + i * b_pitch, (size_t)cols * sizeof(float)) != 0) return 0;
  return 1;
}

static inline int same_results(const Layer* a, const Layer* b) {
  return same_rows(a->y, a->y_pitch, b->y, b->y_pitch, kT, kN) && same_rows(a->dx, a->x_pitch, b->dx, b->x_pitch, kT, kK) &&
         same_rows(a->u, kRanks, b->u, kRanks, kT, kRanks) && same_rows(a->da, kK, b->da, kK, kRanks, kK) && memcmp(a->db, b->db, kFlatB * sizeof(float)) == 0;
}

#endif
