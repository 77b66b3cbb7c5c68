// alloc, allocBordered, view, release, map, mapTensor, weight, upload, download, writeFile.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "environment.h"

namespace lowrank::addon {

namespace {

Napi::Value give(const Napi::CallbackInfo& info, Object object) {
  const double handle = environment_of(info).slots().add(std::move(object));
  if (handle == 0) fail(info.Env(), "ERR_MEMORY", "too many live tensors (2^24)");
  return Napi::Number::New(info.Env(), handle);
}

std::string shown(double number) {
  char text[32];
  snprintf(text, sizeof text, "%.15g", number);
  return text;
}

DType dtype_argument(const Napi::CallbackInfo& info, size_t i) {
  const double dtype = number_argument(info, i);
  if (!(dtype >= 0 && dtype < kDTypes) || dtype != floor(dtype)) fail(info.Env(), "ERR_DTYPE", "there is no dtype " + shown(dtype));
  return static_cast<DType>(static_cast<int32_t>(dtype));
}

// An offset in elements or bytes, below 2^53.
int64_t offset_argument(const Napi::CallbackInfo& info, size_t i) {
  const double offset = number_argument(info, i);
  if (offset >= 0 && offset <= 9007199254740992.0 && offset == floor(offset)) return static_cast<int64_t>(offset);
  fail(info.Env(), "ERR_SHAPE", "an offset must be a whole number, not negative (found " + shown(offset) + ")");
}

// Arguments from `first` on are the dims.
Tensor shape_arguments(const Napi::CallbackInfo& info, size_t first, DType dtype) {
  Tensor tensor{};
  tensor.dtype = dtype;
  tensor.rank = static_cast<int32_t>(info.Length()) - static_cast<int32_t>(first);
  if (tensor.rank < 0 || tensor.rank > kMaxDims) {
    fail(info.Env(), "ERR_SHAPE", "a tensor has 0 to 4 dimensions (found " + std::to_string(tensor.rank) + ")");
  }
  double count = 1;  // of an empty tensor too: rows() and cols() must not overflow
  for (int i = 0; i < tensor.rank; ++i) {
    const double dim = number_argument(info, first + static_cast<size_t>(i));
    if (!(dim >= 0 && dim < 9e15) || dim != floor(dim)) {
      fail(info.Env(), "ERR_SHAPE", "a dimension must be a whole number, not negative (found " + shown(dim) + ")");
    }
    tensor.dims[i] = static_cast<int64_t>(dim);
    count *= dim > 0 ? dim : 1;
  }
  if (count > 1e15) fail(info.Env(), "ERR_MEMORY", "a tensor of more than 10^15 elements");
  tensor.pitch = tensor.cols();
  return tensor;
}

Object new_tensor(const Napi::CallbackInfo& info, int32_t id, Tensor tensor) {
  Device& device = *environment_of(info).device(id);
  device.loans().collect();
  void* block = device.pool().allocate(tensor.extent());
  if (block == nullptr) {
    fail(info.Env(), "ERR_MEMORY", "no memory for a tensor of " + std::to_string(tensor.extent()) + " bytes (" +
                                       std::to_string(device.pool().live_bytes()) + " in use)");
  }
  tensor.data = block;
  Object object;
  object.is = Object::Is::tensor;
  object.device = id;
  object.tensor = tensor;
  object.owners.emplace_back(block, [pool = &device.pool()](void* memory) { pool->release(memory); });
  return object;
}

Napi::Value alloc(const Napi::CallbackInfo& info) {
  device_argument(info, 0);
  return give(info, new_tensor(info, index_argument(info, 0), shape_arguments(info, 2, dtype_argument(info, 1))));
}

// allocBordered(device, dtype, ...dims): an activation, with the spare columns that the backend wants behind each row of 16 bits.
Napi::Value alloc_bordered(const Napi::CallbackInfo& info) {
  const int64_t border = device_argument(info, 0).backend().border;
  Tensor tensor = shape_arguments(info, 2, dtype_argument(info, 1));
  constexpr int64_t kLine = 64;  // elements: rows of 16 bits begin on lines of 128 bytes
  if (border > 0 && tensor.rank >= 2 && size_of(tensor.dtype) == 2) tensor.pitch = (tensor.cols() + border + kLine - 1) / kLine * kLine;
  return give(info, new_tensor(info, index_argument(info, 0), tensor));
}

// view(handle, elementOffset, ...dims): other dims over the same bytes; keeps them alive.
Napi::Value view(const Napi::CallbackInfo& info) {
  const Object whole = object_argument(info, 0, Object::Is::tensor);
  const int64_t offset = offset_argument(info, 1);
  Object object = whole;
  object.tensor = shape_arguments(info, 2, whole.tensor.dtype);
  int64_t start = offset;  // in memory
  const int64_t cols = whole.tensor.cols();
  if (whole.tensor.pitch > cols && cols > 0 && object.tensor.cols() == cols && offset % cols == 0) {
    object.tensor.pitch = whole.tensor.pitch;
    start = offset / cols * whole.tensor.pitch;
  } else if (!whole.tensor.contiguous()) {
    fail(info.Env(), "ERR_SHAPE", "view: of a tensor with spare columns, whole rows must be taken");
  }
  const int64_t end = offset + object.tensor.count();
  if (end > whole.tensor.count()) {
    fail(info.Env(), "ERR_SHAPE", "view: elements [" + std::to_string(offset) + ", " + std::to_string(end) + ") must lie in the tensor's " +
                                      std::to_string(whole.tensor.count()));
  }
  object.tensor.data = static_cast<char*>(whole.tensor.data) + start * size_of(whole.tensor.dtype);
  return give(info, std::move(object));
}

Napi::Value release(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), environment_of(info).slots().release(number_argument(info, 0)));
}

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

// mapTensor(device, file, dtype, byteOffset, ...dims): the file's own bytes where the device reads host memory, else a copy.
Napi::Value map_tensor(const Napi::CallbackInfo& info) {
  Device& device = device_argument(info, 0);
  const int32_t id = index_argument(info, 0);
  const std::shared_ptr<MappedFile> file = object_argument(info, 1, Object::Is::file).file;
  Tensor tensor = shape_arguments(info, 4, dtype_argument(info, 2));
  const int64_t offset = offset_argument(info, 3), end = offset + tensor.bytes();
  if (end > file->bytes()) {
    fail(info.Env(), "ERR_FORMAT", "a tensor ends at byte " + std::to_string(end) + " but the file has " + std::to_string(file->bytes()));
  }
  const char* bytes = file->data() + offset;
  const bool aligned = reinterpret_cast<uintptr_t>(bytes) % static_cast<uintptr_t>(size_of(tensor.dtype)) == 0;
  // Unmapping waits its turn on the stream: work that reads the file may still be queued when the last handle goes.
  auto keep = std::shared_ptr<void>(const_cast<char*>(bytes), [file, &device](void*) {
    device.stream().enqueue("unmap", Stream::When::always, [file](Failure&) {});
  });
  if (device.backend().host_memory != 0 && aligned) {
    tensor.data = const_cast<char*>(bytes);
    Object object;
    object.is = Object::Is::tensor;
    object.device = id;
    object.read_only = true;
    object.tensor = tensor;
    object.owners.push_back(std::move(keep));
    device.read_ahead().add(file);
    return give(info, std::move(object));
  }
  Object copy = new_tensor(info, id, tensor);
  device.stream().enqueue("mapTensor", Stream::When::healthy,
                          [&device, file, bytes, to = copy.tensor.data, size = tensor.bytes()](Failure& failure) {
                            device.backend().upload(device.state(), to, bytes, size, &failure);
                          });
  return give(info, std::move(copy));
}

// weight(device, order, ...tensors): a frozen weight of one to three parts that read the same x. Holds on to their bytes.
Napi::Value weight(const Napi::CallbackInfo& info) {
  device_argument(info, 0);
  Object object;
  object.is = Object::Is::weight;
  object.device = index_argument(info, 0);
  Weight& weight = object.weight;
  weight.order = number_argument(info, 1) == 0 ? WeightOrder::out_in : WeightOrder::in_out;
  weight.parts = static_cast<int32_t>(info.Length()) - 2;
  if (weight.parts < 1 || weight.parts > kMaxParts) fail(info.Env(), "ERR_SHAPE", "a weight has 1 to 3 parts");
  for (int i = 0; i < weight.parts; ++i) {
    const Object& part = object_argument(info, static_cast<size_t>(i) + 2, Object::Is::tensor);
    const bool out_in = weight.order == WeightOrder::out_in;
    const int64_t in = out_in ? part.tensor.cols() : part.tensor.rows();
    const DType dtype = part.tensor.dtype;
    const std::string name = "weight: part " + std::to_string(i);
    if (part.device != object.device) fail(info.Env(), "ERR_DEVICE", name + " must be on the device of the weight");
    if (part.tensor.rank != 2) fail(info.Env(), "ERR_SHAPE", name + " must be a matrix");
    if (i > 0 && (in != weight.in || dtype != weight.dtype)) {
      fail(info.Env(), "ERR_SHAPE", name + " must have the dtype and the input size of the first");
    }
    if (!is_frozen(dtype)) fail(info.Env(), "ERR_DTYPE", name + " must be f32, f16 or bf16 (found " + name_of(dtype) + ")");
    weight.in = in;
    weight.dtype = dtype;
    weight.data[i] = part.tensor.data;
    weight.out[i] = out_in ? part.tensor.rows() : part.tensor.cols();
    if (!part.tensor.contiguous()) fail(info.Env(), "ERR_SHAPE", name + " must have no spare columns");
    object.owners.insert(object.owners.end(), part.owners.begin(), part.owners.end());
  }
  return give(info, std::move(object));
}

struct Bytes {
  const char* data;
  int64_t size;
};

// A typed array of any kind, over shared memory too; one whose buffer was detached has 0 bytes.
Bytes bytes_argument(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsTypedArray()) fail(info.Env(), "ERR_ARGUMENT", "argument " + std::to_string(i + 1) + " must be a typed array");
  void* data = nullptr;
  const napi_status status = napi_get_typedarray_info(info.Env(), info[i], nullptr, nullptr, &data, nullptr, nullptr);
  NAPI_THROW_IF_FAILED(info.Env(), status, Bytes{});
  return {static_cast<const char*>(data), static_cast<int64_t>(info[i].As<Napi::TypedArray>().ByteLength())};
}

// A tensor's elements, one behind the other, as its rows lie in memory. Spare columns become NaN: whoever reads one gives himself away.
std::vector<char> spread(const Tensor& tensor, const char* elements) {
  if (tensor.contiguous()) return {elements, elements + tensor.bytes()};
  std::vector<char> rows(static_cast<size_t>(tensor.extent()), static_cast<char>(0xff));
  const int64_t size = size_of(tensor.dtype), row = tensor.cols() * size;
  for (int64_t i = 0; i < tensor.rows(); ++i) memcpy(rows.data() + i * tensor.pitch * size, elements + i * row, static_cast<size_t>(row));
  return rows;
}

// A tensor's elements from the device, one behind the other.
void fetch(Device& device, const Tensor& tensor, std::vector<char>& elements, Failure& failure) {
  const int64_t bytes = tensor.contiguous() ? tensor.bytes() : tensor.extent();
  elements.resize(static_cast<size_t>(bytes));
  device.backend().download(device.state(), elements.data(), tensor.data, bytes, &failure);
  if (tensor.contiguous()) return;
  const int64_t size = size_of(tensor.dtype), row = tensor.cols() * size;
  for (int64_t i = 1; i < tensor.rows(); ++i) memmove(elements.data() + i * row, elements.data() + i * tensor.pitch * size, static_cast<size_t>(row));
  elements.resize(static_cast<size_t>(tensor.bytes()));
}

// upload(handle, typedArray): the bytes are copied before this returns.
Napi::Value upload(const Napi::CallbackInfo& info) {
  const Object& object = object_argument(info, 0, Object::Is::tensor);
  Device& device = *environment_of(info).device(object.device);
  if (object.read_only) fail(info.Env(), "ERR_ARGUMENT", "upload: the tensor must not lie in a mapped file");
  const Bytes bytes = bytes_argument(info, 1);
  if (bytes.size != object.tensor.bytes()) {
    fail(info.Env(), "ERR_SHAPE", "upload: the tensor has " + std::to_string(object.tensor.bytes()) + " bytes (found " +
                                      std::to_string(bytes.size) + ")");
  }
  auto staged = std::make_shared<std::vector<char>>(spread(object.tensor, bytes.data));
  device.stream().enqueue("upload", Stream::When::healthy, [&device, staged, to = object.tensor.data](Failure& failure) {
    device.backend().upload(device.state(), to, staged->data(), static_cast<int64_t>(staged->size()), &failure);
  });
  return info.Env().Undefined();
}

Napi::Value download(const Napi::CallbackInfo& info) {
  const Object& object = object_argument(info, 0, Object::Is::tensor);
  Device& device = *environment_of(info).device(object.device);
  auto bytes = std::make_shared<std::vector<char>>();
  Stream::Work work = [&device, bytes, tensor = object.tensor](Failure& failure) { fetch(device, tensor, *bytes, failure); };
  return environment_of(info).settle_on_stream(info.Env(), device, "download", std::move(work), bytes);
}

// Reading an array may run a getter, so this comes before anything is looked up.
std::vector<double> numbers_argument(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsArray()) fail(info.Env(), "ERR_ARGUMENT", "argument " + std::to_string(i + 1) + " must be an array of numbers");
  const auto array = info[i].As<Napi::Array>();
  std::vector<double> numbers;
  for (uint32_t at = 0; at < array.Length(); ++at) {
    const Napi::Value number = array.Get(at);
    if (!number.IsNumber()) fail(info.Env(), "ERR_ARGUMENT", "argument " + std::to_string(i + 1) + " must be an array of numbers");
    numbers.push_back(number.As<Napi::Number>().DoubleValue());
  }
  return numbers;
}

// The tensors to be written, all of one device.
std::vector<Tensor> tensors_of(const Napi::CallbackInfo& info, const std::vector<double>& handles, int32_t device) {
  std::vector<Tensor> tensors;
  for (const double handle : handles) {
    const Object* object = environment_of(info).slots().find(handle);
    const std::string name = "writeFile: tensor " + std::to_string(tensors.size());
    if (object == nullptr) fail(info.Env(), "ERR_DISPOSED", name + " was used after its release");
    if (object->is != Object::Is::tensor) fail(info.Env(), "ERR_ARGUMENT", name + " is a handle of another sort");
    if (object->device != device) fail(info.Env(), "ERR_DEVICE", name + " must be on the device that writes");
    tensors.push_back(object->tensor);
  }
  return tensors;
}

// writeFile(device, path, header, handles): header, then the tensors' bytes, one after the other; flushed to the disk.
Napi::Value write_file(const Napi::CallbackInfo& info) {
  const std::vector<double> handles = numbers_argument(info, 3);
  const std::string path = text_argument(info, 1);
  const Bytes header = bytes_argument(info, 2);
  Device& device = device_argument(info, 0);
  std::vector<Tensor> tensors = tensors_of(info, handles, index_argument(info, 0));
  Stream::Work work = [&device, path, head = std::vector<char>(header.data, header.data + header.size),
                       tensors = std::move(tensors)](Failure& failure) {
    std::vector<std::vector<char>> copies;
    std::vector<Piece> pieces{{head.data(), static_cast<int64_t>(head.size())}};
    for (const Tensor& tensor : tensors) {
      const void* data = tensor.data;
      if (device.backend().host_memory == 0) {
        copies.emplace_back();
        fetch(device, tensor, copies.back(), failure);
        data = copies.back().data();
      }
      pieces.push_back({data, tensor.bytes()});
    }
    if (!failure.happened()) lowrank::write_file(path, pieces.data(), pieces.size(), failure);
  };
  return environment_of(info).settle_on_stream(info.Env(), device, "writeFile", std::move(work));
}

}  // namespace

void add_memory(Napi::Env, Napi::Object exports, Environment& environment) {
  add_method(exports, "alloc", alloc, environment);
  add_method(exports, "allocBordered", alloc_bordered, environment);
  add_method(exports, "view", view, environment);
  add_method(exports, "release", release, environment);
  add_method(exports, "map", map, environment);
  add_method(exports, "mapBytes", map_bytes, environment);
  add_method(exports, "mapTensor", map_tensor, environment);
  add_method(exports, "weight", weight, environment);
  add_method(exports, "upload", upload, environment);
  add_method(exports, "download", download, environment);
  add_method(exports, "writeFile", write_file, environment);
}

}  // namespace lowrank::addon
