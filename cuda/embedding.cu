#include "dtypes.cuh"
#include "kernels.h"
#include "reports.cuh"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

// One table and the row of it that each row of y takes. Its dtype is asked at each pack, the same in all threads: a kernel for each pair of
// tables would be nine for each type of y, and take what reads memory no less time.
struct Lookup {
  const int32_t* indices;  // [T]; nullptr: this table is not given
  const void* table;       // [limit, cols]
  int64_t pitch, limit;
  DType dtype;
  Report* report;

  GPU_FN bool given() const { return indices != nullptr; }
  // Where the row begins, in elements; -1: out of range.
  GPU_FN int64_t row(int64_t row) const {
    const int32_t index = indices[row];
    return in_range(index, limit, row, report) ? index * pitch : -1;
  }
  template <int kCount>
  GPU_FN Floats<kCount> at(int64_t i) const {
    if (dtype == DType::f32) return load<kCount>(static_cast<const float*>(table) + i);
    if (dtype == DType::f16) return load<kCount>(static_cast<const f16*>(table) + i);
    return load<kCount>(static_cast<const bf16*>(table) + i);
  }
};

template <class A>
struct Embed {
  Rows<A> y;  // [T, cols]
  Lookup ids, positions;
  int64_t cols;
};

template <int kCount, class A>
__global__ void __launch_bounds__(kMostRowThreads) embed_rows(Embed<A> p) {
  const int64_t row = blockIdx.x, from = p.ids.row(row), position = p.positions.given() ? p.positions.row(row) : 0;
  if (from < 0 || position < 0) return;
  for_packs<kCount>(p.cols, [&](int64_t i) {
    Floats<kCount> values = p.ids.template at<kCount>(from + i);
    if (p.positions.given()) {
      const Floats<kCount> more = p.positions.template at<kCount>(position + i);
      for (int j = 0; j < kCount; ++j) values.at[j] += more.at[j];
    }
    store<kCount>(p.y.at(row) + i, values);
  });
}

Lookup lookup(Queue& queue, const char* what, const Tensor& indices, const Tensor& table) {
  if (!indices.given()) return {nullptr, nullptr, 0, 0, DType::f32, nullptr};
  return {indices.i32(), table.data, table.pitch, table.rows(), table.dtype, queue.watch({what, table.rows()})};
}

template <int kCount>
bool aligned(const Lookup& lookup) {
  bool good = false;
  with_frozen(lookup.dtype, [&](auto stored) {
    using T = typename decltype(stored)::Type;
    good = aligned<kCount>(Rows<const T>{static_cast<const T*>(lookup.table), lookup.pitch});
  });
  return good;
}

template <class A>
void launch(Queue& queue, const Embed<A>& p, unsigned rows) {
  by_packs<kPack<A>>(p.cols, [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    GPU_LAUNCH((embed_rows<kCount, A>), rows, row_threads(p.cols, kCount), 0, queue.stream(), p);
  }, p.y, p.ids, p.positions);
}

}  // namespace

void embedding(const Embedding& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.y.rows());
  if (rows == 0) return;
  const Lookup ids = lookup(queue, "embedding: id", op.ids, op.table), positions = lookup(queue, "embedding: position", op.positions, op.position_table);
  with_activation(op.y.dtype, [&](auto stored) {
    using A = typename decltype(stored)::Type;
    launch(queue, Embed<A>{rows_of<A>(op.y), ids, positions, op.y.cols()}, rows);
  });
}

}  // namespace lowrank::cuda
