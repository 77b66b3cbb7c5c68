// map, mapBytes, mapTensor, weight: files, and what is made of them.
#include "tensors.h"

namespace lowrank::addon {

namespace {

Napi::Value map(const Napi::CallbackInfo& info) {
  Failure failure{};
  Object object;
  object.is = Object::Is::file;
  object.file = MappedFile::open(text_argument(info, 0), failure);
  if (object.file == nullptr) fail(info.Env(), failure.code, failure.text);
  return give(info, std::move(object));
}

Napi::Value map_bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(object_argument(info, 0, Object::Is::file).file->bytes()));
}

// A copy in memory, of what the host may read but lies at an odd address.
Object copy_of(const Napi::CallbackInfo& info, int32_t id, const std::shared_ptr<MappedFile>& file, const Tensor& mapped) {
  Device& device = *environment_of(info).device(id);
  Object copy = new_tensor(info, id, mapped);
  device.stream().enqueue("mapTensor", Stream::When::healthy, [&device, file, mapped, to = copy.tensor.data](Failure& failure) {
    device.backend().upload(device.state(), to, mapped.data, mapped.bytes(), &failure);
  });
  return copy;
}

// mapTensor(device, file, dtype, byteOffset, ...dims): the file's own bytes. A device that can't read them there gets them when they are used.
Napi::Value map_tensor(const Napi::CallbackInfo& info) {
  Device& device = device_argument(info, 0);
  const int32_t id = index_argument(info, 0);
  const std::shared_ptr<MappedFile> file = object_argument(info, 1, Object::Is::file).file;
  Tensor tensor = shape_arguments(info, 4, dtype_argument(info, 2));
  const int64_t offset = offset_argument(info, 3), end = offset + tensor.bytes();
  if (end > file->bytes()) {
    fail(info.Env(), "ERR_FORMAT", "a tensor ends at byte " + std::to_string(end) + " but the file has " + std::to_string(file->bytes()));
  }
  char* bytes = const_cast<char*>(file->data()) + offset;
  tensor.data = bytes;
  const bool host = device.backend().host_memory != 0;
  const bool aligned = reinterpret_cast<uintptr_t>(bytes) % static_cast<uintptr_t>(size_of(tensor.dtype)) == 0;
  if (host && !aligned) return give(info, copy_of(info, id, file, tensor));
  Object object;
  object.is = Object::Is::tensor;
  object.device = id;
  object.read_only = true;
  object.tensor = tensor;
  if (host) {
    // Unmapping waits its turn on the stream: work that reads the file may still be queued when the last handle goes.
    object.owners.emplace_back(bytes, [file, &device](void*) { device.stream().enqueue("unmap", Stream::When::always, [file](Failure&) {}); });
    device.page_cache().add(file);
  } else {
    object.stored = std::make_shared<Stored>(file, tensor);
  }
  return give(info, std::move(object));
}

// The parts of a weight(device, order, dtype, ...tensors), as they are stored.
struct Parts {
  Weight weight{};
  const Object* objects[kMaxParts];
};

Parts part_arguments(const Napi::CallbackInfo& info) {
  Parts parts;
  Weight& weight = parts.weight;
  const int32_t id = index_argument(info, 0);
  weight.order = number_argument(info, 1) == 0 ? WeightOrder::out_in : WeightOrder::in_out;
  weight.parts = static_cast<int32_t>(info.Length()) - 3;
  if (weight.parts < 1 || weight.parts > kMaxParts) fail(info.Env(), "ERR_SHAPE", "a weight has 1 to 3 parts");
  for (int i = 0; i < weight.parts; ++i) {
    const Object& part = object_argument(info, static_cast<size_t>(i) + 3, Object::Is::tensor);
    const bool out_in = weight.order == WeightOrder::out_in;
    const int64_t in = out_in ? part.tensor.cols() : part.tensor.rows();
    const DType dtype = part.tensor.dtype;
    const std::string name = "weight: part " + std::to_string(i);
    if (part.device != id) fail(info.Env(), "ERR_DEVICE", name + " must be on the device of the weight");
    if (part.tensor.rank != 2) fail(info.Env(), "ERR_SHAPE", name + " must be a matrix");
    if (i > 0 && (in != weight.in || dtype != weight.dtype)) {
      fail(info.Env(), "ERR_SHAPE", name + " must have the dtype and the input size of the first");
    }
    if (!is_frozen(dtype)) fail(info.Env(), "ERR_DTYPE", name + " must be f32, f16 or bf16 (found " + name_of(dtype) + ")");
    if (!part.tensor.contiguous()) fail(info.Env(), "ERR_SHAPE", name + " must have no spare columns");
    weight.in = in;
    weight.dtype = dtype;
    weight.data[i] = part.tensor.data;
    weight.out[i] = out_in ? part.tensor.rows() : part.tensor.cols();
    parts.objects[i] = &part;
  }
  return parts;
}

// What a backend with a border wants 16-bit activations to be multiplied with.
FrozenWeight::Form form_argument(const Napi::CallbackInfo& info, size_t i, Device& device) {
  if (number_argument(info, i) < 0) return {DType::f32, 0};
  const DType dtype = dtype_argument(info, i);
  if (dtype != DType::f16 && dtype != DType::bf16) fail(info.Env(), "ERR_DTYPE", std::string("weight: activations must be f16 or bf16 (found ") + name_of(dtype) + ")");
  return {dtype, device.backend().border};
}

// It takes turns with others in the memory that weights may have.
void page(const Napi::CallbackInfo& info, Device& device, const FrozenWeight& frozen, Object& object) {
  WeightSlots& slots = device.weight_slots();
  if (frozen.bytes() > slots.bytes()) {
    fail(info.Env(), "ERR_MEMORY", "weight: each must fit in the memory for weights (" + std::to_string(frozen.bytes()) + " bytes in " + std::to_string(slots.bytes()) + ")");
  }
  if (!slots.opened()) {
    void* memory = device.pool().allocate(slots.bytes());  // the device's as long as it is open
    if (memory == nullptr) fail(info.Env(), "ERR_MEMORY", no_memory(device, "part for weights", slots.bytes()));
    slots.open(memory);
  }
  object.paged = slots.add(frozen);
  if (object.paged == nullptr) fail(info.Env(), "ERR_MEMORY", no_memory(device, "weight's marks", 0));
  object.weight = frozen.at(nullptr);
  object.owners.clear();
}

// A block of its own, filled from wherever the parts are.
void place(const Napi::CallbackInfo& info, Device& device, const Parts& parts, std::shared_ptr<FrozenWeight> frozen, Object& object) {
  if (device.weight_slots().bytes() > 0 && frozen->mapped()) return page(info, device, *frozen, object);
  const std::shared_ptr<void> block = new_block(device, frozen->bytes());
  if (block == nullptr) fail(info.Env(), "ERR_MEMORY", no_memory(device, "weight", frozen->bytes()) + "; with openDevice's weightMemory weights take turns in less");
  object.weight = frozen->at(block.get());
  object.owners = {block};
  for (int i = 0; i < parts.weight.parts; ++i) {
    const Object& part = *parts.objects[i];
    const bool same = part.stored != nullptr && parts.weight.dtype == object.weight.dtype && part.tensor.count() == part.stored->whole().count();
    if (same) part.stored->lies_in(block, frozen->part_at(block.get(), i));
  }
  device.stream().enqueue("weight", Stream::When::healthy, [&device, frozen = std::move(frozen), to = block.get()](Failure& failure) {
    frozen->fill(device.backend(), device.state(), to, device.staging(), failure);
  });
}

// weight(device, order, dtype, ...tensors): a frozen weight of one to three parts that read the same x. Where the device reads them it
// holds on to their bytes; elsewhere it is what they are now. `dtype`: of the activations, if they have 16 bits, else -1.
Napi::Value weight(const Napi::CallbackInfo& info) {
  Device& device = device_argument(info, 0);
  const FrozenWeight::Form form = form_argument(info, 2, device);
  const Parts parts = part_arguments(info);
  Object object;
  object.is = Object::Is::weight;
  object.device = index_argument(info, 0);
  object.weight = parts.weight;
  FrozenWeight::Part sources[kMaxParts];
  bool any_mapped = false;
  for (int i = 0; i < parts.weight.parts; ++i) {
    const Object& part = *parts.objects[i];
    any_mapped |= part.stored != nullptr;
    sources[i] = {part.tensor.as<char>(), part.stored != nullptr ? part.stored->file() : nullptr};
    object.owners.insert(object.owners.end(), part.owners.begin(), part.owners.end());
  }
  if (device.backend().host_memory == 0 && (any_mapped || form.border > 0)) place(info, device, parts, std::make_shared<FrozenWeight>(parts.weight, sources, form), object);
  return give(info, std::move(object));
}

}  // namespace

void add_weights(Napi::Env, Napi::Object exports, Environment& environment) {
  add_method(exports, "map", map, environment);
  add_method(exports, "mapBytes", map_bytes, environment);
  add_method(exports, "mapTensor", map_tensor, environment);
  add_method(exports, "weight", weight, environment);
}

}  // namespace lowrank::addon
