// A tensor's bytes in a mapped file, on a device that can't read them there. They come to the device when an op reads them as a tensor,
// and stay as long as the tensor does; where a weight on the device has them already, they are read in the weight.
#pragma once
#include <memory>

#include "../core/device.h"
#include "../core/frozen_weight.h"
#include "../core/mapped_file.h"

namespace lowrank::addon {

class Stored {
 public:
  // `whole`: with the file's bytes as its data.
  Stored(std::shared_ptr<MappedFile> file, const Tensor& whole) : file_(std::move(file)), whole_(whole) {}

  const std::shared_ptr<MappedFile>& file() const { return file_; }
  const Tensor& whole() const { return whole_; }
  void lies_in(const std::shared_ptr<void>& block, const FrozenWeight::Place& place);
  // A part of it (data in the file) as it is on the device for work that is queued next; data nullptr: there is no memory.
  Tensor on_device(Device& device, const Tensor& part, bool takes_pitch);
  // The same in a copy of its own, which is made now if there is none yet.
  Tensor copied(Device& device, const Tensor& part);
  const std::shared_ptr<void>& copy() const { return copy_; }

 private:
  int64_t offset_of(const Tensor& part) const { return (part.as<char>() - whole_.as<char>()) / size_of(whole_.dtype); }

  std::shared_ptr<MappedFile> file_;
  Tensor whole_;
  std::weak_ptr<void> weight_;
  FrozenWeight::Place place_{};
  std::shared_ptr<void> copy_;
};

}  // namespace lowrank::addon
