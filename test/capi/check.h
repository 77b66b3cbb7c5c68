/* What the checks of the C ABI share: claims that print themselves, tensors, numbers. */
#ifndef LOWRANK_TEST_CHECK_H
#define LOWRANK_TEST_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lowrank.h"

static int check_failures = 0;

/* One line for each claim; test/capi/capi.test.ts reads them. */
#define CHECK(claim, condition)                                                                                         \
  do {                                                                                                                  \
    const int holds = (condition);                                                                                      \
    printf("%s %s\n", holds ? "ok" : "FAILED", claim);                                                                  \
    if (!holds) printf("  %s:%d: %s\n  last error: %s\n", __FILE__, __LINE__, #condition, lowrank_last_error()), ++check_failures; \
  } while (0)

/* Fails with this status and a sentence that holds these words. */
#define REFUSES(claim, call, status, words) CHECK(claim, (call) == (status) && lowrank_last_status() == (status) && strstr(lowrank_last_error(), words) != NULL)

static inline lowrank_tensor vector(void* data, int64_t n) {
  lowrank_tensor t = {0};
  t.data = data, t.rank = 1, t.dims[0] = n;
  return t;
}

static inline lowrank_tensor matrix(void* data, int64_t rows, int64_t cols) {
  lowrank_tensor t = {0};
  t.data = data, t.rank = 2, t.dims[0] = rows, t.dims[1] = cols;
  return t;
}

static inline lowrank_tensor pitched(void* data, int64_t rows, int64_t cols, int64_t pitch) {
  lowrank_tensor t = matrix(data, rows, cols);
  t.row_pitch = pitch;
  return t;
}

static inline lowrank_weight weight(const void* data, int64_t out, int64_t in) {
  lowrank_weight w = {0};
  w.data[0] = data, w.out[0] = out, w.in = in, w.parts = 1;
  return w;
}

/* Numbers in [-1/2, 1/2), the same for the same seed. */
static inline float* noise(int64_t n, uint32_t seed) {
  float* numbers = malloc((size_t)(n > 0 ? n : 1) * sizeof(float));
  for (int64_t i = 0; i < n; ++i) {
    seed = seed * 1664525u + 1013904223u;
    numbers[i] = (float)(seed >> 8) / 16777216.0f - 0.5f;
  }
  return numbers;
}

static inline lowrank_context* open_cpu(int32_t threads) {
  lowrank_options options = {0};
  lowrank_context* context = NULL;
  options.abi = LOWRANK_ABI, options.device_type = LOWRANK_CPU, options.threads = threads;
  if (lowrank_open(&options, &context) != LOWRANK_OK) printf("FAILED a CPU context opens: %s\n", lowrank_last_error()), exit(1);
  return context;
}

#endif
