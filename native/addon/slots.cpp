#include "slots.h"

namespace lowrank::addon {

double Slots::add(Object object) {
  if (free_.empty()) {
    if (slots_.size() >= kMaxSlots) return 0;
    free_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  slots_[index].object = std::move(object);
  return static_cast<double>((static_cast<uint64_t>(slots_[index].generation) << 24) | index);
}

Object* Slots::find(double handle) {
  if (!(handle >= 1.0 && handle < 281474976710656.0)) return nullptr;  // 2^48
  const auto bits = static_cast<uint64_t>(handle);
  const uint64_t index = bits & (kMaxSlots - 1);
  if (static_cast<double>(bits) != handle) return nullptr;
  if (index >= slots_.size() || slots_[index].generation != bits >> 24) return nullptr;
  Object& object = slots_[index].object;
  return object.is == Object::Is::nothing ? nullptr : &object;
}

void Slots::empty(Slot& slot, uint32_t index) {
  slot.object = {};
  if (++slot.generation < kMaxSlots) free_.push_back(index);
}

bool Slots::release(double handle) {
  if (find(handle) == nullptr) return false;
  const auto index = static_cast<uint32_t>(static_cast<uint64_t>(handle) & (kMaxSlots - 1));
  empty(slots_[index], index);
  return true;
}

void Slots::release_device(int32_t device) {
  for (uint32_t index = 1; index < slots_.size(); ++index) {
    Slot& slot = slots_[index];
    if (slot.object.is != Object::Is::nothing && slot.object.device == device) empty(slot, index);
  }
}

int64_t Slots::live_on(int32_t device) const {
  int64_t n = 0;
  for (const Slot& slot : slots_) n += slot.object.is != Object::Is::nothing && slot.object.device == device;
  return n;
}

}  // namespace lowrank::addon
