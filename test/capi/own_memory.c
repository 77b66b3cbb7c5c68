/* The C ABI on a device with memory of its own, through the plugin loader: the CUDA kernels in the emulator or, where the first argument is
 * `cuda`, on a GPU, there on a stream of the caller's too. */
#include "caller.h"
#include "layer.h"

static float* to_device(lowrank_context* context, const float* from, int64_t n) {
  void* memory = NULL;
  if (lowrank_allocate(context, n * 4, &memory) != LOWRANK_OK || lowrank_upload(context, memory, from, n * 4) != LOWRANK_OK) {
    printf("FAILED memory of the device: %s\n", lowrank_last_error());
    exit(1);
  }
  return memory;
}

static Layer on_device(lowrank_context* context, const Layer* host) {
  Layer there = *host;
  float** moved[] = {&there.x, &there.w, &there.a, &there.b, &there.dy, &there.y, &there.u, &there.dx, &there.da, &there.db};
  const int64_t sizes[] = {kT * kK, kN * kK, kRanks * kK, kFlatB, kT * kN, kT * kN, kT * kRanks, kT * kK, kRanks * kK, kFlatB};
  for (size_t i = 0; i < sizeof moved / sizeof moved[0]; ++i) *moved[i] = to_device(context, *moved[i], sizes[i]);
  return there;
}

static int are_near(const float* found, const float* wanted, int64_t n) {
  int near = 1;
  for (int64_t i = 0; i < n; ++i) near = near && fabsf(found[i] - wanted[i]) <= 1e-5f * (1 + fabsf(wanted[i]));
  return near;
}

static int is_close(lowrank_context* context, const float* there, const float* here, int64_t n) {
  float* brought = malloc((size_t)n * sizeof(float));
  const int close = lowrank_download(context, brought, there, n * 4) == LOWRANK_OK && are_near(brought, here, n);
  free(brought);
  return close;
}

/* `here`: the layer after the CPU has run it. */
static void check_stream(const Layer* here) {
  Caller caller = {0};
  CHECK("the driver gives a stream", open_caller(&caller));
  if (caller.stream == NULL) return;
  lowrank_context* device = NULL;
  lowrank_options options = {0};
  options.abi = LOWRANK_ABI, options.device_type = LOWRANK_CUDA, options.stream = caller.stream;
  CHECK("a context on a caller's stream opens", lowrank_open(&options, &device) == LOWRANK_OK);
  if (device == NULL) return;
  Layer fresh = make_layer(0), there = on_device(device, &fresh);
  float y[kT * kN], dx[kT * kK];
  CHECK("a layer is queued there, and the caller's own wait is enough", run_layer(device, &there, 0.25f, 1) && caller.synchronize(caller.stream) == 0);
  CHECK("the caller reads y and dx", caller.to_host(y, (unsigned long long)(uintptr_t)there.y, sizeof y) == 0 && caller.to_host(dx, (unsigned long long)(uintptr_t)there.dx, sizeof dx) == 0);
  CHECK("they are the CPU's", are_near(y, here->y, kT * kN) && are_near(dx, here->dx, kT * kK));
  void* current = NULL;
  CHECK("the thread's CUDA context is the one that it was", caller.get_current(&current) == 0 && current == caller.context);
  lowrank_close(device);
  free_layer(&fresh);
}

int main(int count, char** arguments) {
  const int cuda = count > 1 && strcmp(arguments[1], "cuda") == 0;
  lowrank_context *cpu = open_cpu(1), *device = NULL;
  lowrank_options options = {0};
  options.abi = LOWRANK_ABI, options.device_type = cuda ? LOWRANK_CUDA : LOWRANK_EMULATOR;
  CHECK("a device is found beside the library, or where LOWRANK_CUDA_PLUGIN or LOWRANK_CUSIM_PLUGIN says", lowrank_device_count(options.device_type) > 0);
  CHECK("a context on it opens", lowrank_open(&options, &device) == LOWRANK_OK);
  if (device == NULL) return 1;
  lowrank_info info;
  CHECK("it tells what multiplies matrices of 16 bits", lowrank_get_info(device, &info) == LOWRANK_OK && (cuda ? info.products[0] != 0 : strstr(info.products, "own kernel") == info.products));
  const int32_t ordinal = getenv("LOWRANK_CUSIM_OLD") != NULL ? 1 : 0; /* device 0 is too old then */
  CHECK("it tells CUDA's number of its device", info.device_index == ordinal);
  Layer here = make_layer(0), there = on_device(device, &here);
  CHECK("a layer runs on it", run_layer(cpu, &here, 0.25f, 1) && run_layer(device, &there, 0.25f, 1) && lowrank_synchronize(device) == LOWRANK_OK);
  CHECK("y is the CPU's", is_close(device, there.y, here.y, kT * kN));
  CHECK("dx, dA and dB are the CPU's", is_close(device, there.dx, here.dx, kT * kK) && is_close(device, there.da, here.da, kRanks * kK) && is_close(device, there.db, here.db, kFlatB));
  lowrank_add_args add = {vector(there.y, 4), vector(there.y, 4), vector(there.y, 4)};
  add.b.device_type = LOWRANK_CPU;
  REFUSES("an operand in host memory is refused", lowrank_add(device, &add), LOWRANK_ERR_DEVICE, "must be on the context's device");
  add.b.device_type = options.device_type, add.b.device_index = ordinal;
  CHECK("an operand on it has that number", lowrank_add(device, &add) == LOWRANK_OK);
  add.b.device_index = 1 - ordinal;
  REFUSES("one with another number is on another device", lowrank_add(device, &add), LOWRANK_ERR_DEVICE, "must be on the context's device");
  add.y = add.a = matrix(there.y, 2, 2), add.b = pitched(there.y, 2, 2, 3);
  REFUSES("rows with gaps are refused where kernels don't know them", lowrank_add(device, &add), LOWRANK_ERR_UNSUPPORTED, "b must have rows without gaps");
  const float bits = 1e-44f;  /* 7 as an int */
  int32_t* ids = (int32_t*)to_device(device, &bits, 1);
  lowrank_embedding_args embedding = {matrix(there.y, 1, 3), vector(ids, 1), matrix(there.w, 4, 3), {0}, {0}};
  embedding.ids.dtype = LOWRANK_I32;
  CHECK("what only a kernel can find out doesn't stop the caller", lowrank_embedding(device, &embedding) == LOWRANK_OK);
  REFUSES("and is told by lowrank_synchronize", lowrank_synchronize(device), LOWRANK_ERR_RANGE, "7");
  CHECK("after that all is well", lowrank_synchronize(device) == LOWRANK_OK && lowrank_release(device, ids, 4) == LOWRANK_OK);
  if (cuda) check_stream(&here);
  lowrank_close(device), lowrank_close(cpu);
  free_layer(&here);
  printf("%d failures\n", check_failures);
  return check_failures == 0 ? 0 : 1;
}
