// The order in which tiles of attention start, where there are more of them than a block has threads.
#include "../../../cuda/attention_order.cuh"

#include <algorithm>
#include <numeric>

#include "operands.cuh"

namespace kernels {

namespace {

using namespace lowrank;
using namespace lowrank::cuda;

// A tile's length: how many keys its rows see, or by how many rows its keys are seen.
int32_t length_of(const std::vector<int32_t>& offsets, TilesOf of, int32_t first, int32_t last) {
  const auto end_behind = [&](int32_t t) { return *std::upper_bound(offsets.begin(), offsets.end(), t); };
  const auto begin_before = [&](int32_t t) { return *std::prev(std::upper_bound(offsets.begin(), offsets.end(), t)); };
  return of == TilesOf::rows ? last + 1 - begin_before(first) : end_behind(last) - first;
}

std::string sorted(TilesOf of, const std::vector<int32_t>& offsets, int32_t size) {
  const int32_t tokens = offsets.back();
  const auto count = static_cast<int32_t>(tiles_of(tokens, size));
  const Buffer<int32_t> on_offsets(offsets, "offsets"), on_order(static_cast<size_t>(count), "order");
  const Sequences sequences{on_offsets.data(), static_cast<int32_t>(offsets.size()) - 1, tokens, nullptr};
  const AttentionView<bf16> view{nullptr, nullptr, nullptr, 8, 8, tokens, 0, 1, 8, Divisor{1}, 0, 1.0f, sequences};
  bool sorts = false;
  const std::string failure = on_queue([&](Queue& queue) {
    const TileOrder order = longest_first(queue, view, of, size, 2);
    sorts = order.tiles != nullptr;
    if (sorts) cudaMemcpyAsync(on_order.data(), order.tiles, static_cast<size_t>(count) * sizeof(int32_t), cudaMemcpyDeviceToDevice, queue.stream());
  });
  if (!failure.empty()) return failure;
  if (!sorts) return "nothing was sorted";
  const std::vector<int32_t> order = on_order.values();
  std::vector<int32_t> tiles = order, all(static_cast<size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  std::sort(tiles.begin(), tiles.end());
  if (tiles != all) return "not every tile comes once";
  int32_t before = INT32_MAX;
  for (const int32_t tile : order) {
    const int32_t own = length_of(offsets, of, tile * size, std::min((tile + 1) * size, tokens) - 1);
    if (own > before) return cusim::format("tile %d of %d numbers comes behind one of %d", tile, own, before);
    before = own;
  }
  return "";
}

}  // namespace

void test_attention_order() {
  const std::vector<int32_t> offsets = {0, 100, 350, 352, 601, 1100};
  in_schedules("550 tiles of rows of five sequences, the longest first", 2, [&] { return sorted(TilesOf::rows, offsets, 2); });
  in_schedules("367 tiles of keys of five sequences, the longest first", 2, [&] { return sorted(TilesOf::keys, offsets, 3); });
}

}  // namespace kernels
