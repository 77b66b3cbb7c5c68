#include "dtypes.cuh"
#include "kernels.h"
#include "map.cuh"

namespace lowrank::cuda {

namespace {

// y = x as f32 and rounded to To. The bits of a NaN are kept between equal types by copy, not here.
template <class To, class From>
struct CastBody {
  To* y;
  const From* x;

  template <int kCount>
  GPU_FN void at(int64_t i) const { store<kCount>(y + i, load<kCount>(x + i)); }
};

struct FillBody {
  float* y;
  float value;

  template <int kCount>
  GPU_FN void at(int64_t i) const {
    Floats<kCount> values;
    for (int j = 0; j < kCount; ++j) values.at[j] = value;
    store<kCount>(y + i, values);
  }
};

template <class T>
struct AddBody {
  T* y;
  const T* a;
  const T* b;

  template <int kCount>
  GPU_FN void at(int64_t i) const {
    Floats<kCount> sum = load<kCount>(a + i);
    const Floats<kCount> other = load<kCount>(b + i);
    for (int j = 0; j < kCount; ++j) sum.at[j] += other.at[j];
    store<kCount>(y + i, sum);
  }
};

void copy_bytes(Queue& queue, const Tensor& y, const Tensor& x) {
  if (x.bytes() == 0) return;
  Failure failure{};
  const auto bytes = static_cast<size_t>(x.bytes());
  if (!succeeded(cudaMemcpyAsync(y.data, x.data, bytes, cudaMemcpyDeviceToDevice, queue.stream()), "copy", &failure)) queue.fail(failure.code, "%s", failure.text);
}

}  // namespace

void copy(const Copy& op, Queue& queue) { copy_bytes(queue, op.y, op.x); }

void cast(const Cast& op, Queue& queue) {
  if (op.y.dtype == op.x.dtype) return copy_bytes(queue, op.y, op.x);
  with_frozen(op.x.dtype, [&](auto from) {
    with_frozen(op.y.dtype, [&](auto to) {
      using From = typename decltype(from)::Type;
      using To = typename decltype(to)::Type;
      const CastBody<To, From> body{op.y.as<To>(), op.x.as<From>()};
      map(queue, body, op.y.count(), fours(op.y.count(), body.y, body.x));
    });
  });
}

void fill(const Fill& op, Queue& queue) { map(queue, FillBody{op.y.f32(), op.value}, op.y.count(), fours(op.y.count(), op.y.f32())); }

void add(const Add& op, Queue& queue) {
  with_activation(op.y.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const AddBody<T> body{op.y.as<T>(), op.a.as<T>(), op.b.as<T>()};
    map(queue, body, op.y.count(), fours(op.y.count(), body.y, body.a, body.b));
  });
}

}  // namespace lowrank::cuda
