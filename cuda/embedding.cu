#include "dtypes.cuh"
#include "kernels.h"
#include "reports.cuh"
#include "rows.cuh"

namespace lowrank::cuda {

namespace {

// One table and the row of it that each row of y takes.
template <class T>
struct Lookup {
  const int32_t* indices;  // [T]; nullptr: this table is not given
  Rows<const T> table;     // [limit, cols]
  int64_t limit;
  Report* report;

  GPU_FN bool given() const { return indices != nullptr; }
  // nullptr: out of range.
  GPU_FN const T* row(int64_t row) const {
    const int32_t index = indices[row];
    return in_range(index, limit, row, report) ? table.at(index) : nullptr;
  }
};

template <class A, class T, class P>
struct Embed {
  Rows<A> y;  // [T, cols]
  Lookup<T> ids;
  Lookup<P> positions;
  int64_t cols;
};

template <int kCount, class A, class T, class P>
__global__ void __launch_bounds__(kMostRowThreads) embed_rows(Embed<A, T, P> p) {
  const int64_t row = blockIdx.x;
  const T* from = p.ids.row(row);
  const P* position = p.positions.given() ? p.positions.row(row) : nullptr;
  if (from == nullptr || (p.positions.given() && position == nullptr)) return;
  for_packs<kCount>(p.cols, [&](int64_t i) {
    Floats<kCount> values = load<kCount>(from + i);
    if (position != nullptr) {
      const Floats<kCount> more = load<kCount>(position + i);
      for (int j = 0; j < kCount; ++j) values.at[j] += more.at[j];
    }
    store<kCount>(p.y.at(row) + i, values);
  });
}

template <class A, class T, class P>
void launch(Queue& queue, const Embed<A, T, P>& p, unsigned rows) {
  by_packs<kPack<A>>(p.cols, [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    GPU_LAUNCH((embed_rows<kCount, A, T, P>), rows, row_threads(p.cols, kCount), 0, queue.stream(), p);
  }, p.y, p.ids.table, p.positions.table);
}

template <class T>
Lookup<T> lookup(Queue& queue, const char* what, const Tensor& indices, const Tensor& table) {
  if (!indices.given()) return {nullptr, {nullptr, 0}, 0, nullptr};
  return {indices.i32(), rows_of<const T>(table), table.rows(), queue.watch({what, table.rows()})};
}

}  // namespace

void embedding(const Embedding& op, Queue& queue) {
  const auto rows = static_cast<unsigned>(op.y.rows());
  if (rows == 0) return;
  with_activation(op.y.dtype, [&](auto stored) {
    using A = typename decltype(stored)::Type;
    with_frozen(op.table.dtype, [&](auto table) {
      using T = typename decltype(table)::Type;
      with_frozen(op.positions.given() ? op.position_table.dtype : op.table.dtype, [&](auto position_table) {
        using P = typename decltype(position_table)::Type;
        const Lookup<T> ids = lookup<T>(queue, "embedding: id", op.ids, op.table);
        const Lookup<P> positions = lookup<P>(queue, "embedding: position", op.positions, op.position_table);
        launch(queue, Embed<A, T, P>{rows_of<A>(op.y), ids, positions, op.y.cols()}, rows);
      });
    });
  });
}

}  // namespace lowrank::cuda
