// One block of queries against a range of keys: online softmax, as attention and attention_cache both run it.
//
// The H/G query heads that read one kv head lie side by side in every token's row, so a block of queries is a matrix of
// (tokens * H/G) rows that shares each packed block of keys and values. Row m belongs to token m / group.
#pragma once
#include <math.h>

#include "attention_tiles.h"

namespace lowrank::cpu::LOWRANK_ISA {
namespace {

constexpr int64_t kKeys = 64;       // keys of one block of scores
constexpr int64_t kQueryRows = 192;  // rows of a block of queries, about
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// What one kv head's queries attend to, inside one sequence. Query i sees keys j with i - window < j <= i (window 0: all j <= i).
struct HeadView {
  const float* q;  // of position q_first
  const float* k;  // of position 0
  const float* v;
  int64_t q_first, q_stride, kv_stride;
  int64_t group, size;  // H/G, D
  int64_t window;
  float scale;

  LOWRANK_INLINE int64_t padded() const { return round_up(size, kLanes); }
  LOWRANK_INLINE int64_t first_key(int64_t query) const { return window > 0 ? most(0, query - window + 1) : 0; }
};

struct Range {
  int64_t begin, end;
  LOWRANK_INLINE int64_t count() const { return end - begin; }
};

// body(m, token, head of the group) for `rows` rows from row `first` of a matrix of queries: the divisions, once.
template <class Body>
LOWRANK_INLINE void for_query_rows(int64_t first, int64_t rows, int64_t group, const Body& body) {
  int64_t token = first / group, h = first % group;
  for (int64_t m = 0; m < rows; ++m) {
    body(m, token, h);
    if (++h == group) {
      h = 0;
      ++token;
    }
  }
}

// Hands out 64-byte aligned pieces of a worker's memory; with base == nullptr it only counts.
struct Carver {
  float* base;
  int64_t used;
  LOWRANK_INLINE float* take(int64_t count) {
    float* piece = base == nullptr ? nullptr : base + used;
    used += round_up(count, 16);
    return piece;
  }
};

// Tokens of a query block: whole strips, and at least one.
LOWRANK_INLINE int64_t tokens_per_block(int64_t group) {
  int64_t common = group, rest = kStrip;  // Euclid
  while (rest != 0) {
    const int64_t next = common % rest;
    common = rest;
    rest = next;
  }
  const int64_t unit = kStrip / common;
  return unit * most(1, kQueryRows / (unit * group));
}

// The running state of a block of queries. Scores are in units of ln 2.
struct QueryRows {
  float* q;       // [rows, padded]
  float* y;       // [rows, padded], not yet divided by the sum
  float* maxima;  // [rows]
  float* sums;    // [rows, kLanes], a lane's share each
};

// What every block of keys needs anew.
struct KeyBlock {
  float* keys;     // [size, kKeys], scaled
  float* values;   // [kKeys, padded]
  float* scores;   // [kStrip, kKeys]
  float* factors;  // [kStrip, rounded up to a vector]
};

LOWRANK_INLINE QueryRows carve_rows(Carver& carver, const HeadView& head, int64_t rows) {
  const int64_t packed = rows * head.padded();
  return {carver.take(packed), carver.take(packed), carver.take(rows + kLanes), carver.take(rows * kLanes)};
}

LOWRANK_INLINE KeyBlock carve_keys(Carver& carver, const HeadView& head) {
  return {carver.take(head.size * kKeys), carver.take(kKeys * head.padded()), carver.take(kStrip * kKeys), carver.take(kStrip + kLanes)};
}

// The columns of a block of keys that a strip of rows sees: [first, end) by any of its rows; `whole` if by all of them.
struct Visible {
  int64_t first, end;
  bool whole;
};

// Columns of the block keys.begin.. that the query at `position` sees.
LOWRANK_INLINE Range columns_of(const HeadView& head, int64_t position, Range keys) {
  return {most(head.first_key(position) - keys.begin, 0), least(position + 1, keys.end) - keys.begin};
}

LOWRANK_INLINE Visible visible_to(const HeadView& head, int64_t first_token, int64_t last_token, Range keys) {
  const Range top = columns_of(head, first_token, keys), bottom = columns_of(head, last_token, keys);
  return {top.begin, bottom.end, bottom.begin == 0 && top.end == keys.count() && keys.count() % kLanes == 0};
}

LOWRANK_INLINE float row_maximum(const float* row, Range columns, Visible strip, float bound) {
  const RowTag d;
  auto top = hn::Set(d, bound);
  for (int64_t at = strip.first / kLanes * kLanes; at < strip.end; at += kLanes) {
    const auto v = hn::LoadU(d, row + at);
    top = hn::Max(top, strip.whole ? v : hn::IfThenElse(lanes_within(d, at, columns.begin, columns.end), v, top));
  }
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

// row = 2^(row - maximum), 0 where unseen; returns the lanes' sums.
LOWRANK_INLINE hn::Vec<RowTag> exponentiate(float* row, Range columns, Visible strip, float maximum) {
  const RowTag d;
  const auto shift = hn::Set(d, maximum);
  auto sum = hn::Zero(d);
  for (int64_t at = strip.first / kLanes * kLanes; at < strip.end; at += kLanes) {
    auto p = exp2_of_negative(d, hn::Sub(hn::LoadU(d, row + at), shift));
    if (!strip.whole) p = hn::IfThenElseZero(lanes_within(d, at, columns.begin, columns.end), p);
    hn::StoreU(p, d, row + at);
    sum = hn::Add(sum, p);
  }
  return sum;
}

// A strip's scores become probabilities relative to its new maxima; `factors`: how much what came before shrinks.
LOWRANK_INLINE void soften(const HeadView& head, const QueryRows& strip_rows, const KeyBlock& block, int64_t first_row, int64_t rows, Range keys,
                           Visible strip) {
  const RowTag d;
  float* maxima = strip_rows.maxima;
  for_query_rows(first_row, rows, head.group, [&](int64_t m, int64_t token, int64_t) {
    block.factors[m] = maxima[m];
    maxima[m] = row_maximum(block.scores + m * kKeys, columns_of(head, token, keys), strip, maxima[m]);
  });
  for (int64_t m = 0; m < rows; m += kLanes) {
    const auto shrink = hn::Sub(hn::LoadU(d, block.factors + m), hn::LoadU(d, maxima + m));
    hn::StoreU(exp2_of_negative(d, shrink), d, block.factors + m);
  }
  for_query_rows(first_row, rows, head.group, [&](int64_t m, int64_t token, int64_t) {
    const auto sum = exponentiate(block.scores + m * kKeys, columns_of(head, token, keys), strip, maxima[m]);
    float* sums = strip_rows.sums + m * kLanes;
    hn::StoreU(hn::MulAdd(hn::LoadU(d, sums), hn::Set(d, block.factors[m]), sum), d, sums);
  });
}

inline void begin_rows(const HeadView& head, const QueryRows& state, Range queries) {
  const int64_t padded = head.padded(), rows = queries.count() * head.group;
  for_query_rows((queries.begin - head.q_first) * head.group, rows, head.group, [&](int64_t m, int64_t token, int64_t h) {
    pack_row(state.q + m * padded, head.q + token * head.q_stride + h * head.size, head.size);
  });
  memset(state.y, 0, static_cast<size_t>(rows * padded) * sizeof(float));
  memset(state.sums, 0, static_cast<size_t>(rows * kLanes) * sizeof(float));
  for (int64_t m = 0; m < rows + kLanes; ++m) state.maxima[m] = -3e38f;
}

// Scores of at most 4 rows that all see all of `keys`, or will be masked; B is not packed.
LOWRANK_INLINE void score_few(const HeadView& head, const QueryRows& state, const KeyBlock& block, int64_t rows, Range keys) {
  const float* from = head.k + keys.begin * head.kv_stride;
  const float factor = head.scale * kLog2E;
  const int64_t ld = head.padded(), stride = head.kv_stride;
  if (rows == 1) multiply_rows_of<1>(block.scores, kKeys, state.q, ld, from, stride, keys.count(), ld, factor);
  if (rows == 2) multiply_rows_of<2>(block.scores, kKeys, state.q, ld, from, stride, keys.count(), ld, factor);
  if (rows == 3) multiply_rows_of<3>(block.scores, kKeys, state.q, ld, from, stride, keys.count(), ld, factor);
  if (rows == 4) multiply_rows_of<4>(block.scores, kKeys, state.q, ld, from, stride, keys.count(), ld, factor);
}

struct Values {
  const float* data;
  int64_t stride;
};

// Values are read once per strip: few strips read them where they are, if their rows are whole vectors.
LOWRANK_INLINE Values pack_values(const HeadView& head, const KeyBlock& block, Range keys, int64_t rows) {
  const float* from = head.v + keys.begin * head.kv_stride;
  const int64_t padded = head.padded();
  if (padded == head.size && rows <= kStrip) return {from, head.kv_stride};
  for (int64_t j = 0; j < keys.count(); ++j) pack_row(block.values + j * padded, from + j * head.kv_stride, head.size);
  return {block.values, padded};
}

// Adds what the keys of one block, at most kKeys, give to every query that sees them.
inline void attend_block(const HeadView& head, const QueryRows& state, const KeyBlock& block, Range queries, Range keys) {
  const int64_t padded = head.padded(), rows = queries.count() * head.group, first_row = queries.begin * head.group;
  const bool few = rows <= 4 && padded == head.size;
  if (few)
    score_few(head, state, block, rows, keys);
  else
    pack_transposed(block.keys, kKeys, head.k + keys.begin * head.kv_stride, head.kv_stride, keys.count(), head.size, head.scale * kLog2E);
  const Values values = pack_values(head, block, keys, rows);
  for (int64_t row = 0; row < rows; row += kStrip) {
    const int64_t count = least(kStrip, rows - row);
    const Visible strip = visible_to(head, (first_row + row) / head.group, (first_row + row + count - 1) / head.group, keys);
    if (strip.first >= strip.end) continue;
    const int64_t from = strip.first / kLanes * kLanes;
    const QueryRows strip_rows{state.q + row * padded, state.y + row * padded, state.maxima + row, state.sums + row * kLanes};
    if (!few)
      multiply<Start::zero>(count, round_up(strip.end, kLanes) - from,
                            {strip_rows.q, padded, block.keys + from, kKeys, block.scores + from, kKeys, head.size, nullptr});
    soften(head, strip_rows, block, first_row + row, count, keys, strip);
    multiply<Start::scale>(count, padded, {block.scores + from, kKeys, values.data + from * values.stride, values.stride, strip_rows.y, padded,
                                           strip.end - from, block.factors});
  }
}

// The finished row m: y / sum to `y`; returns the log of the sum, natural.
LOWRANK_INLINE float finish_row(const HeadView& head, const QueryRows& state, int64_t m, float* y) {
  const RowTag d;
  const float sum = hn::GetLane(hn::SumOfLanes(d, hn::LoadU(d, state.sums + m * kLanes)));
  const float* from = state.y + m * head.padded();
  map_row(head.size, [&](auto tag, int64_t i, auto part) {
    part.store(hn::Mul(hn::LoadU(tag, from + i), hn::Set(tag, 1.0f / sum)), tag, y + i);
  });
  return state.maxima[m] * kLn2 + logf(sum);
}

// Queries against all the keys that they see.
inline void attend(const HeadView& head, const QueryRows& state, const KeyBlock& block, Range queries) {
  begin_rows(head, state, queries);
  for (int64_t at = head.first_key(queries.begin); at < queries.end; at += kKeys)
    attend_block(head, state, block, queries, {at, least(at + kKeys, queries.end)});
}

}  // namespace
}  // namespace lowrank::cpu::LOWRANK_ISA
