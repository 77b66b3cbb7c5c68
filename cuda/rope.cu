#include "dtypes.cuh"
#include "kernels.h"
#include "reports.cuh"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

template <class T>
struct Rope {
  Rows<T> x;                 // the first `turned` heads of a row turn
  const int32_t* positions;  // [rows]
  const float* table;        // [limit, 2 half]
  Report* report;
  int64_t turned, size, half, limit;
  float direction;
};

// A block is a row. Neighbouring threads have neighbouring angles.
template <int kCount, class T>
__global__ void __launch_bounds__(kMostRowThreads) turn_rows(Rope<T> p) {
  const int64_t row = blockIdx.x;
  const int32_t position = p.positions[row];
  if (!in_range(position, p.limit, row, p.report)) return;
  const float* cosines = p.table + position * 2 * p.half;
  T* x = p.x.at(row);
  for_packs<kCount>(p.turned * p.half, [&](int64_t pair) {
    const int64_t angle = pair % p.half;
    T* low = x + pair / p.half * p.size + angle;
    const Floats<kCount> c = load<kCount>(cosines + angle), sines = load<kCount>(cosines + p.half + angle);
    Floats<kCount> a = load<kCount>(low), b = load<kCount>(low + p.half);
    for (int j = 0; j < kCount; ++j) {
      const float s = sines.at[j] * p.direction, before = a.at[j];
      a.at[j] = before * c.at[j] - b.at[j] * s;
      b.at[j] = b.at[j] * c.at[j] + before * s;
    }
    store<kCount>(low, a);
    store<kCount>(low + p.half, b);
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
    const Rope<T> p{rows_of<T>(op.x), op.positions.i32(), op.table.f32(), report, turned, op.heads.size(op.x), half, op.table.rows(), op.direction};
    const bool whole = p.size % kPack<T> == 0;  // every head begins at a pack
    by_packs<kPack<T>>(whole ? half : 1, [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      GPU_LAUNCH((turn_rows<kCount, T>), rows, row_threads(turned * half, kCount), 0, queue.stream(), p);
    }, p.x, p.table);
  });
}

}  // namespace lowrank::cuda
