#include "dtypes.cuh"
#include "kernels.h"
#include "map.cuh"

namespace lowrank::cuda {

namespace {

// y = x as f32 and rounded to To. The bits of a NaN are kept between equal types by CopyBody, not here.
template <class To, class From>
struct CastBody {
  Rows<To> y;
  Rows<const From> x;

  template <int kCount>
  GPU_FN void at(int64_t row, int64_t i) const { store<kCount>(y.at(row) + i, load<kCount>(x.at(row) + i)); }
};

template <class T>
struct FillBody {
  Rows<T> y;
  float value;

  template <int kCount>
  GPU_FN void at(int64_t row, int64_t i) const {
    Floats<kCount> values;
    for (int j = 0; j < kCount; ++j) values.at[j] = value;
    store<kCount>(y.at(row) + i, values);
  }
};

template <class T>
struct AddBody {
  Rows<T> y;
  Rows<const T> a;
  Rows<const T> b;

  template <int kCount>
  GPU_FN void at(int64_t row, int64_t i) const {
    Floats<kCount> sum = load<kCount>(a.at(row) + i);
    const Floats<kCount> other = load<kCount>(b.at(row) + i);
    for (int j = 0; j < kCount; ++j) sum.at[j] += other.at[j];
    store<kCount>(y.at(row) + i, sum);
  }
};

// Rows with spare columns; only numbers of 16 bits have any.
struct CopyBody {
  Rows<uint16_t> y;
  Rows<const uint16_t> x;

  template <int kCount>
  GPU_FN void at(int64_t row, int64_t i) const {
    using Whole = Pack<uint16_t, kCount>;
    *reinterpret_cast<Whole*>(y.at(row) + i) = *reinterpret_cast<const Whole*>(x.at(row) + i);
  }
};

void copy_bits(Queue& queue, const Tensor& y, const Tensor& x) {
  if (x.bytes() == 0) return;
  if (!y.contiguous() || !x.contiguous()) {
    const CopyBody body{rows_of<uint16_t>(y), rows_of<const uint16_t>(x)};
    return by_packs<8>(y.cols(), [&](auto count) { map<decltype(count)::value>(queue, body, map_shape(y, x)); }, body.y, body.x);
  }
  Failure failure{};
  const auto bytes = static_cast<size_t>(x.bytes());
  if (!succeeded(cudaMemcpyAsync(y.data, x.data, bytes, cudaMemcpyDeviceToDevice, queue.stream()), "copy", &failure)) queue.fail(failure.code, "%s", failure.text);
}

template <class To, class From>
void cast_rows(const Cast& op, Queue& queue) {
  constexpr int kCount = kPack<To> > kPack<From> ? kPack<To> : kPack<From>;
  const CastBody<To, From> body{rows_of<To>(op.y), rows_of<const From>(op.x)};
  const MapShape shape = map_shape(op.y, op.x);
  by_packs<kCount>(shape.cols, [&](auto count) { map<decltype(count)::value>(queue, body, shape); }, body.y, body.x);
}

}  // namespace

void copy(const Copy& op, Queue& queue) { copy_bits(queue, op.y, op.x); }

void cast(const Cast& op, Queue& queue) {
  if (op.y.dtype == op.x.dtype) return copy_bits(queue, op.y, op.x);
  with_frozen(op.x.dtype, [&](auto from) {
    with_frozen(op.y.dtype, [&](auto to) { cast_rows<typename decltype(to)::Type, typename decltype(from)::Type>(op, queue); });
  });
}

void fill(const Fill& op, Queue& queue) {
  with_activation(op.y.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const FillBody<T> body{rows_of<T>(op.y), op.value};
    const MapShape shape = map_shape(op.y);
    by_packs<kPack<T>>(shape.cols, [&](auto count) { map<decltype(count)::value>(queue, body, shape); }, body.y);
  });
}

void add(const Add& op, Queue& queue) {
  with_activation(op.y.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const AddBody<T> body{rows_of<T>(op.y), rows_of<const T>(op.a), rows_of<const T>(op.b)};
    const MapShape shape = map_shape(op.y, op.a, op.b);
    by_packs<kPack<T>>(shape.cols, [&](auto count) { map<decltype(count)::value>(queue, body, shape); }, body.y, body.a, body.b);
  });
}

}  // namespace lowrank::cuda
