// alloc, allocBordered, view, release, upload, download, writeFile.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tensors.h"

namespace lowrank::addon {

namespace {

std::string shown(double number) {
  char text[32];
  snprintf(text, sizeof text, "%.15g", number);
  return text;
}

}  // namespace

Napi::Value give(const Napi::CallbackInfo& info, Object object) {
  const double handle = environment_of(info).slots().add(std::move(object));
  if (handle == 0) fail(info.Env(), "ERR_MEMORY", "too many live tensors (2^24)");
  return Napi::Number::New(info.Env(), handle);
}

DType dtype_argument(const Napi::CallbackInfo& info, size_t i) {
  const double dtype = number_argument(info, i);
  if (!(dtype >= 0 && dtype < kDTypes) || dtype != floor(dtype)) fail(info.Env(), "ERR_DTYPE", "there is no dtype " + shown(dtype));
  return static_cast<DType>(static_cast<int32_t>(dtype));
}

int64_t offset_argument(const Napi::CallbackInfo& info, size_t i) {
  const double offset = number_argument(info, i);
  if (offset >= 0 && offset <= 9007199254740992.0 && offset == floor(offset)) return static_cast<int64_t>(offset);
  fail(info.Env(), "ERR_SHAPE", "an offset must be a whole number, not negative (found " + shown(offset) + ")");
}

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

std::shared_ptr<void> new_block(Device& device, int64_t bytes) {
  device.loans().collect();
  void* block = device.pool().allocate(bytes);
  if (block == nullptr) return nullptr;
  return {block, [pool = &device.pool()](void* memory) { pool->release(memory); }};
}

std::string no_memory(Device& device, const char* what, int64_t bytes) {
  return std::string("no memory for a ") + what + " of " + std::to_string(bytes) + " bytes (" + std::to_string(device.pool().live_bytes()) + " in use)";
}

Object new_tensor(const Napi::CallbackInfo& info, int32_t id, Tensor tensor) {
  Device& device = *environment_of(info).device(id);
  std::shared_ptr<void> block = new_block(device, tensor.extent());
  if (block == nullptr) fail(info.Env(), "ERR_MEMORY", no_memory(device, "tensor", tensor.extent()));
  tensor.data = block.get();
  Object object;
  object.is = Object::Is::tensor;
  object.device = id;
  object.tensor = tensor;
  object.owners.push_back(std::move(block));
  return object;
}

namespace {

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

// A tensor, and the file that its data lies in where the device can't read it there.
struct Source {
  Tensor tensor;
  std::shared_ptr<MappedFile> file;
};
Source source_of(const Object& object) { return {object.tensor, object.stored != nullptr ? object.stored->file() : nullptr}; }

// A tensor's elements, one behind the other.
void fetch(Device& device, const Source& source, std::vector<char>& elements, Failure& failure) {
  const Tensor& tensor = source.tensor;
  if (source.file != nullptr) {
    if (source.file->check_whole(failure)) elements.assign(tensor.as<char>(), tensor.as<char>() + tensor.bytes());
    return;
  }
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
  Stream::Work work = [&device, bytes, source = source_of(object)](Failure& failure) { fetch(device, source, *bytes, failure); };
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
std::vector<Source> sources_of(const Napi::CallbackInfo& info, const std::vector<double>& handles, int32_t device) {
  std::vector<Source> sources;
  for (const double handle : handles) {
    const Object* object = environment_of(info).slots().find(handle);
    const std::string name = "writeFile: tensor " + std::to_string(sources.size());
    if (object == nullptr) fail(info.Env(), "ERR_DISPOSED", name + " was used after its release");
    if (object->is != Object::Is::tensor) fail(info.Env(), "ERR_ARGUMENT", name + " is a handle of another sort");
    if (object->device != device) fail(info.Env(), "ERR_DEVICE", name + " must be on the device that writes");
    sources.push_back(source_of(*object));
  }
  return sources;
}

// writeFile(device, path, header, handles): header, then the tensors' bytes, one after the other; flushed to the disk.
Napi::Value write_file(const Napi::CallbackInfo& info) {
  const std::vector<double> handles = numbers_argument(info, 3);
  const std::string path = text_argument(info, 1);
  const Bytes header = bytes_argument(info, 2);
  Device& device = device_argument(info, 0);
  std::vector<Source> sources = sources_of(info, handles, index_argument(info, 0));
  Stream::Work work = [&device, path, head = std::vector<char>(header.data, header.data + header.size),
                       sources = std::move(sources)](Failure& failure) {
    std::vector<std::vector<char>> copies;
    std::vector<Piece> pieces{{head.data(), static_cast<int64_t>(head.size())}};
    for (const Source& source : sources) {
      const void* data = source.tensor.data;
      if (source.file != nullptr) {
        if (!source.file->check_whole(failure)) return;
      } else if (device.backend().host_memory == 0) {
        copies.emplace_back();
        fetch(device, source, copies.back(), failure);
        data = copies.back().data();
      }
      pieces.push_back({data, source.tensor.bytes()});
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
  add_method(exports, "upload", upload, environment);
  add_method(exports, "download", download, environment);
  add_method(exports, "writeFile", write_file, environment);
}

}  // namespace lowrank::addon
