#include "dtypes.cuh"
#include "kernels.h"
#include "reports.cuh"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

template <class T>
struct Rope {
  T* x;                      // [rows, cols], the first `turned` heads of a row turn
  const int32_t* positions;  // [rows]
  const float* table;        // [limit, 2 half]
  Report* report;
  int64_t cols, turned, size, half, limit;
  float direction;
};

// A block is a row. Neighbouring threads have neighbouring angles.
template <class T>
__global__ void __launch_bounds__(kMostRowThreads) turn_rows(Rope<T> p) {
  const int64_t row = blockIdx.x;
  const int32_t position = p.positions[row];
  if (!in_range(position, p.limit, row, p.report)) return;
  const float* cosines = p.table + position * 2 * p.half;
  for_packs<1>(p.turned * p.half, [&](int64_t pair) {
    const int64_t angle = pair % p.half;
    T* low = p.x + row * p.cols + pair / p.half * p.size + angle;
    const float c = cosines[angle], s = cosines[p.half + angle] * p.direction, a = to_f32(*low), b = to_f32(low[p.half]);
    *low = from_f32<T>(a * c - b * s);
    low[p.half] = from_f32<T>(b * c + a * s);
  });
}

}  // namespace

void rope_inplace(const RopeInplace& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.x.rows());
  if (rows == 0) return;
  Report* report = queue.watch({"rope_inplace: position", op.table.rows()});
  if (report == nullptr) return;
  const int64_t turned = op.heads.query + op.heads.key_value, half = op.table.cols() / 2;
  with_activation(op.x.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    const Rope<T> p{op.x.as<T>(), op.positions.i32(), op.table.f32(), report, op.x.cols(), turned, op.heads.size(op.x), half, op.table.rows(), op.direction};
    GPU_LAUNCH((turn_rows<T>), rows, row_threads(turned * half, 1), 0, queue.stream(), p);
  });
}

}  // namespace lowrank::cuda
