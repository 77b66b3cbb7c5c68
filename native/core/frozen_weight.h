// A frozen weight on a device that can't read mapped files: how its parts lie in one block of device memory, and where they come from.
#pragma once
#include <memory>
#include <utility>

#include "backend.h"
#include "mapped_file.h"
#include "staging.h"

namespace lowrank {

class FrozenWeight {
 public:
  // A stored matrix, contiguous: in a mapped file, or in device memory (`file` is nullptr then).
  struct Part {
    const char* data;
    std::shared_ptr<MappedFile> file;
  };
  // What a weight of 16 bits is turned into; without a border parts stay apart and as they are stored.
  struct Form {
    DType dtype;
    int32_t border;
  };

  // `stored` tells the sizes, the order and the dtype of the parts.
  FrozenWeight(const Weight& stored, const Part* parts, const Form& form);

  int64_t bytes() const { return bytes_; }
  bool mapped() const;  // all of it
  // The weight in a block of so many bytes, which begins at a multiple of 256.
  Weight at(void* block) const;
  // Part `i` of it.
  struct Place {
    void* data;
    int64_t pitch;
  };
  Place part_at(void* block, int i) const;
  // body(file, bytes in it, how many) for each mapped part.
  template <class Body>
  void for_files(const Body& body) const {
    for (int i = 0; i < weight_.parts; ++i)
      if (parts_[i].file != nullptr) body(*parts_[i].file, parts_[i].data, part_rows(i) * part_cols(i) * size_of(stored_));
  }
  // Queues on the staging's lane what puts it there, border included: zeros.
  void fill(const Backend& backend, void* device, void* block, Staging& staging, Failure& failure) const;

 private:
  int64_t part_rows(int i) const { return out_in() ? weight_.out[i] : weight_.in; }
  int64_t part_cols(int i) const { return out_in() ? weight_.in : weight_.out[i]; }
  bool out_in() const { return weight_.order == WeightOrder::out_in; }
  int64_t size() const { return size_of(weight_.dtype); }
  void clear_border(const Backend& backend, void* device, Lane lane, void* block, Failure& failure) const;

  Weight weight_;  // but for data
  DType stored_;
  Part parts_[kMaxParts];
  int64_t begin_[kMaxParts];  // bytes, of each part in the block
  int64_t bytes_;
};

}  // namespace lowrank
