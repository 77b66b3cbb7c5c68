/* What lowrank.h promises, claim by claim. Ends with 0 when all hold. */
#define _GNU_SOURCE
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "dlpack_structs.h"
#include "layer.h"

static void check_opening(void) {
  lowrank_options options = {0};
  lowrank_context* context = (lowrank_context*)&options;
  lowrank_info info;
  CHECK("the library is the header's: version", strcmp(lowrank_version(), LOWRANK_VERSION) == 0 && lowrank_abi() == LOWRANK_ABI);
  CHECK("before the first failure there is no last error", lowrank_last_status() == LOWRANK_OK && lowrank_last_error()[0] == 0);
  options.abi = LOWRANK_ABI + 1, options.device_type = LOWRANK_CPU;
  REFUSES("a caller of another header is refused", lowrank_open(&options, &context), LOWRANK_ERR_ARGUMENT, "LOWRANK_ABI");
  CHECK("a context that can't be opened is NULL", context == NULL);
  options.abi = LOWRANK_ABI, options.device_type = 3;
  REFUSES("a device type that doesn't exist is refused", lowrank_open(&options, &context), LOWRANK_ERR_ARGUMENT, "device_type");
  options.device_type = LOWRANK_CPU, options.device_index = 1;
  REFUSES("there is one CPU", lowrank_open(&options, &context), LOWRANK_ERR_DEVICE, "one CPU device");
  options.device_index = 0, options.threads = -1;
  REFUSES("a pool has 1 to 1024 threads", lowrank_open(&options, &context), LOWRANK_ERR_ARGUMENT, "threads");
  options.threads = 3, options.matmul_precision = 2;
  REFUSES("a precision that doesn't exist is refused", lowrank_open(&options, &context), LOWRANK_ERR_ARGUMENT, "matmul_precision");
  options.matmul_precision = LOWRANK_MEDIUM;
  CHECK("a context opens", lowrank_open(&options, &context) == LOWRANK_OK && context != NULL);
  CHECK("its pool is as large as asked for", lowrank_get_info(context, &info) == LOWRANK_OK && info.threads == 3 && info.name[0] != 0 && info.memory > 0);
  lowrank_close(context);
  lowrank_close(NULL);
  CHECK("devices are counted", lowrank_device_count(LOWRANK_CPU) == 1 && lowrank_device_count(77) == 0);
  CHECK("statuses have the names of the errors in TypeScript", strcmp(lowrank_status_name(LOWRANK_ERR_SHAPE), "ERR_SHAPE") == 0 && strcmp(lowrank_status_name((lowrank_status)99), "?") == 0);
}

static void check_refusals(lowrank_context* context) {
  float numbers[16] = {0};
  lowrank_add_args add = {vector(numbers, 4), vector(numbers, 4), vector(numbers, 4)};
  REFUSES("a call needs a context", lowrank_add(NULL, &add), LOWRANK_ERR_ARGUMENT, "add: a context");
  REFUSES("a call needs operands", lowrank_add(context, NULL), LOWRANK_ERR_ARGUMENT, "add: operands");
  add.b.dims[0] = 5;
  REFUSES("shapes are checked, and told", lowrank_add(context, &add), LOWRANK_ERR_SHAPE, "add: a must have the shape of b (y [4], a [4], b [5])");
  add.b = vector(NULL, 4);
  REFUSES("an operand that is needed must have data", lowrank_add(context, &add), LOWRANK_ERR_ARGUMENT, "b must have data");
  add.b = vector((char*)numbers + 1, 4);
  REFUSES("data must be aligned", lowrank_add(context, &add), LOWRANK_ERR_ARGUMENT, "aligned");
  add.b = vector(numbers, 4), add.b.dtype = LOWRANK_BF16;
  REFUSES("dtypes are checked", lowrank_add(context, &add), LOWRANK_ERR_DTYPE, "b must be f32 on this device (found bf16)");
  add.b.dtype = 9;
  REFUSES("a dtype that doesn't exist is refused", lowrank_add(context, &add), LOWRANK_ERR_DTYPE, "lowrank_dtype");
  add.b = vector(numbers, 4), add.b.device_type = LOWRANK_CUDA;
  REFUSES("an operand on another device is refused", lowrank_add(context, &add), LOWRANK_ERR_DEVICE, "found 2:0");
  add.b = pitched(numbers, 2, 2, 1);
  REFUSES("rows must not overlap", lowrank_add(context, &add), LOWRANK_ERR_SHAPE, "row_pitch");
  add.b = vector(numbers, -4);
  REFUSES("a size must not be negative", lowrank_add(context, &add), LOWRANK_ERR_SHAPE, "none negative");
  add.b = vector(numbers, INT64_MAX), add.b.rank = 3, add.b.dims[1] = add.b.dims[2] = INT64_MAX;
  REFUSES("sizes whose product overflows are refused", lowrank_add(context, &add), LOWRANK_ERR_SHAPE, "10^15");
  add.b.rank = 5;
  REFUSES("a fifth dimension is refused", lowrank_add(context, &add), LOWRANK_ERR_SHAPE, "0 to 4");
  lowrank_linear_args linear = {0};
  linear.y = matrix(numbers, 2, 2), linear.x = matrix(numbers + 4, 2, 2), linear.w = weight(numbers + 8, 2, 2);
  linear.w.parts = 4;
  REFUSES("a weight has one to three parts", lowrank_linear(context, &linear), LOWRANK_ERR_ARGUMENT, "w: parts");
  linear.w.parts = 1, linear.w.dtype = LOWRANK_I32;
  REFUSES("a weight is of floats", lowrank_linear(context, &linear), LOWRANK_ERR_ARGUMENT, "w: dtype");
  linear.w.dtype = LOWRANK_F32, linear.w.data[0] = NULL;
  REFUSES("a weight has data", lowrank_linear(context, &linear), LOWRANK_ERR_ARGUMENT, "w: each part");
  linear.w = weight(numbers + 8, 2, 3);
  REFUSES("a weight fits its x", lowrank_linear(context, &linear), LOWRANK_ERR_SHAPE, "W must be [N, K]");
  linear.w = weight(numbers + 8, 2, 2), linear.w.border = 64, linear.w.row_pitch = 128;
  REFUSES("a weight that was packed for another sort of device is refused", lowrank_linear(context, &linear), LOWRANK_ERR_ARGUMENT, "lowrank_pack");
  add.b = pitched(numbers, 2, 2, 4), add.b.spare = 3;
  REFUSES("what is spare lies between rows", lowrank_add(context, &add), LOWRANK_ERR_SHAPE, "spare");
  add.y = add.a = add.b = vector(NULL, 0);
  CHECK("no elements need no data", lowrank_add(context, &add) == LOWRANK_OK);
}

/* Scalars so large that sums and products of them overflow. */
static void check_large_scalars(lowrank_context* context) {
  float numbers[64] = {0};
  lowrank_attention_cache_args cache = {.y = matrix(numbers, 1, 4), .k_cache = matrix(numbers + 8, 2, 4), .v_cache = matrix(numbers + 16, 2, 4), .qkv = matrix(numbers + 24, 1, 12),
                                        .heads = 1, .kv_heads = 1, .start = INT64_MAX, .scale = 1};
  REFUSES("a start at the end of all numbers is refused", lowrank_attention_cache(context, &cache), LOWRANK_ERR_SHAPE, "start + T");
  cache.start = 0, cache.heads = (int64_t)1 << 62, cache.kv_heads = (int64_t)1 << 62;
  REFUSES("more heads than can be counted are refused", lowrank_attention_cache(context, &cache), LOWRANK_ERR_SHAPE, "heads + 2 kv_heads");
  const int64_t many = (int64_t)1 << 40, ranks = (int64_t)1 << 24;
  lowrank_lora_linear_args wide = {.y = matrix(NULL, 0, many), .u = matrix(NULL, 0, ranks), .x = matrix(NULL, 0, 0), .w = weight(NULL, many, 0), .a = matrix(NULL, ranks, 0),
                                   .b = vector(NULL, 0), .rank = {ranks, 0, 0}};
  REFUSES("a B of 2^64 numbers is not one of none", lowrank_lora_linear(context, &wide), LOWRANK_ERR_SHAPE, "B must have");
}

/* What is only found while computing. */
static void check_range(lowrank_context* context) {
  float *table = noise(12, 1), y[6];
  int32_t ids[2] = {1, 4};
  lowrank_embedding_args args = {matrix(y, 2, 3), vector(ids, 2), matrix(table, 4, 3), {0}, {0}};
  args.ids.dtype = LOWRANK_I32;
  REFUSES("an id outside its table is told", lowrank_embedding(context, &args), LOWRANK_ERR_RANGE, "4");
  ids[1] = 3;
  CHECK("after a failure the context goes on", lowrank_embedding(context, &args) == LOWRANK_OK && memcmp(y + 3, table + 9, 12) == 0);
  free(table);
}

static void check_rows(lowrank_context* context) {
  Layer plain = make_layer(0), wide = make_layer(5);
  CHECK("a layer runs", run_layer(context, &plain, 0.25f, 1));
  CHECK("a layer runs on rows with gaps", run_layer(context, &wide, 0.25f, 1));
  CHECK("rows with gaps give the same bits", same_results(&plain, &wide));
  int kept = 1;
  for (int64_t t = 0; t < kT; ++t)
    for (int64_t i = 0; i < 5; ++i) kept = kept && wide.y[t * wide.y_pitch + kN + i] == 7 && wide.dx[t * wide.x_pitch + kK + i] == 7;
  CHECK("gaps keep what they hold", kept);
  free_layer(&plain), free_layer(&wide);
}

static void check_threads(lowrank_context* context) {
  Layer many = make_layer(0), one = make_layer(0), other = make_layer(0);
  lowrank_context* single = open_cpu(1);
  CHECK("any number of threads gives the same bits", run_layer(context, &many, 0.1f, 3) && run_layer(single, &one, 0.1f, 3) && same_results(&many, &one));
  CHECK("another step draws another mask", run_layer(context, &other, 0.1f, 4) && !same_results(&many, &other));
  lowrank_close(single);
  free_layer(&many), free_layer(&one), free_layer(&other);
}

typedef struct Job {
  lowrank_context* context;
  float value;
  int good;
} Job;

/* Fills and reads back, and fails now and then. */
static void* work(void* argument) {
  Job* job = argument;
  float numbers[300];
  char words[32];
  snprintf(words, sizeof words, "y [%d]", (int)job->value);
  job->good = lowrank_last_error()[0] == 0;
  for (int i = 0; i < 200; ++i) {
    const lowrank_fill_args fill = {vector(numbers, 300), job->value + (float)i};
    job->good = job->good && lowrank_fill(job->context, &fill) == LOWRANK_OK && numbers[299] == job->value + (float)i;
    const lowrank_add_args wrong = {vector(numbers, (int64_t)job->value), vector(numbers, 1), vector(numbers, 1)};
    job->good = job->good && lowrank_add(job->context, &wrong) == LOWRANK_ERR_SHAPE && strstr(lowrank_last_error(), words) != NULL;
  }
  return NULL;
}

static int run_jobs(Job* jobs) {
  pthread_t threads[2];
  for (int i = 0; i < 2; ++i) pthread_create(&threads[i], NULL, work, &jobs[i]);
  for (int i = 0; i < 2; ++i) pthread_join(threads[i], NULL);
  return jobs[0].good && jobs[1].good;
}

static void check_sharing(lowrank_context* context) {
  lowrank_context* second = open_cpu(2);
  Job shared[2] = {{context, 20, 0}, {context, 30, 0}}, apart[2] = {{context, 20, 0}, {second, 30, 0}};
  CHECK("two threads share a context; each has its own last error", run_jobs(shared));
  CHECK("two threads with a context each", run_jobs(apart));
  lowrank_close(second);
}

static void check_float_mode(lowrank_context* context) {
  float x[4] = {1e30f, -1e30f, 0, 1e-38f}, sum = 0, tiny = 1e-30f;
  volatile float product;
  lowrank_sum_squares_args squares = {vector(&sum, 1), vector(x, 4)};
  fesetround(FE_UPWARD);
  feclearexcept(FE_ALL_EXCEPT);
  feenableexcept(FE_OVERFLOW | FE_INVALID | FE_DIVBYZERO);
  const int traps = fegetexcept(); /* none on an Arm processor without traps */
  const lowrank_status status = lowrank_sum_squares(context, &squares);
  const int kept = fegetround() == FE_UPWARD && fegetexcept() == traps;
  fedisableexcept(FE_ALL_EXCEPT);
  fesetround(FE_TONEAREST);
  product = tiny * 1e-12f;
  CHECK("an overflow doesn't reach a caller that traps it", status == LOWRANK_OK && isinf(sum));
  CHECK("the caller's rounding, traps and denormals are kept", kept && product > 0);
}

static void check_copies(lowrank_context* context) {
  char bytes[4] = {0};
  REFUSES("an upload from NULL is refused", lowrank_upload(context, bytes, NULL, 4), LOWRANK_ERR_ARGUMENT, "must be given");
  REFUSES("a download to NULL is refused", lowrank_download(context, NULL, bytes, 4), LOWRANK_ERR_ARGUMENT, "must be given");
  CHECK("no bytes need no memory", lowrank_upload(context, NULL, NULL, 0) == LOWRANK_OK && lowrank_download(context, NULL, NULL, 0) == LOWRANK_OK);
}

static void check_packing(lowrank_context* context) {
  float numbers[6] = {0};
  const lowrank_weight stored = weight(numbers, 2, 3);
  lowrank_weight packed = {0};
  int64_t bytes = -1;
  CHECK("the CPU likes a weight best as it is", lowrank_packed_bytes(context, &stored, LOWRANK_F32, &bytes) == LOWRANK_OK && bytes == 0 &&
        lowrank_pack(context, &stored, LOWRANK_F32, NULL, &packed) == LOWRANK_OK && memcmp(&packed, &stored, sizeof packed) == 0);
  REFUSES("packing for activations that it has none of is refused", lowrank_pack(context, &stored, LOWRANK_BF16, NULL, &packed), LOWRANK_ERR_DTYPE, "activations must be f32");
}

static volatile sig_atomic_t handled = 0;
static pthread_t handler_thread;
static void handle(int signal) { (void)signal, handler_thread = pthread_self(), handled = 1; }

static void check_signals(void) {
  struct sigaction action = {0};
  sigset_t usr1, before;
  action.sa_handler = handle;
  sigaction(SIGUSR1, &action, NULL);
  lowrank_context* context = open_cpu(4);
  sigemptyset(&usr1), sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, &before);
  kill(getpid(), SIGUSR1);
  const struct timespec moment = {0, 20000000};
  nanosleep(&moment, NULL);
  const int kept = !handled;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  CHECK("a signal of the process waits for the program's threads", kept && handled && pthread_equal(handler_thread, pthread_self()));
  lowrank_close(context);
}

static int released = 0;
static void release(void* owner) { released += *(int*)owner; }

static void check_dlpack(void) {
  float numbers[30];
  int owner = 3;
  lowrank_tensor from = pitched(numbers, 4, 5, 7), to;
  void* managed = NULL;
  CHECK("a tensor goes to DLPack", lowrank_tensor_to_dlpack(&from, 0, &owner, release, &managed) == LOWRANK_OK);
  DLManagedTensor* plain = managed;
  CHECK("as a CPU tensor of f32 with strides", plain->dl_tensor.device.device_type == 1 && plain->dl_tensor.dtype.code == 2 && plain->dl_tensor.dtype.bits == 32 && plain->dl_tensor.strides[0] == 7 && plain->dl_tensor.strides[1] == 1);
  CHECK("and comes back as it was", lowrank_tensor_from_dlpack(&plain->dl_tensor, &to) == LOWRANK_OK && to.data == numbers && to.rank == 2 && to.dims[1] == 5 && to.row_pitch == 7);
  plain->dl_tensor.byte_offset = 8;
  CHECK("byte_offset counts", lowrank_tensor_from_dlpack(&plain->dl_tensor, &to) == LOWRANK_OK && to.data == numbers + 2);
  int64_t shape[3] = {2, 3, 4}, strides[3] = {1, 2, 6};
  DLTensor tensor = {numbers, {1, 0}, 3, {2, 32, 1}, shape, NULL, 0};
  CHECK("no strides are rows without gaps", lowrank_tensor_from_dlpack(&tensor, &to) == LOWRANK_OK && to.row_pitch == 4);
  tensor.strides = strides;
  REFUSES("column-major is refused", lowrank_tensor_from_dlpack(&tensor, &to), LOWRANK_ERR_SHAPE, "row-major");
  strides[0] = 18, strides[1] = 6, strides[2] = 1;
  CHECK("matrices of evenly spaced rows are rows", lowrank_tensor_from_dlpack(&tensor, &to) == LOWRANK_OK && to.row_pitch == 6);
  strides[0] = 20;
  REFUSES("matrices with gaps between them are refused", lowrank_tensor_from_dlpack(&tensor, &to), LOWRANK_ERR_SHAPE, "evenly");
  tensor.dtype.bits = 64;
  REFUSES("f64 is refused", lowrank_tensor_from_dlpack(&tensor, &to), LOWRANK_ERR_DTYPE, "64 bits");
  tensor.dtype.bits = 32, tensor.device.device_type = 3, strides[0] = 18;
  CHECK("pinned memory is the CPU's", lowrank_tensor_from_dlpack(&tensor, &to) == LOWRANK_OK && to.device_type == LOWRANK_CPU && to.device_index == 0);
  tensor.device.device_type = 8;
  REFUSES("another sort of device is refused", lowrank_tensor_from_dlpack(&tensor, &to), LOWRANK_ERR_DEVICE, "found device type 8");
  plain->deleter(plain);
  CHECK("the deleter releases the owner", released == 3);
  CHECK("a tensor goes to DLPack 1", lowrank_tensor_to_dlpack(&from, 1, &owner, release, &managed) == LOWRANK_OK);
  DLManagedTensorVersioned* versioned = managed;
  CHECK("with its version", versioned->version.major == 1 && versioned->flags == 0 && versioned->dl_tensor.shape[1] == 5);
  versioned->deleter(versioned);
  CHECK("its deleter releases the owner once", released == 6);
}

int main(void) {
  check_opening();
  lowrank_context* context = open_cpu(2);
  check_refusals(context);
  check_large_scalars(context);
  check_range(context);
  check_rows(context);
  check_threads(context);
  check_sharing(context);
  check_float_mode(context);
  check_copies(context);
  check_packing(context);
  check_signals();
  check_dlpack();
  lowrank_close(context);
  printf("%d failures\n", check_failures);
  return check_failures == 0 ? 0 : 1;
}
