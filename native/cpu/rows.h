// How kernels walk: rows in parallel, a row by vectors with its ragged end.
#pragma once
#include "load.h"

namespace lowrank::cpu::LOWRANK_ISA {

// About what a core does in 10 us; smaller tasks lose more in the hand-over than they gain.
constexpr int64_t kTaskElements = 16 * 1024;

// body(row) for every row, in tasks of whole rows. The split depends on the shape alone.
template <class Body>
LOWRANK_INLINE void for_rows(const Context& context, int64_t rows, int64_t cols, const Body& body) {
  const int64_t chunk = cols >= kTaskElements ? 1 : kTaskElements / (cols < 1 ? 1 : cols);
  context.parallel_for((rows + chunk - 1) / chunk, [&](int64_t task, int) {
    const int64_t end = (task + 1) * chunk < rows ? (task + 1) * chunk : rows;
    for (int64_t row = task * chunk; row < end; ++row) body(row);
  });
}

// body(start, n) for [0, count) cut into spans of `size`, the last one ragged.
template <class Body>
LOWRANK_INLINE void for_spans(const Context& context, int64_t count, int64_t size, const Body& body) {
  context.parallel_for((count + size - 1) / size, [&](int64_t task, int) {
    const int64_t start = task * size;
    body(start, count - start < size ? count - start : size);
  });
}

// A whole vector, and the ragged end of a row: the same body is compiled for both.
struct Whole {
  template <class D, class T>
  LOWRANK_INLINE hn::Vec<D> load(D d, const T* p) const { return load_f32(d, p); }
  template <class V, class D>
  LOWRANK_INLINE void store(V v, D d, float* p) const { hn::StoreU(v, d, p); }
  template <class V, class D>
  LOWRANK_INLINE V keep(V v, D) const { return v; }
};

struct Ragged {
  int64_t n;
  template <class D, class T>
  LOWRANK_INLINE hn::Vec<D> load(D d, const T* p) const { return load_f32_n(d, p, n); }
  template <class V, class D>
  LOWRANK_INLINE void store(V v, D d, float* p) const {
    HWY_ALIGN float lanes[HWY_MAX_BYTES / sizeof(float)];
    hn::Store(v, d, lanes);
    memcpy(p, lanes, static_cast<size_t>(n) * sizeof(float));
  }
  // Zero beyond the end, for sums of what a body makes out of padding.
  template <class V, class D>
  LOWRANK_INLINE V keep(V v, D d) const { return hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n)), v); }
};

using RowTag = hn::ScalableTag<float>;

// body(d, i, part) over [0, cols): part is Whole or Ragged and does the loads and stores.
template <class Body>
LOWRANK_INLINE void map_row(int64_t cols, const Body& body) {
  const RowTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= cols; i += lanes) body(d, i, Whole{});
  if (i < cols) body(d, i, Ragged{cols - i});
}

// The sum of body(d, i, part) over [0, cols), in four chains so that additions overlap.
template <class Body>
LOWRANK_INLINE float sum_of(int64_t cols, const Body& body) {
  const RowTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= cols; i += 4 * lanes) {
    s0 = hn::Add(s0, body(d, i, Whole{}));
    s1 = hn::Add(s1, body(d, i + lanes, Whole{}));
    s2 = hn::Add(s2, body(d, i + 2 * lanes, Whole{}));
    s3 = hn::Add(s3, body(d, i + 3 * lanes, Whole{}));
  }
  for (; i + lanes <= cols; i += lanes) s0 = hn::Add(s0, body(d, i, Whole{}));
  if (i < cols) {
    const Ragged part{cols - i};
    s1 = hn::Add(s1, part.keep(body(d, i, part), d));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

struct TwoSums {
  float first, second;
};

template <class V>
struct TwoTerms {
  V first, second;
};

// Like sum_of, for a body that returns two terms: one walk over the row gives both sums.
template <class Body>
LOWRANK_INLINE TwoSums two_sums_of(int64_t cols, const Body& body) {
  const RowTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto a0 = hn::Zero(d), a1 = a0, b0 = a0, b1 = a0;
  int64_t i = 0;
  for (; i + 2 * lanes <= cols; i += 2 * lanes) {
    const auto even = body(d, i, Whole{});
    const auto odd = body(d, i + lanes, Whole{});
    a0 = hn::Add(a0, even.first);
    b0 = hn::Add(b0, even.second);
    a1 = hn::Add(a1, odd.first);
    b1 = hn::Add(b1, odd.second);
  }
  for (; i < cols; i += lanes) {
    const Ragged part{cols - i < lanes ? cols - i : lanes};
    const auto last = body(d, i, part);
    a0 = hn::Add(a0, part.keep(last.first, d));
    b0 = hn::Add(b0, part.keep(last.second, d));
  }
  return {hn::GetLane(hn::SumOfLanes(d, hn::Add(a0, a1))), hn::GetLane(hn::SumOfLanes(d, hn::Add(b0, b1)))};
}

}  // namespace lowrank::cpu::LOWRANK_ISA
