#include "weight_slots.h"

#include <string>

#include "page_cache.h"

namespace lowrank {

namespace {

PagedWeight& weight_of(const Extent& extent) { return *static_cast<PagedWeight*>(extent.owner.get()); }

}  // namespace

PagedWeight::~PagedWeight() { slots_.leave(*this); }

WeightSlots::WeightSlots(const Backend* backend, void* device, Trace& trace, int64_t bytes)
    : backend_(backend), device_(device), trace_(trace), bytes_(bytes), places_(backend, device), staging_(backend, device, Lane::copies) {}

void WeightSlots::clear() {
  clear_up();
  staging_.clear();
}

void WeightSlots::open(void* memory) {
  opened_ = true;
  places_.adopt(memory, bytes_);
}

std::shared_ptr<PagedWeight> WeightSlots::add(FrozenWeight frozen) {
  auto weight = std::make_shared<PagedWeight>(*this, std::move(frozen));
  weight->brought_ = backend_->new_mark(device_);
  weight->used_ = backend_->new_mark(device_);
  return weight->brought_ != nullptr && weight->used_ != nullptr ? weight : nullptr;
}

Extent WeightSlots::extent_of(const std::shared_ptr<PagedWeight>& weight) { return {weight.get(), weight->frozen().bytes(), weight}; }

Weight WeightSlots::begin_use(PagedWeight& weight, Failure& failure) {
  const std::lock_guard lock(mutex_);
  if (weight.place_ == nullptr && !weight.failure_.happened()) weight.failure_.set("ERR_DEVICE", "a weight can't be brought: the system gives no thread");
  if (weight.place_ == nullptr) failure = weight.failure_;
  else backend_->await_mark(device_, Lane::work, weight.brought_, &failure);
  return weight.frozen_.at(weight.place_);
}

void WeightSlots::end_use(PagedWeight& weight, Failure& failure) {
  backend_->set_mark(device_, Lane::work, weight.used_, &failure);
  weight.was_used_ = true;
}

// Any thread: the last to hold it.
void WeightSlots::leave(PagedWeight& weight) {
  const std::lock_guard lock(mutex_);
  left_.push_back({weight.place_, weight.brought_, weight.used_, weight.was_used_});
}

// Copies that are queued from now on find the place free.
void WeightSlots::vacate(const Left& left, Failure& failure) {
  if (left.was_used) backend_->await_mark(device_, Lane::copies, left.used, &failure);
  if (left.place != nullptr) places_.release(left.place);
}

void WeightSlots::clear_up() {
  std::vector<Left> left;
  {
    const std::lock_guard lock(mutex_);
    left.swap(left_);
  }
  Failure ignored{};  // a device on which this fails fails at the next copy too
  for (const Left& each : left) {
    vacate(each, ignored);
    for (void* mark : {each.brought, each.used})
      if (mark != nullptr) backend_->delete_mark(device_, mark);
  }
}

void WeightSlots::settle(PagedWeight& weight, void* place, const Failure& failure) {
  const std::lock_guard lock(mutex_);
  weight.place_ = place;
  weight.failure_ = failure;
}

void WeightSlots::evict(PagedWeight& weight) {
  const int64_t begin = Trace::now();
  Failure failure{};
  vacate({weight.place_, nullptr, weight.used_, weight.was_used_}, failure);
  settle(weight, nullptr, failure);
  weight.was_used_ = false;
  tell("let_go", weight, begin);
}

Destination::Outcome WeightSlots::bring(const ReadingPlan::Reading& reading, const MoreRoom& more_room) {
  clear_up();
  for (const Extent& leaving : reading.leaving) evict(weight_of(leaving));
  if (reading.held) return Outcome::there;
  PagedWeight& weight = weight_of(reading.extent);
  void* place;
  while ((place = places_.allocate(weight.frozen_.bytes())) == nullptr) {
    Extent leaving;
    if (!more_room(leaving)) return Outcome::no_room;
    if (leaving.owner != nullptr) evict(weight_of(leaving));
    leaving.owner = nullptr;
    clear_up();
  }
  return fill(weight, place) ? Outcome::there : Outcome::failed;
}

bool WeightSlots::fill(PagedWeight& weight, void* place) {
  const int64_t begin = Trace::now();
  Failure failure{};
  weight.frozen_.fill(*backend_, device_, place, staging_, failure);
  backend_->set_mark(device_, Lane::copies, weight.brought_, &failure);
  const bool good = !failure.happened();
  if (!good) places_.release(place);  // what was queued so far comes before what will be put there
  settle(weight, good ? place : nullptr, failure);
  if (good) weight.frozen_.for_files([this](const MappedFile&, const char*, int64_t bytes) { brought_bytes_ += bytes; });
  if (good) tell("read_ahead", weight, begin);
  return good;
}

void WeightSlots::tell(const char* what, const PagedWeight& weight, int64_t begin) {
  if (!trace_.on()) return;
  weight.frozen_.for_files([&](const MappedFile& file, const char* data, int64_t bytes) {
    trace_.op(what, told(file, data, bytes).c_str(), begin, Trace::now(), 2);
  });
}

}  // namespace lowrank
