#include "launch.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <vector>

#include "block.h"
#include "builtins.h"
#include "config.h"
#include "fault.h"
#include "memory.h"

namespace cusim {

dim3 block_size, grid_size;

namespace {

std::mutex one_launch;

void require_shape(const char* kernel, const LaunchShape& shape) {
  const dim3 &grid = shape.grid, &threads = shape.block;
  const size_t count = static_cast<size_t>(threads.x) * threads.y * threads.z;
  const auto refuse = [kernel](const std::string& why) { throw Error(format("cusim: %s: %s", kernel, why.c_str())); };
  if (count == 0 || count > kMaxThreads || threads.z > 64) refuse(format("a block must have 1 to 1024 threads (found %zu)", count));
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    refuse(format("a grid must be at least 1 and at most 2^31-1 x 65535 x 65535 (found %u x %u x %u)", grid.x, grid.y, grid.z));
  }
  if (shape.shared_bytes > config.shared_limit) refuse(format("%zu bytes of shared memory are more than a block may have (%zu)", shape.shared_bytes, config.shared_limit));
}

std::vector<uint64_t> order_of_blocks() {
  std::vector<uint64_t> order(static_cast<uint64_t>(grid_size.x) * grid_size.y * grid_size.z);
  std::iota(order.begin(), order.end(), uint64_t{0});
  if (config.order == Order::reverse) std::reverse(order.begin(), order.end());
  if (config.order != Order::random) return order;
  for (size_t left = order.size(); left > 1; --left) std::swap(order[left - 1], order[random_number() % left]);
  return order;
}

void prepare_launch(const char* kernel, const LaunchShape& shape) {
  block_size = shape.block;
  grid_size = shape.grid;
  block.kernel = kernel;
  block.threads_count = shape.block.x * shape.block.y * shape.block.z;
  if (block.threads.size() < block.threads_count) block.threads.resize(block.threads_count);
  block.seed = config.seed * 1000003 + counts.launches++;
  seed_random(block.seed);
  block.clocks.begin_launch();
  shared_memory.configure(shape.shared_bytes);
}

}  // namespace

void launch(const char* kernel, const LaunchShape& shape, void (*body)(void*), void* argument) {
  const std::lock_guard lock(one_launch);
  require_shape(kernel, shape);
  prepare_launch(kernel, shape);
  std::string report;
  {
    const FaultGuard guard;
    block.active = true;
    for (const uint64_t at : order_of_blocks()) {
      block_index = {static_cast<unsigned>(at % grid_size.x), static_cast<unsigned>(at / grid_size.x % grid_size.y),
                     static_cast<unsigned>(at / (static_cast<uint64_t>(grid_size.x) * grid_size.y))};
      report = run_block(body, argument);
      counts.threads += block.threads_count;
      if (!report.empty()) break;
    }
    block.active = false;
  }
  if (!report.empty()) throw Error(report);
}

}  // namespace cusim
