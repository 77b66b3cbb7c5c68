#include "attention_blocks.h"

namespace lowrank::cpu::LOWRANK_ISA {
namespace {

// A run of the cache is read once for all heads, so that memory is read in one sweep. Enough runs for many cores,
// none so short that handing it over costs more than reading it.
constexpr int64_t kMostRuns = 64, kRunFloats = 16 * 1024;

struct CacheView {
  const AttentionCache& op;
  int64_t tokens, H, G, group, size;

  LOWRANK_INLINE explicit CacheView(const AttentionCache& cache)
      : op(cache), tokens(cache.qkv.rows()), H(cache.heads.query), G(cache.heads.key_value), group(H / G), size(cache.heads.size(cache.qkv)) {}

  LOWRANK_INLINE HeadView head(int64_t g) const {
    return {op.qkv.f32() + g * group * size, op.k_cache.f32() + g * size, op.v_cache.f32() + g * size, op.start, op.qkv.cols(), G * size,
            group, size, op.window, op.scale};
  }
  LOWRANK_INLINE float* y(int64_t token, int64_t h) const { return op.y.f32() + (token * H + h) * size; }
};

LOWRANK_INLINE void write_cache(const CacheView& view, const Context& context) {
  const AttentionCache& op = view.op;
  const int64_t row = view.G * view.size;
  const size_t bytes = static_cast<size_t>(row) * sizeof(float);
  for_rows(context, view.tokens, 2 * row, [&](int64_t t) {
    const float* from = op.qkv.f32() + t * op.qkv.cols() + view.H * view.size;
    memcpy(op.k_cache.f32() + (op.start + t) * row, from, bytes);
    memcpy(op.v_cache.f32() + (op.start + t) * row, from + row, bytes);
  });
}

// Many tokens: blocks of queries, as in attention.
inline void attend_many(const CacheView& view, const Context& context) {
  const int64_t step = least(tokens_per_block(view.group), view.tokens), blocks = (view.tokens + step - 1) / step;
  Carver all{nullptr, 0};
  carve_rows(all, view.head(0), step * view.group);
  carve_keys(all, view.head(0));
  float* memory = context.scratch_for<float>(-1, all.used * context.threads);
  if (memory == nullptr) return;
  context.parallel_for(blocks * view.G, [&](int64_t task, int worker) {
    const int64_t g = task % view.G, first = (blocks - 1 - task / view.G) * step;  // the last blocks have the most keys
    const HeadView head = view.head(g);
    Carver carver{memory + worker * all.used, 0};
    const QueryRows state = carve_rows(carver, head, step * view.group);
    const KeyBlock block = carve_keys(carver, head);
    const Range queries{view.op.start + first, view.op.start + least(first + step, view.tokens)};
    attend(head, state, block, queries);
    for_query_rows(first * view.group, queries.count() * view.group, view.group, [&](int64_t m, int64_t token, int64_t h) {
      finish_row(head, state, m, view.y(token, g * view.group + h));
    });
  });
}

// y of one row out of its parts, in the order of the runs. A part is what one run of keys gave to the rows of all heads: maxima
// [all_rows], sums [all_rows], and y [all_rows, padded], not yet divided by the sums.
LOWRANK_INLINE void join_parts(const float* parts, int64_t pitch, int64_t runs, int64_t all_rows, int64_t row, int64_t size, float* y) {
  const int64_t padded = round_up(size, kLanes);
  float maximum = parts[row], sum = 0;
  for (int64_t r = 1; r < runs; ++r) maximum = parts[r * pitch + row] > maximum ? parts[r * pitch + row] : maximum;
  for (int64_t r = 0; r < runs; ++r) sum += exp2f(parts[r * pitch + row] - maximum) * parts[r * pitch + all_rows + row];
  for (int64_t r = 0; r < runs; ++r) {
    const float share = exp2f(parts[r * pitch + row] - maximum) / sum;
    const float* from = parts + r * pitch + 2 * all_rows + row * padded;
    map_row(size, [&](auto d, int64_t i, auto part) {
      const auto v = hn::Mul(hn::LoadU(d, from + i), hn::Set(d, share));
      part.store(r == 0 ? v : hn::Add(v, part.load(d, y + i)), d, y + i);
    });
  }
}

// Asks for a share of the block that comes next, while this one is worked on: its rows are read in a pattern that
// the processor doesn't foresee.
LOWRANK_INLINE void prefetch_share(const CacheView& view, Range keys, int64_t share) {
  const int64_t floats = keys.count() * view.size, from = keys.begin * view.G * view.size + share * floats;
  for (int64_t i = from; i < from + floats; i += 16) {
    __builtin_prefetch(view.op.k_cache.f32() + i);
    __builtin_prefetch(view.op.v_cache.f32() + i);
  }
}

// Few tokens: the cache is cut into runs of keys.
inline void attend_few(const CacheView& view, const Context& context) {
  const AttentionCache& op = view.op;
  const RowTag d;
  const int64_t rows = view.tokens * view.group, all_rows = view.G * rows, padded = view.head(0).padded();
  const Range queries{op.start, op.start + view.tokens};
  const int64_t first = view.head(0).first_key(op.start), seen = queries.end - first;
  const int64_t run = round_up(most((seen + kMostRuns - 1) / kMostRuns, kRunFloats / (view.G * view.size)), kKeys), runs = (seen + run - 1) / run;
  Carver all{nullptr, 0};
  for (int64_t g = 0; g < view.G; ++g) carve_rows(all, view.head(g), rows);
  carve_keys(all, view.head(0));
  const int64_t pitch = all_rows * (2 + padded);
  float* memory = context.scratch_for<float>(-1, all.used * context.threads);
  float* parts = context.scratch_for<float>(-1, runs * pitch);
  if (memory == nullptr || parts == nullptr) return;

  context.parallel_for(runs, [&](int64_t r, int worker) {
    Carver carver{memory + worker * all.used, 0};
    const KeyBlock block = carve_keys(carver, view.head(0));
    const int64_t states = carver.used;
    for (int64_t g = 0; g < view.G; ++g) begin_rows(view.head(g), carve_rows(carver, view.head(g), rows), queries);
    const int64_t end = least(first + (r + 1) * run, queries.end);
    for (int64_t at = first + r * run; at < end; at += kKeys) {
      carver.used = states;
      for (int64_t g = 0; g < view.G; ++g) {
        if (at + kKeys < end) prefetch_share(view, {at + kKeys, least(at + 2 * kKeys, end)}, g);
        attend_block(view.head(g), carve_rows(carver, view.head(g), rows), block, queries, {at, least(at + kKeys, end)});
      }
    }
    carver.used = states;
    for (int64_t g = 0; g < view.G; ++g) {
      const QueryRows state = carve_rows(carver, view.head(g), rows);
      float* part = parts + r * pitch + g * rows;
      memcpy(part, state.maxima, static_cast<size_t>(rows) * sizeof(float));
      for (int64_t m = 0; m < rows; ++m) part[all_rows + m] = hn::GetLane(hn::SumOfLanes(d, hn::LoadU(d, state.sums + m * kLanes)));
      memcpy(parts + r * pitch + 2 * all_rows + g * rows * padded, state.y, static_cast<size_t>(rows * padded) * sizeof(float));
    }
  });
  for_rows(context, all_rows, runs * padded, [&](int64_t row) {
    join_parts(parts, pitch, runs, all_rows, row, view.size, view.y(row % rows / view.group, row / rows * view.group + row % view.group));
  });
}

}  // namespace

// Generation. One new token reads the whole cache for a few rows of queries: there memory is the limit, and the keys are cut
// into runs for several cores. With many tokens arithmetic is.
void attention_cache(const AttentionCache& op, const Context& context) {
  const CacheView view(op);
  if (view.tokens == 0) return;
  write_cache(view, context);
  if (view.tokens * view.group <= kStrip) return attend_few(view, context);
  attend_many(view, context);
}

}  // namespace lowrank::cpu::LOWRANK_ISA
