/* The C ABI on a device with memory of its own: the CUDA kernels in the emulator, through the plugin loader. */
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

static int is_close(lowrank_context* context, const float* there, const float* here, int64_t n) {
  float* brought = malloc((size_t)n * sizeof(float));
  int close = lowrank_download(context, brought, there, n * 4) == LOWRANK_OK;
  for (int64_t i = 0; i < n; ++i) close = close && fabsf(brought[i] - here[i]) <= 1e-5f * (1 + fabsf(here[i]));
  free(brought);
  return close;
}

int main(void) {
  lowrank_context *cpu = open_cpu(1), *device = NULL;
  lowrank_options options = {0};
  options.abi = LOWRANK_ABI, options.device_type = LOWRANK_EMULATOR;
  CHECK("the emulator is found beside the library, or where LOWRANK_CUSIM_PLUGIN says", lowrank_device_count(LOWRANK_EMULATOR) > 0);
  CHECK("a context on it opens", lowrank_open(&options, &device) == LOWRANK_OK);
  if (device == NULL) return 1;
  lowrank_info info;
  CHECK("it tells what multiplies matrices of 16 bits", lowrank_get_info(device, &info) == LOWRANK_OK && strstr(info.products, "own kernel") == info.products);
  const int32_t ordinal = getenv("LOWRANK_CUSIM_OLD") != NULL ? 1 : 0; /* device 0 is too old then */
  CHECK("it tells CUDA's number of its device", info.device_index == ordinal);
  Layer here = make_layer(0), there = on_device(device, &here);
  CHECK("a layer runs on it", run_layer(cpu, &here, 0.25f, 1) && run_layer(device, &there, 0.25f, 1) && lowrank_synchronize(device) == LOWRANK_OK);
  CHECK("y is the CPU's", is_close(device, there.y, here.y, kT * kN));
  CHECK("dx, dA and dB are the CPU's", is_close(device, there.dx, here.dx, kT * kK) && is_close(device, there.da, here.da, kRanks * kK) && is_close(device, there.db, here.db, kFlatB));
  lowrank_add_args add = {vector(there.y, 4), vector(there.y, 4), vector(there.y, 4)};
  add.b.device_type = LOWRANK_CPU;
  REFUSES("an operand in host memory is refused", lowrank_add(device, &add), LOWRANK_ERR_DEVICE, "must be on the context's device");
  add.b.device_type = LOWRANK_EMULATOR, add.b.device_index = ordinal;
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
  lowrank_close(device), lowrank_close(cpu);
  free_layer(&here);
  printf("%d failures\n", check_failures);
  return check_failures == 0 ? 0 : 1;
}
