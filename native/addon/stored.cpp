#include "stored.h"

#include "tensors.h"

namespace lowrank::addon {

void Stored::lies_in(const std::shared_ptr<void>& block, const FrozenWeight::Place& place) {
  weight_ = block;
  place_ = place;
}

Tensor Stored::on_device(Device& device, const Tensor& part, bool takes_pitch) {
  Tensor tensor = part;
  const int64_t offset = offset_of(part), size = size_of(part.dtype), cols = whole_.cols();
  const bool dense = place_.pitch == cols, rows = takes_pitch && part.cols() == cols && cols > 0 && offset % cols == 0;
  if (copy_ == nullptr && !weight_.expired() && (dense || rows)) {
    if (!dense) tensor.pitch = place_.pitch;
    tensor.data = static_cast<char*>(place_.data) + (dense ? offset : offset / cols * place_.pitch) * size;
    return tensor;
  }
  return copied(device, part);
}

Tensor Stored::copied(Device& device, const Tensor& part) {
  Tensor tensor = part;
  if (copy_ == nullptr) {
    copy_ = new_block(device, whole_.bytes());
    tensor.data = nullptr;
    if (copy_ == nullptr) return tensor;
    device.stream().enqueue("mapTensor", Stream::When::healthy, [&device, file = file_, whole = whole_, to = copy_.get()](Failure& failure) {
      const RowsCopy copy{to, whole.count(), whole.dtype, whole.data, whole.count(), whole.dtype, 1, whole.count(), 0};
      if (file->check_whole(failure)) device.staging().copy(copy, failure);
    });
  }
  tensor.data = static_cast<char*>(copy_.get()) + offset_of(part) * size_of(part.dtype);
  return tensor;
}

}  // namespace lowrank::addon
