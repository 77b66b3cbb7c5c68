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
  const float* q;  // of position 0, which need not exist (see attention_cache)
  const float* k;
  const float* v;
  int64_t q_stride, kv_stride;
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
struct QueryBlock {
  float* q;         // [rows, padded]
  float* y;         // [rows, padded], not yet divided by the sum
  float* maxima;    // [rows]
  float* sums;      // [rows, kLanes], a lane's share each
  float* keys;      // [size, kKeys], scaled
  float* values;    // [kKeys, padded]
  float* scores;    // [kStrip, kKeys]
  float* factors;   // [kStrip, rounded up to a vector]

  LOWRANK_INLINE QueryBlock(Carver carver, int64_t rows, const HeadView& head, int64_t* bytes) {
    const int64_t padded = head.padded();
    q = carver.take(rows * padded);
    y = carver.take(rows * padded);
    maxima = carver.take(rows + kStrip);
    sums = carver.take(rows * kLanes);
    keys = carver.take(head.size * kKeys);
    values = carver.take(kKeys * padded);
    scores = carver.take(kStrip * kKeys);
    factors = carver.take(kStrip + kLanes);
    if (bytes != nullptr) *bytes = carver.used * static_cast<int64_t>(sizeof(float));
  }
};

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

// Scores of a strip to probabilities relative to the new maxima; factors = how much the old sums shrink.
LOWRANK_INLINE void soften(const HeadView& head, const QueryBlock& block, Range queries, int64_t row, int64_t rows, Range keys, Visible strip) {
  const RowTag d;
  float* maxima = block.maxima + row;
  for (int64_t m = 0; m < rows; ++m) {
    const Range columns = columns_of(head, queries.begin + (row + m) / head.group, keys);
    block.factors[m] = maxima[m];
    maxima[m] = row_maximum(block.scores + m * kKeys, columns, strip, maxima[m]);
  }
  for (int64_t m = 0; m < rows; m += kLanes) {
    const auto shrink = hn::Sub(hn::LoadU(d, block.factors + m), hn::LoadU(d, maxima + m));
    hn::StoreU(exp2_of_negative(d, shrink), d, block.factors + m);
  }
  for (int64_t m = 0; m < rows; ++m) {
    const Range columns = columns_of(head, queries.begin + (row + m) / head.group, keys);
    const auto sum = exponentiate(block.scores + m * kKeys, columns, strip, maxima[m]);
    float* sums = block.sums + (row + m) * kLanes;
    hn::StoreU(hn::MulAdd(hn::LoadU(d, sums), hn::Set(d, block.factors[m]), sum), d, sums);
  }
}

LOWRANK_INLINE void begin_block(const HeadView& head, const QueryBlock& block, Range queries) {
  const int64_t padded = head.padded(), rows = queries.count() * head.group;
  for (int64_t m = 0; m < rows; ++m)
    pack_row(block.q + m * padded, head.q + (queries.begin + m / head.group) * head.q_stride + m % head.group * head.size, head.size);
  memset(block.y, 0, static_cast<size_t>(rows * padded) * sizeof(float));
  memset(block.sums, 0, static_cast<size_t>(rows * kLanes) * sizeof(float));
  for (int64_t m = 0; m < rows + kLanes; ++m) block.maxima[m] = -3e38f;
}

// Adds what the keys of one block give to every query that sees them.
inline void attend_block(const HeadView& head, const QueryBlock& block, Range queries, Range keys) {
  const int64_t padded = head.padded(), rows = queries.count() * head.group;
  pack_transposed(block.keys, kKeys, head.k + keys.begin * head.kv_stride, head.kv_stride, keys.count(), head.size, head.scale * kLog2E);
  for (int64_t j = 0; j < keys.count(); ++j) pack_row(block.values + j * padded, head.v + (keys.begin + j) * head.kv_stride, head.size);
  for (int64_t row = 0; row < rows; row += kStrip) {
    const int64_t strip_rows = least(kStrip, rows - row);
    const Visible strip = visible_to(head, queries.begin + row / head.group, queries.begin + (row + strip_rows - 1) / head.group, keys);
    if (strip.first >= strip.end) continue;
    const int64_t from = strip.first / kLanes * kLanes;
    multiply<Start::zero>(strip_rows, round_up(strip.end, kLanes) - from,
                          {block.q + row * padded, padded, block.keys + from, kKeys, block.scores + from, kKeys, head.size, nullptr});
    soften(head, block, queries, row, strip_rows, keys, strip);
    multiply<Start::scale>(strip_rows, padded,
                           {block.scores + from, kKeys, block.values + from * padded, padded, block.y + row * padded, padded,
                            strip.end - from, block.factors});
  }
}

// Queries against all of `keys` that they see.
inline void attend(const HeadView& head, const QueryBlock& block, Range queries, Range keys) {
  begin_block(head, block, queries);
  const int64_t begin = most(keys.begin, head.first_key(queries.begin)), end = least(keys.end, queries.end);
  for (int64_t at = begin; at < end; at += kKeys) attend_block(head, block, queries, {at, least(at + kKeys, end)});
}

// The finished row m: y / sum to `y`; returns the log of the sum, natural.
LOWRANK_INLINE float finish_row(const HeadView& head, const QueryBlock& block, int64_t m, float* y) {
  const RowTag d;
  const float sum = hn::GetLane(hn::SumOfLanes(d, hn::LoadU(d, block.sums + m * kLanes)));
  const float* from = block.y + m * head.padded();
  map_row(head.size, [&](auto tag, int64_t i, auto part) {
    part.store(hn::Mul(hn::LoadU(tag, from + i), hn::Set(tag, 1.0f / sum)), tag, y + i);
  });
  return block.maxima[m] * kLn2 + logf(sum);
}

}  // namespace
}  // namespace lowrank::cpu::LOWRANK_ISA
