// lend, adopt, returnLoan: tensors as DLPack structs, for other native code in the process. A pointer crosses as a BigInt.
#include "../core/dlpack.h"

#include "tensors.h"

namespace lowrank::addon {

namespace {

using dlpack::DLManagedTensor;
using dlpack::DLManagedTensorVersioned;

// What the deleter of a lent tensor gives back. The device lives until then, closed or not.
struct Loan {
  std::shared_ptr<Device> device;
  Loans::Owners owners;
};

void end_loan(void* owner) {
  const std::unique_ptr<Loan> loan(static_cast<Loan*>(owner));
  loan->device->loans().give_back(std::move(loan->owners));
}

int32_t device_type(const Device& device) {
  const std::string kind = device.backend().kind;
  return kind == "cpu" ? dlpack::kCpu : kind == "cuda" ? dlpack::kCuda : dlpack::kExtension;
}

bool is_versioned(const Napi::CallbackInfo& info, size_t i) { return index_argument(info, i) != 0; }

void* pointer_argument(const Napi::CallbackInfo& info, size_t i) {
  bool whole = false;
  const uint64_t address = info[i].IsBigInt() ? info[i].As<Napi::BigInt>().Uint64Value(&whole) : 0;
  if (!whole || address == 0 || address % alignof(DLManagedTensor) != 0) fail(info.Env(), "ERR_ARGUMENT", "dlpack: must be the address of a managed tensor, as a bigint");
  return reinterpret_cast<void*>(static_cast<uintptr_t>(address));
}

// lend(handle, versioned): the address of a managed tensor over the tensor's bytes. Whoever takes it calls its deleter.
Napi::Value lend(const Napi::CallbackInfo& info) {
  const Object& object = object_argument(info, 0, Object::Is::tensor);
  const bool versioned = is_versioned(info, 1);
  if (object.read_only && !versioned) fail(info.Env(), "ERR_ARGUMENT", "dlpack: a tensor in a mapped file is read-only, which only the versioned struct can say");
  const std::shared_ptr<Device> device = environment_of(info).share_device(object.device);
  auto loan = std::make_unique<Loan>(Loan{device, object.owners});
  Tensor tensor = object.tensor;
  if (object.stored != nullptr) {
    tensor = object.stored->copied(*device, tensor);
    if (tensor.data == nullptr) fail(info.Env(), "ERR_MEMORY", no_memory(*device, "tensor", tensor.bytes()));
    loan->owners.push_back(object.stored->copy());
  }
  dlpack::Export from{tensor, {device_type(*device), device->ordinal()}, object.read_only ? dlpack::kReadOnly : 0, loan.get(), end_loan};
  void* managed = nullptr;
  if (versioned) managed = dlpack::write_versioned(from);
  else managed = dlpack::write(from);
  if (managed == nullptr) fail(info.Env(), "ERR_MEMORY", "dlpack: out of host memory");
  loan.release();
  return Napi::BigInt::New(info.Env(), static_cast<uint64_t>(reinterpret_cast<uintptr_t>(managed)));
}

template <class Managed>
void end(void* managed) {
  auto* self = static_cast<Managed*>(managed);
  if (self->deleter != nullptr) self->deleter(self);
}

Napi::Value return_loan(const Napi::CallbackInfo& info) {
  void* managed = pointer_argument(info, 0);
  if (is_versioned(info, 1)) end<DLManagedTensorVersioned>(managed);
  else end<DLManagedTensor>(managed);
  return info.Env().Undefined();
}

void check_place(const Napi::CallbackInfo& info, const dlpack::DLTensor& from, const Device& device) {
  const int32_t type = device_type(device);
  const bool here = from.device.type == type && (type == dlpack::kCpu || from.device.id == device.ordinal());
  if (here || (type == dlpack::kCpu && from.device.type == dlpack::kPinned)) return;
  fail(info.Env(), "ERR_DEVICE", "dlpack: the tensor must be on the device (" + std::to_string(type) + ":" + std::to_string(device.ordinal()) + "; found " +
                                     std::to_string(from.device.type) + ":" + std::to_string(from.device.id) + ")");
}

void check_bytes(const Napi::CallbackInfo& info, const Tensor& tensor) {
  double count = 1;
  for (int i = 0; i < tensor.rank; ++i) {
    if (tensor.dims[i] < 0) fail(info.Env(), "ERR_SHAPE", "dlpack: a dimension must not be negative");
    count *= tensor.dims[i] > 0 ? static_cast<double>(tensor.dims[i]) : 1;
  }
  if (count > 1e15) fail(info.Env(), "ERR_SHAPE", "dlpack: a tensor of more than 10^15 elements");
  if (!tensor.contiguous()) fail(info.Env(), "ERR_SHAPE", "dlpack: rows must lie without gaps (rows of " + std::to_string(tensor.cols()) + " are " + std::to_string(tensor.pitch) + " apart)");
  const bool aligned = reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(size_of(tensor.dtype)) == 0;
  if (!aligned || (tensor.data == nullptr && tensor.count() > 0)) fail(info.Env(), "ERR_ARGUMENT", "dlpack: data must be given, aligned to its dtype");
}

// [handle, dtype, ...dims]. Only then has it been taken: where a check throws, it stays the caller's.
template <class Managed>
Napi::Value adopt_managed(const Napi::CallbackInfo& info, Managed* managed, bool read_only) {
  Device& device = device_argument(info, 0);
  Failure failure{};
  Object object;
  check_place(info, managed->dl_tensor, device);
  if (!dlpack::read(managed->dl_tensor, object.tensor, failure)) fail(info.Env(), failure.code, failure.text);
  check_bytes(info, object.tensor);
  object.is = Object::Is::tensor;
  object.device = index_argument(info, 0);
  object.read_only = read_only;
  const Tensor tensor = object.tensor;
  // Its deleter waits its turn on the stream: work that uses the bytes may still be queued when the last handle goes. It is called when
  // that piece of work is dropped, which happens too where the stream has stopped. Before it was taken it is not ours to end.
  const auto taken = std::make_shared<bool>(false);
  object.owners.emplace_back(managed, [&device, taken](Managed* gone) {
    if (*taken) device.stream().enqueue("dlpack", Stream::When::always, [&device, foreign = std::shared_ptr<Managed>(gone, end<Managed>)](Failure& failure) {
      if (device.backend().host_memory == 0) device.backend().synchronize(device.state(), &failure);
    });
  });
  const double handle = environment_of(info).slots().add(std::move(object));
  if (handle == 0) fail(info.Env(), "ERR_MEMORY", "too many live tensors (2^24)");
  *taken = true;
  Napi::Array result = Napi::Array::New(info.Env());
  result.Set(0u, handle);
  result.Set(1u, static_cast<double>(tensor.dtype));
  for (int i = 0; i < tensor.rank; ++i) result.Set(static_cast<uint32_t>(i) + 2, static_cast<double>(tensor.dims[i]));
  return result;
}

// adopt(device, address, versioned): a tensor over somebody else's bytes.
Napi::Value adopt(const Napi::CallbackInfo& info) {
  void* managed = pointer_argument(info, 1);
  if (!is_versioned(info, 2)) return adopt_managed(info, static_cast<DLManagedTensor*>(managed), false);
  auto* versioned = static_cast<DLManagedTensorVersioned*>(managed);
  if (versioned->major != dlpack::kMajor) {
    fail(info.Env(), "ERR_UNSUPPORTED", "dlpack: must be of version " + std::to_string(dlpack::kMajor) + " (found " + std::to_string(versioned->major) + ")");
  }
  return adopt_managed(info, versioned, (versioned->flags & dlpack::kReadOnly) != 0);
}

}  // namespace

void add_dlpack(Napi::Env, Napi::Object exports, Environment& environment) {
  add_method(exports, "lend", lend, environment);
  add_method(exports, "returnLoan", return_loan, environment);
  add_method(exports, "adopt", adopt, environment);
}

}  // namespace lowrank::addon
