#include "frozen_weight.h"

namespace lowrank {

namespace {

constexpr int64_t kLine = 64;    // elements: rows of 16 bits begin on lines of 128 bytes
constexpr int64_t kAlign = 256;  // bytes, of parts that lie apart

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

FrozenWeight::FrozenWeight(const Weight& stored, const Part* parts, const Form& form) : weight_(stored), stored_(stored.dtype), bytes_(0) {
  weight_.border = form.border;
  if (form.border > 0) weight_.dtype = form.dtype;
  const int64_t cols = out_in() ? stored.in : stored.rows(), rows = out_in() ? stored.rows() : stored.in;
  weight_.pitch = form.border > 0 ? round_up(cols + form.border, kLine) : 0;
  for (int i = 0; i < weight_.parts; ++i) {
    parts_[i] = parts[i];
    begin_[i] = bytes_;
    weight_.data[i] = nullptr;
    const bool below = form.border > 0 && out_in(), beside = form.border > 0 && !out_in();
    bytes_ += below ? weight_.out[i] * weight_.pitch * size() : beside ? weight_.out[i] * size() : round_up(weight_.out[i] * weight_.in * size(), kAlign);
  }
  if (form.border > 0) bytes_ = (rows + form.border) * weight_.pitch * size();
  bytes_ = round_up(bytes_, kAlign);
}

bool FrozenWeight::mapped() const {
  for (int i = 0; i < weight_.parts; ++i)
    if (parts_[i].file == nullptr) return false;
  return true;
}

FrozenWeight::Place FrozenWeight::part_at(void* block, int i) const {
  return {static_cast<char*>(block) + begin_[i], weight_.border > 0 ? weight_.pitch : part_cols(i)};
}

Weight FrozenWeight::at(void* block) const {
  Weight weight = weight_;
  for (int i = 0; i < weight.parts; ++i) weight.data[i] = part_at(block, i).data;
  return weight;
}

void FrozenWeight::fill(const Backend& backend, void* device, void* block, Staging& staging, Failure& failure) const {
  for_files([](const MappedFile& file, const char* data, int64_t bytes) { file.ask_for(data, bytes); });
  if (weight_.border > 0) clear_border(backend, device, staging.lane(), block, failure);
  for (int i = 0; i < weight_.parts && !failure.happened(); ++i) {
    const auto [to, pitch] = part_at(block, i);
    const RowsCopy copy{to, pitch, weight_.dtype, parts_[i].data, part_cols(i), stored_, part_rows(i), part_cols(i), 0};
    if (parts_[i].file == nullptr) backend.copy_rows(device, staging.lane(), &copy, &failure);
    else if (parts_[i].file->check_whole(failure)) staging.copy(copy, failure);
  }
}

// Nobody may find the numbers of the block's last owner there: zero times NaN is NaN.
void FrozenWeight::clear_border(const Backend& backend, void* device, Lane lane, void* block, Failure& failure) const {
  const int64_t cols = out_in() ? weight_.in : weight_.rows(), rows = out_in() ? weight_.rows() : weight_.in, pitch = weight_.pitch * size();
  auto* begin = static_cast<char*>(block);
  backend.clear_rows(device, lane, begin + cols * size(), pitch, pitch - cols * size(), rows, &failure);
  backend.clear_rows(device, lane, begin + rows * pitch, pitch, pitch, weight_.border, &failure);
}

}  // namespace lowrank
