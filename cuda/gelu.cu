#include "activation.cuh"
#include "dtypes.cuh"
#include "kernels.h"
#include "map.cuh"

namespace lowrank::cuda {

namespace {

// Both forms are x P(x), P rising from 0 to 1; the slope is P(x) + x P'(x). Outside [-15, 15] P is 0 or 1 and x P' is 0, so P is asked
// there no more: x^2 would be infinite, and infinity times 0 is NaN.
GPU_FN float inside(float x) { return x > 15.0f ? 15.0f : x < -15.0f ? -15.0f : x; }

struct ByErf {
  GPU_FN static float gate(float x) { return normal_below(inside(x)); }
  GPU_FN static float slope(float x) {
    const float z = inside(x);
    return normal_below(z) + z * 0.398942280f * expf(-0.5f * z * z);  // 1 / sqrt(2 pi)
  }
};

// (1 + tanh(u)) / 2 = sigmoid(2u), which keeps the digits of the lower tail.
struct ByTanh {
  static constexpr float kLinear = 1.59576912f;   // 2 sqrt(2/pi)
  static constexpr float kCubic = 0.0713548163f;  // 0.044715 of that

  GPU_FN static float gate(float x) {
    const float z = inside(x);
    return sigmoid(z * (z * z * kCubic + kLinear));
  }
  GPU_FN static float slope(float x) {
    const float z = inside(x), q = gate(z);
    return z * (z * z * (3 * kCubic) + kLinear) * q * (1.0f - q) + q;
  }
};

template <class Form, class T>
struct GeluBody {
  Rows<T> y;
  Rows<const T> x;

  template <int kCount>
  GPU_FN void at(int64_t row, int64_t i) const {
    Floats<kCount> v = load<kCount>(x.at(row) + i);
    for (int j = 0; j < kCount; ++j) v.at[j] *= Form::gate(v.at[j]);
    store<kCount>(y.at(row) + i, v);
  }
};

template <class Form, class T>
struct GeluGradBody {
  Rows<T> dx;
  Rows<const T> dy;
  Rows<const T> x;

  template <int kCount>
  GPU_FN void at(int64_t row, int64_t i) const {
    const Floats<kCount> v = load<kCount>(x.at(row) + i);
    Floats<kCount> d = load<kCount>(dy.at(row) + i);
    for (int j = 0; j < kCount; ++j) d.at[j] *= Form::slope(v.at[j]);
    store<kCount>(dx.at(row) + i, d);
  }
};

template <class Form, class T>
void run(const Gelu& op, Queue& queue) {
  const GeluBody<Form, T> body{rows_of<T>(op.y), rows_of<const T>(op.x)};
  const MapShape shape = map_shape(op.y, op.x);
  by_packs<kPack<T>>(shape.cols, [&](auto count) { map<decltype(count)::value>(queue, body, shape); }, body.y, body.x);
}

template <class Form, class T>
void run(const GeluGrad& op, Queue& queue) {
  const GeluGradBody<Form, T> body{rows_of<T>(op.dx), rows_of<const T>(op.dy), rows_of<const T>(op.x)};
  const MapShape shape = map_shape(op.dx, op.dy, op.x);
  by_packs<kPack<T>>(shape.cols, [&](auto count) { map<decltype(count)::value>(queue, body, shape); }, body.dx, body.dy, body.x);
}

template <class Op>
void run_form(const Op& op, Queue& queue) {
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    op.form == 0 ? run<ByErf, T>(op, queue) : run<ByTanh, T>(op, queue);
  });
}

}  // namespace

void gelu(const Gelu& op, Queue& queue) { run_form(op, queue); }
void gelu_grad(const GeluGrad& op, Queue& queue) { run_form(op, queue); }

}  // namespace lowrank::cuda
