// Handles to objects. A handle is a double: slot number (24 bits) and generation (24 bits), so that a handle that was
// released is told from whatever lives in its slot now. A slot whose generations are used up is not used again. 0 is never a handle.
#pragma once
#include <stdint.h>

#include <memory>
#include <vector>

#include "../core/device.h"
#include "../core/mapped_file.h"
#include "stored.h"

namespace lowrank::addon {

struct Object {
  enum class Is { nothing, tensor, weight, file };
  Is is = Is::nothing;
  int32_t device = -1;
  bool read_only = false;  // a tensor in a mapped file: writing there would end the process
  Tensor tensor{};
  Weight weight{};
  std::shared_ptr<MappedFile> file;
  std::shared_ptr<Stored> stored;  // of a tensor whose data lies in a mapped file that the device can't read
  std::shared_ptr<PagedWeight> paged;  // of a weight that has no place of its own: data is not there
  std::vector<std::shared_ptr<void>> owners;  // what keeps the bytes: a block of the pool, a mapped file
};

class Slots {
 public:
  double add(Object object);
  Object* find(double handle);  // nullptr: released, or never given out
  bool release(double handle);
  void release_device(int32_t device);
  int64_t live_on(int32_t device) const;

 private:
  static constexpr uint32_t kMaxSlots = 1u << 24;
  struct Slot {
    uint32_t generation = 1;
    Object object;
  };
  void empty(Slot& slot, uint32_t index);
  std::vector<Slot> slots_{1};
  std::vector<uint32_t> free_;
};

}  // namespace lowrank::addon
