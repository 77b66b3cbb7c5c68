/* lowrank: kernels for LoRA training on the caller's own memory. C99; also C++.
 *
 *   lowrank_context* context;
 *   const lowrank_options options = {.abi = LOWRANK_ABI, .device_type = LOWRANK_CPU};
 *   if (lowrank_open(&options, &context) != LOWRANK_OK) return puts(lowrank_last_error());
 *   const lowrank_fill_args fill = {.y = {.data = numbers, .rank = 1, .dims = {100}}, .value = 1};
 *   if (lowrank_fill(context, &fill) != LOWRANK_OK) return puts(lowrank_last_error());
 *   lowrank_close(context);
 *
 * Every op takes a context and a struct of its operands. What a struct leaves zero is "not given", f32, "rows without gaps", "on the
 * context's device".
 *
 * Threads. A context is a device with its worker pool and its scratch memory. It may be used from any thread; calls into one
 * context wait for each other, contexts don't know of each other. On the CPU an op has run when its function returns: on the
 * calling thread and the pool's. On CUDA it has been queued on the context's stream; what only its kernels can find out (an index out
 * of range) is told by lowrank_synchronize. A forked child must open a context of its own.
 *
 * Errors. No exception, signal or exit leaves this library. A function that fails returns a code and leaves a sentence for
 * lowrank_last_error of that thread. What is wrong with operands is found before anything is computed; ERR_RANGE, ERR_MEMORY and
 * ERR_NONFINITE may leave outputs half written. The caller's floating-point environment is kept.
 *
 * Results don't depend on the number of threads: same inputs, same bits.
 *
 * Signals. The library installs no handler, and its threads take no signal: the program's handlers run on the program's threads.
 *
 * The environment. LOWRANK_THREADS: how many threads a pool has where the options leave it open. LOWRANK_ISA: which kernels serve the
 * CPU (base, avx2, avx512, neon) instead of the best it has. LOWRANK_PLAN=1 tells on stderr, once each, how the CPU
 * cuts its products. LOWRANK_CUDA_PLUGIN, LOWRANK_CUSIM_PLUGIN: the file of a device's kernels; else liblowrank_cuda.so and
 * liblowrank_cusim.so are looked for in the folder of this library, or of the program that it is linked into. LOWRANK_CUBLASLT: the file
 * of cublasLt, or off.
 */
#ifndef LOWRANK_H
#define LOWRANK_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LOWRANK_API __attribute__((visibility("default")))
#else
#define LOWRANK_API
#endif

#define LOWRANK_VERSION "0.1.0"

/* Changes with any declaration below. lowrank_open refuses a caller that was compiled against another header. Before version 1.0 only a
 * new minor version changes it; the library's soname and the version of its symbols carry the minor version, so that a program finds the
 * one that it was linked with or is told at once. For another: compile and link anew. */
#define LOWRANK_ABI 0x5cf3884fu

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lowrank_status {
  LOWRANK_OK = 0,
  LOWRANK_ERR_SHAPE = 1,       /* operands don't fit each other */
  LOWRANK_ERR_DTYPE = 2,       /* an operand has a dtype that the op doesn't take */
  LOWRANK_ERR_DEVICE = 3,      /* a device can't be opened, or an operand is on another one */
  LOWRANK_ERR_ARGUMENT = 4,    /* an argument is missing, out of range or unknown */
  LOWRANK_ERR_RANGE = 5,       /* an index (a token id, say) is outside its table */
  LOWRANK_ERR_MEMORY = 6,      /* no memory */
  LOWRANK_ERR_UNSUPPORTED = 7, /* a well-formed request for something that this device doesn't do */
  LOWRANK_ERR_NONFINITE = 8,   /* a number stopped being finite */
  LOWRANK_ERR_INTERNAL = 9     /* a defect of lowrank itself */
} lowrank_status;

typedef enum lowrank_dtype { LOWRANK_F32 = 0, LOWRANK_F16 = 1, LOWRANK_BF16 = 2, LOWRANK_I32 = 3, LOWRANK_U8 = 4 } lowrank_dtype;

/* DLPack's numbers. LOWRANK_EMULATOR runs the CUDA kernels on the CPU, for tests. */
typedef enum lowrank_device_type { LOWRANK_CPU = 1, LOWRANK_CUDA = 2, LOWRANK_EMULATOR = 12 } lowrank_device_type;

/* How exactly frozen weights are multiplied. MEDIUM may round both factors to bf16 where that is faster; sums stay f32. On an Intel CPU with AMX
   it asks Linux for AMX's tiles (arch_prctl, ARCH_REQ_XCOMP_PERM): the process's stacks for signals (sigaltstack) must then have 8 KiB more. */
typedef enum lowrank_matmul_precision { LOWRANK_HIGHEST = 0, LOWRANK_MEDIUM = 1 } lowrank_matmul_precision;

/* How a stored weight lies: nn.Linear's [out, in], or GPT-2's [in, out]. */
typedef enum lowrank_weight_order { LOWRANK_OUT_IN = 0, LOWRANK_IN_OUT = 1 } lowrank_weight_order;

/* Row-major; a row is the last dimension. An operand that is not given has no data and rank 0. An op that reads only leaves the
 * data alone. */
typedef struct lowrank_tensor {
  void* data;
  int32_t dtype;        /* lowrank_dtype */
  int32_t rank;         /* 0 to 4 */
  int64_t dims[4];
  int64_t row_pitch;    /* elements from one row to the next; 0: no gaps. On the CPU rows with gaps are copied. On CUDA gaps may be in
                           operands named "act" that have 16 bits; in others (f32, i32, "f32, f16 or bf16") they are ERR_UNSUPPORTED */
  int32_t device_type;  /* lowrank_device_type; 0: the context's device, and device_index counts for nothing */
  int32_t device_index; /* DLPack's: CUDA's number of the GPU, see lowrank_info */
  int32_t spare;        /* so many elements behind each row belong to nobody: an op may overwrite them. 64 behind x and dy let CUDA make
                           the low-rank product of a packed weight in one pass with the frozen one. 0: gaps keep what they hold */
  int32_t reserved;     /* 0 */
} lowrank_tensor;

/* A frozen weight of one to three matrices that read the same x (q|k|v, gate|up), one below the other. On the CPU it is read where it is, in
 * its own dtype, and no copy is made; so it is on CUDA with activations of f32. With activations of 16 bits CUDA copies one of another dtype,
 * or whose rows don't begin at multiples of 16 bytes, at every call: lowrank_pack does it once. */
typedef struct lowrank_weight {
  const void* data[3];
  int64_t out[3];       /* rows N_i of each part */
  int64_t in;           /* K */
  int64_t row_pitch;    /* 0, or what lowrank_pack wrote */
  int32_t dtype;        /* f32, f16 or bf16 */
  int32_t order;        /* lowrank_weight_order */
  int32_t parts;        /* 1 to 3 */
  int32_t border;       /* 0, or what lowrank_pack wrote */
  int32_t device_type;  /* as in lowrank_tensor */
  int32_t device_index;
} lowrank_weight;

typedef struct lowrank_options {
  uint32_t abi;              /* LOWRANK_ABI */
  int32_t device_type;       /* lowrank_device_type */
  int32_t device_index;      /* of those that lowrank_device_count counts */
  int32_t threads;           /* CPU: the calling thread and so many less one of the pool; 0: $LOWRANK_THREADS, else one for each processor */
  int32_t matmul_precision;  /* lowrank_matmul_precision */
  int32_t reserved;          /* 0 */
  void* stream;              /* CUDA: the cudaStream_t to queue on, (void*)1 for the legacy default one; NULL: one of its own */
} lowrank_options;

typedef struct lowrank_info {
  char name[128];            /* of the processor or GPU */
  char kernels[64];          /* which kernels serve it: "avx512", "sm_90" */
  int64_t memory;            /* bytes */
  int32_t threads;           /* of the pool, the caller's included (CPU); multiprocessors (CUDA) */
  int32_t matmul_precision;  /* in force */
  int32_t device_index;      /* of the operands: CUDA's number of the GPU (DLPack's device_id), which counts GPUs that can't be opened too */
  int32_t reserved;
  char products[1024];       /* CUDA: what multiplies matrices of 16 bits: cublasLt with its file, or the own kernel, and why. CPU with MEDIUM: "bf16 by AMX", ... */
} lowrank_info;

typedef struct lowrank_context lowrank_context;

/* Version and ABI of the library itself. */
LOWRANK_API const char* lowrank_version(void);
LOWRANK_API uint32_t lowrank_abi(void);

/* "ERR_SHAPE" */
LOWRANK_API const char* lowrank_status_name(lowrank_status status);
/* What the last call of this thread that failed has to say, "lora_linear: B must have ... (x [4,8], ...)", and its code. Valid until this
 * thread's next failure. Before the first one: empty, LOWRANK_OK. */
LOWRANK_API const char* lowrank_last_error(void);
LOWRANK_API lowrank_status lowrank_last_status(void);

/* Devices of a type that can be opened. 0: lowrank_last_error tells why. */
LOWRANK_API int32_t lowrank_device_count(int32_t device_type);
LOWRANK_API lowrank_status lowrank_open(const lowrank_options* options, lowrank_context** context);
/* Waits for what is queued. NULL is ignored. */
LOWRANK_API void lowrank_close(lowrank_context* context);
LOWRANK_API lowrank_status lowrank_get_info(lowrank_context* context, lowrank_info* info);
/* Waits until everything queued has run; tells what failed on the way. */
LOWRANK_API lowrank_status lowrank_synchronize(lowrank_context* context);

/* Memory of the context's device, 64-byte aligned, for callers that have no allocator for it; freed with lowrank_release and the same
 * size. On the CPU any memory will do. Copies are in order with the ops; upload returns when `from` may be changed, download when
 * `to` is there. */
LOWRANK_API lowrank_status lowrank_allocate(lowrank_context* context, int64_t bytes, void** memory);
LOWRANK_API lowrank_status lowrank_release(lowrank_context* context, void* memory, int64_t bytes);
LOWRANK_API lowrank_status lowrank_upload(lowrank_context* context, void* to, const void* from, int64_t bytes);
LOWRANK_API lowrank_status lowrank_download(lowrank_context* context, void* to, const void* from, int64_t bytes);

/* A frozen weight as the device likes it best for activations of this lowrank_dtype, laid out once in memory of the caller's: on CUDA, for
 * activations of 16 bits, one matrix in their dtype with room for what extends a product. Elsewhere nothing is gained by a copy: 0 bytes,
 * and `packed` is the weight as it is. Otherwise memory of so many bytes begins at a multiple of 256 (lowrank_allocate's does on CUDA) and
 * lives as long as `packed` is used; the weight's own is read in order with the ops, and then no more. Ops write into the room: a packed
 * weight is for one context at a time. */
LOWRANK_API lowrank_status lowrank_packed_bytes(lowrank_context* context, const lowrank_weight* weight, int32_t activations, int64_t* bytes);
LOWRANK_API lowrank_status lowrank_pack(lowrank_context* context, const lowrank_weight* weight, int32_t activations, void* memory,
                                        lowrank_weight* packed);

/* DLPack, without copies. Structs of DLPack are passed as void*, so that any of its headers will do.
 * From a DLTensor*: a view; whoever holds the DLPack tensor still deletes it, after the last use of the view. One in pinned memory (device
 * type 3) is a tensor of the CPU. */
LOWRANK_API lowrank_status lowrank_tensor_from_dlpack(const void* dl_tensor, lowrank_tensor* tensor);
/* A new DLManagedTensor* (versioned 0) or DLManagedTensorVersioned* (1, DLPack 1.0). Its deleter calls release(owner), unless release is
 * NULL. device_type 0 is taken for the CPU. */
LOWRANK_API lowrank_status lowrank_tensor_to_dlpack(const lowrank_tensor* tensor, int32_t versioned, void* owner,
                                                    void (*release)(void* owner), void** managed);

/* The ops. This part is made from their contracts (native/ops) by native/capi/write_header.cpp.
 * "act" is a tensor of activations: f32 on the CPU; on CUDA what lowrank_open's device has kernels for. */

/* copy
 * y = x, bit for bit. */
typedef struct lowrank_copy_args {
  lowrank_tensor y;  /* out, any dtype: any shape and dtype */
  lowrank_tensor x;  /* in, any dtype: the same */
} lowrank_copy_args;
LOWRANK_API lowrank_status lowrank_copy(lowrank_context* context, const lowrank_copy_args* args);

/* cast
 * y = x in another float type, rounded to nearest even. */
typedef struct lowrank_cast_args {
  lowrank_tensor y;  /* out, f32, f16 or bf16: any shape; f32, f16 or bf16 */
  lowrank_tensor x;  /* in, f32, f16 or bf16: the same shape; f32, f16 or bf16 */
} lowrank_cast_args;
LOWRANK_API lowrank_status lowrank_cast(lowrank_context* context, const lowrank_cast_args* args);

/* fill
 * y = value in every element. */
typedef struct lowrank_fill_args {
  lowrank_tensor y;  /* out, act: any shape */
  float value;
} lowrank_fill_args;
LOWRANK_API lowrank_status lowrank_fill(lowrank_context* context, const lowrank_fill_args* args);

/* add
 * y = a + b. y may be a or b. */
typedef struct lowrank_add_args {
  lowrank_tensor y;  /* out, act: any shape */
  lowrank_tensor a;  /* in, act: the same */
  lowrank_tensor b;  /* in, act: the same */
} lowrank_add_args;
LOWRANK_API lowrank_status lowrank_add(lowrank_context* context, const lowrank_add_args* args);

/* embedding
 * y_t = table[ids_t], plus position_table[positions_t] where given (GPT-2). An id or position outside its table is ERR_RANGE. */
typedef struct lowrank_embedding_args {
  lowrank_tensor y;               /* out, act: [T, C] */
  lowrank_tensor ids;             /* in, i32: [T] */
  lowrank_tensor table;           /* in, f32, f16 or bf16: [V, C], frozen */
  lowrank_tensor positions;       /* in, i32: [T] or not given */
  lowrank_tensor position_table;  /* in, f32, f16 or bf16: [P, C], frozen, or not given */
} lowrank_embedding_args;
LOWRANK_API lowrank_status lowrank_embedding(lowrank_context* context, const lowrank_embedding_args* args);

/* linear
 * y = x W^T + bias + carry. `carry` is what the result is added to (a residual stream), in the same pass; y may be carry. */
typedef struct lowrank_linear_args {
  lowrank_tensor y;      /* out, act: [T, N] */
  lowrank_tensor x;      /* in, act: [T, K] */
  lowrank_weight w;      /* in: [N, K] */
  lowrank_tensor bias;   /* in, f32: [N] or not given */
  lowrank_tensor carry;  /* in, act: [T, N] or not given */
} lowrank_linear_args;
LOWRANK_API lowrank_status lowrank_linear(lowrank_context* context, const lowrank_linear_args* args);

/* linear_grad
 * dx = dy W. */
typedef struct lowrank_linear_grad_args {
  lowrank_tensor dx;  /* out, act: [T, K] */
  lowrank_tensor dy;  /* in, act: [T, N] */
  lowrank_weight w;   /* in: [N, K] */
} lowrank_linear_grad_args;
LOWRANK_API lowrank_status lowrank_linear_grad(lowrank_context* context, const lowrank_linear_grad_args* args);

/* lora_linear
 * For part i, with its rows W_i [N_i, K], A_i [r_i, K] and B_i [N_i, r_i] (Hu et al. 2021):
 *   u_i = s_i * xhat_i A_i^T,   y_i = x W_i^T + bias_i + u_i B_i^T   (+ carry, see linear),   xhat_i = mask_i * x / (1 - p), p to 16 bits.
 * mask_i keeps element e = t*K + k iff half word e%8 of Philox4x32-10(counter (e/8 low, e/8 high, layer_i, step), key seed) >= floor(p * 2^16). */
typedef struct lowrank_lora_linear_args {
  lowrank_tensor y;      /* out, act: [T, N] */
  lowrank_tensor u;      /* out, f32: [T, R], kept for the gradient */
  lowrank_tensor x;      /* in, act: [T, K] */
  lowrank_weight w;      /* in: [N, K] */
  lowrank_tensor bias;   /* in, f32: [N] or not given */
  lowrank_tensor carry;  /* in, act: [T, N] or not given; y may be carry */
  lowrank_tensor a;      /* in, f32: [R, K], the parts one below the other */
  lowrank_tensor b;      /* in, f32: flat: part after part, each [N_i, r_i] */
  int64_t rank[3];
  float scale[3];
  uint32_t layer[3];
  float dropout;         /* p in [0, 1); below 2^-16: no mask */
  uint32_t seed_low;
  uint32_t seed_high;
  uint32_t step;         /* differs between any two forward passes that must not share a mask */
} lowrank_lora_linear_args;
LOWRANK_API lowrank_status lowrank_lora_linear(lowrank_context* context, const lowrank_lora_linear_args* args);

/* lora_linear_grad
 * With v_i = s_i * dy_i B_i:   dA_i += v_i^T xhat_i,   dB_i += dy_i^T u_i,
 *   dx = dy W + sum_i mask_i * (v_i A_i) / (1 - p).   dx is left out below the lowest adapter. */
typedef struct lowrank_lora_linear_grad_args {
  lowrank_tensor dx;   /* out, act: [T, K] or not given */
  lowrank_tensor da;   /* in and out, f32: [R, K], added to */
  lowrank_tensor db;   /* in and out, f32: flat like b, added to */
  lowrank_tensor dy;   /* in, act: [T, N] */
  lowrank_tensor x;    /* in, act: [T, K] */
  lowrank_tensor u;    /* in, f32: [T, R] */
  lowrank_weight w;    /* in: [N, K] */
  lowrank_tensor a;    /* in, f32: [R, K] */
  lowrank_tensor b;    /* in, f32: flat */
  int64_t rank[3];
  float scale[3];
  uint32_t layer[3];
  float dropout;       /* p in [0, 1); below 2^-16: no mask */
  uint32_t seed_low;
  uint32_t seed_high;
  uint32_t step;       /* differs between any two forward passes that must not share a mask */
} lowrank_lora_linear_grad_args;
LOWRANK_API lowrank_status lowrank_lora_linear_grad(lowrank_context* context, const lowrank_lora_linear_grad_args* args);

/* lora_merge
 * merged = W + scale * B A, computed in f32 and rounded once. `order` in_out: W is stored [K, N] and B A is transposed (GPT-2). */
typedef struct lowrank_lora_merge_args {
  lowrank_tensor merged;  /* out, f32, f16 or bf16: as w */
  lowrank_tensor w;       /* in, f32, f16 or bf16: [N, K], or [K, N] with order 1; frozen */
  lowrank_tensor a;       /* in, f32: [r, K] */
  lowrank_tensor b;       /* in, f32: [N, r] */
  float scale;
  int64_t order;          /* how w is stored: 0 [N, K], 1 [K, N] */
} lowrank_lora_merge_args;
LOWRANK_API lowrank_status lowrank_lora_merge(lowrank_context* context, const lowrank_lora_merge_args* args);

/* rms_norm
 * y = w * x * r,   r = 1 / sqrt(mean(x^2) + eps),   one row at a time.   (Zhang & Sennrich 2019) */
typedef struct lowrank_rms_norm_args {
  lowrank_tensor y;  /* out, act: [N, C] */
  lowrank_tensor r;  /* out, f32: [N], kept for the gradient */
  lowrank_tensor x;  /* in, act: [N, C] */
  lowrank_tensor w;  /* in, f32: [C] */
  float eps;
} lowrank_rms_norm_args;
LOWRANK_API lowrank_status lowrank_rms_norm(lowrank_context* context, const lowrank_rms_norm_args* args);

/* rms_norm_grad
 * dx = r * (w*dy - x * r^2 * mean(w*dy*x)),   plus `carry` where given: the gradient that arrives at x on
 * another way (a residual connection), added in the same pass. dx may be carry itself. */
typedef struct lowrank_rms_norm_grad_args {
  lowrank_tensor dx;     /* out, act: [N, C] */
  lowrank_tensor dy;     /* in, act: [N, C] */
  lowrank_tensor x;      /* in, act: [N, C] */
  lowrank_tensor w;      /* in, f32: [C] */
  lowrank_tensor r;      /* in, f32: [N] */
  lowrank_tensor carry;  /* in, act: [N, C] or not given */
} lowrank_rms_norm_grad_args;
LOWRANK_API lowrank_status lowrank_rms_norm_grad(lowrank_context* context, const lowrank_rms_norm_grad_args* args);

/* layer_norm
 * y = w * (x - mean) * r + b,   r = 1 / sqrt(mean((x - mean)^2) + eps),   one row at a time.   (Ba et al. 2016) */
typedef struct lowrank_layer_norm_args {
  lowrank_tensor y;     /* out, act: [N, C] */
  lowrank_tensor mean;  /* out, f32: [N], kept for the gradient */
  lowrank_tensor r;     /* out, f32: [N], kept for the gradient */
  lowrank_tensor x;     /* in, act: [N, C] */
  lowrank_tensor w;     /* in, f32: [C] */
  lowrank_tensor b;     /* in, f32: [C] */
  float eps;
} lowrank_layer_norm_args;
LOWRANK_API lowrank_status lowrank_layer_norm(lowrank_context* context, const lowrank_layer_norm_args* args);

/* layer_norm_grad
 * With z = (x - mean) * r and g = w * dy:   dx = r * (g - mean(g) - z * mean(g*z)),   plus `carry` where given (see rms_norm_grad). */
typedef struct lowrank_layer_norm_grad_args {
  lowrank_tensor dx;     /* out, act: [N, C] */
  lowrank_tensor dy;     /* in, act: [N, C] */
  lowrank_tensor x;      /* in, act: [N, C] */
  lowrank_tensor w;      /* in, f32: [C] */
  lowrank_tensor mean;   /* in, f32: [N] */
  lowrank_tensor r;      /* in, f32: [N] */
  lowrank_tensor carry;  /* in, act: [N, C] or not given */
} lowrank_layer_norm_grad_args;
LOWRANK_API lowrank_status lowrank_layer_norm_grad(lowrank_context* context, const lowrank_layer_norm_grad_args* args);

/* qk_norm
 * rms_norm of each query head by wq and of each key head by wk; value heads are copied. (Qwen3) */
typedef struct lowrank_qk_norm_args {
  lowrank_tensor y;   /* out, act: [T, (H+2G)*D] */
  lowrank_tensor r;   /* out, f32: [T, H+G], kept for the gradient */
  lowrank_tensor x;   /* in, act: [T, (H+2G)*D] */
  lowrank_tensor wq;  /* in, f32: [D] */
  lowrank_tensor wk;  /* in, f32: [D] */
  int64_t heads;      /* H */
  int64_t kv_heads;   /* G, a divisor of H */
  float eps;
} lowrank_qk_norm_args;
LOWRANK_API lowrank_status lowrank_qk_norm(lowrank_context* context, const lowrank_qk_norm_args* args);

/* qk_norm_grad
 * rms_norm_grad head by head; value heads pass dy on. dx may be dy. */
typedef struct lowrank_qk_norm_grad_args {
  lowrank_tensor dx;  /* out, act: [T, (H+2G)*D] */
  lowrank_tensor dy;  /* in, act: [T, (H+2G)*D] */
  lowrank_tensor x;   /* in, act: [T, (H+2G)*D] */
  lowrank_tensor wq;  /* in, f32: [D] */
  lowrank_tensor wk;  /* in, f32: [D] */
  lowrank_tensor r;   /* in, f32: [T, H+G] */
  int64_t heads;      /* H */
  int64_t kv_heads;   /* G, a divisor of H */
} lowrank_qk_norm_grad_args;
LOWRANK_API lowrank_status lowrank_qk_norm_grad(lowrank_context* context, const lowrank_qk_norm_grad_args* args);

/* rope_inplace
 * Rotary embedding in place (Su et al. 2021), in Hugging Face's half-split order. With c, s = cos, sin of the row's position and
 * a, b = the lower and upper half of a head's first E numbers:   a' = a*c - b*s,   b' = b*c + a*s.
 * Query and key heads turn, value heads stay. direction = -1 turns back, which is the gradient. */
typedef struct lowrank_rope_inplace_args {
  lowrank_tensor x;          /* in and out, act: [T, (H+2G)*D] */
  lowrank_tensor positions;  /* in, i32: [T]; each must be below P */
  lowrank_tensor table;      /* in, f32: [P, E], cos in the first E/2 columns and sin in the others; E even, E <= D */
  int64_t heads;             /* H */
  int64_t kv_heads;          /* G, a divisor of H */
  float direction;           /* 1 or -1 */
} lowrank_rope_inplace_args;
LOWRANK_API lowrank_status lowrank_rope_inplace(lowrank_context* context, const lowrank_rope_inplace_args* args);

/* attention
 * Causal attention inside each of S sequences that lie one behind the other (offsets). For query row i and key row j of one sequence,
 *   y_i = sum_j exp(scale * q_i.k_j - lse_i) v_j,   lse_i = log sum_j exp(scale * q_i.k_j),
 * over j <= i and, with window > 0, j > i - window. Never more than a block of scores exists (Dao et al. 2022). */
typedef struct lowrank_attention_args {
  lowrank_tensor y;        /* out, act: [T, H*D] */
  lowrank_tensor lse;      /* out, f32: [T, H], natural logarithm, kept for the gradient */
  lowrank_tensor qkv;      /* in, act: [T, (H+2G)*D] */
  lowrank_tensor offsets;  /* in, i32: [S+1], rising from 0 to T */
  int64_t heads;           /* H */
  int64_t kv_heads;        /* G, a divisor of H */
  int64_t window;          /* 0: none */
  float scale;
} lowrank_attention_args;
LOWRANK_API lowrank_status lowrank_attention(lowrank_context* context, const lowrank_attention_args* args);

/* attention_grad
 * With p_ij = exp(scale * q_i.k_j - lse_i) and delta_i = dy_i.y_i:
 *   dv_j = sum_i p_ij dy_i,   ds_ij = scale * p_ij * (dy_i.v_j - delta_i),   dq_i = sum_j ds_ij k_j,   dk_j = sum_i ds_ij q_i. */
typedef struct lowrank_attention_grad_args {
  lowrank_tensor dqkv;     /* out, act: [T, (H+2G)*D] */
  lowrank_tensor dy;       /* in, act: [T, H*D] */
  lowrank_tensor qkv;      /* in, act: [T, (H+2G)*D] */
  lowrank_tensor y;        /* in, act: [T, H*D] */
  lowrank_tensor lse;      /* in, f32: [T, H] */
  lowrank_tensor offsets;  /* in, i32: [S+1] */
  int64_t heads;           /* H */
  int64_t kv_heads;        /* G, a divisor of H */
  int64_t window;
  float scale;
} lowrank_attention_grad_args;
LOWRANK_API lowrank_status lowrank_attention_grad(lowrank_context* context, const lowrank_attention_grad_args* args);

/* attention_cache
 * Generation: T new tokens of one sequence at positions start .. start+T-1. Their keys and values are written into the cache at those
 * rows, then each token attends to all cached rows up to its own (the last `window` of them, with window > 0). */
typedef struct lowrank_attention_cache_args {
  lowrank_tensor y;        /* out, act: [T, H*D] */
  lowrank_tensor k_cache;  /* in and out, act: [P, G*D] */
  lowrank_tensor v_cache;  /* in and out, act: [P, G*D] */
  lowrank_tensor qkv;      /* in, act: [T, (H+2G)*D] */
  int64_t heads;           /* H */
  int64_t kv_heads;        /* G, a divisor of H */
  int64_t start;           /* start + T <= P */
  int64_t window;
  float scale;
} lowrank_attention_cache_args;
LOWRANK_API lowrank_status lowrank_attention_cache(lowrank_context* context, const lowrank_attention_cache_args* args);

/* swiglu
 * y = silu(gate) * up,   silu(z) = z / (1 + exp(-z)),   x = gate | up side by side.   (Shazeer 2020) */
typedef struct lowrank_swiglu_args {
  lowrank_tensor y;  /* out, act: [T, F] */
  lowrank_tensor x;  /* in, act: [T, 2F] */
} lowrank_swiglu_args;
LOWRANK_API lowrank_status lowrank_swiglu(lowrank_context* context, const lowrank_swiglu_args* args);

/* swiglu_grad
 * With q = 1 / (1 + exp(-gate)):   dgate = dy * up * q * (1 + gate * (1 - q)),   dup = dy * gate * q.   dx may be x. */
typedef struct lowrank_swiglu_grad_args {
  lowrank_tensor dx;  /* out, act: [T, 2F] */
  lowrank_tensor dy;  /* in, act: [T, F] */
  lowrank_tensor x;   /* in, act: [T, 2F] */
} lowrank_swiglu_grad_args;
LOWRANK_API lowrank_status lowrank_swiglu_grad(lowrank_context* context, const lowrank_swiglu_grad_args* args);

/* swiglu_then_lora_linear
 * swiglu makes h of x = gate | up, and lora_linear makes y and u of h. */
typedef struct lowrank_swiglu_then_lora_linear_args {
  lowrank_tensor y;      /* out, act: [T, N] */
  lowrank_tensor u;      /* out, f32: [T, R], kept for the gradient */
  lowrank_tensor h;      /* out, act: [T, K], kept for the gradient */
  lowrank_tensor x;      /* in, act: [T, 2K] */
  lowrank_weight w;      /* in: [N, K] */
  lowrank_tensor bias;   /* in, f32: [N] or not given */
  lowrank_tensor carry;  /* in, act: [T, N] or not given; y may be carry */
  lowrank_tensor a;      /* in, f32: [R, K], the parts one below the other */
  lowrank_tensor b;      /* in, f32: flat: part after part, each [N_i, r_i] */
  int64_t rank[3];
  float scale[3];
  uint32_t layer[3];
  float dropout;         /* p in [0, 1); below 2^-16: no mask */
  uint32_t seed_low;
  uint32_t seed_high;
  uint32_t step;         /* differs between any two forward passes that must not share a mask */
} lowrank_swiglu_then_lora_linear_args;
LOWRANK_API lowrank_status lowrank_swiglu_then_lora_linear(lowrank_context* context, const lowrank_swiglu_then_lora_linear_args* args);

/* swiglu_grad_then_lora_linear_grad
 * swiglu_grad makes dy of dh and y = gate | up, and lora_linear_grad makes dx, dA and dB of dy. What made y was that lora_linear. */
typedef struct lowrank_swiglu_grad_then_lora_linear_grad_args {
  lowrank_tensor dx;   /* out, act: [T, K] or not given */
  lowrank_tensor da;   /* in and out, f32: [R, K], added to */
  lowrank_tensor db;   /* in and out, f32: flat like b, added to */
  lowrank_tensor dy;   /* out, act: [T, N]; may be y */
  lowrank_tensor dh;   /* in, act: [T, N/2] */
  lowrank_tensor y;    /* in, act: [T, N] */
  lowrank_tensor x;    /* in, act: [T, K] */
  lowrank_tensor u;    /* in, f32: [T, R] */
  lowrank_weight w;    /* in: [N, K] */
  lowrank_tensor a;    /* in, f32: [R, K] */
  lowrank_tensor b;    /* in, f32: flat */
  int64_t rank[3];
  float scale[3];
  uint32_t layer[3];
  float dropout;       /* p in [0, 1); below 2^-16: no mask */
  uint32_t seed_low;
  uint32_t seed_high;
  uint32_t step;       /* differs between any two forward passes that must not share a mask */
} lowrank_swiglu_grad_then_lora_linear_grad_args;
LOWRANK_API lowrank_status lowrank_swiglu_grad_then_lora_linear_grad(lowrank_context* context, const lowrank_swiglu_grad_then_lora_linear_grad_args* args);

/* gelu
 * y = x * Phi(x) (Hendrycks & Gimpel 2016). form 0: Phi by erf.  form 1: Phi(x) ~ (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2. */
typedef struct lowrank_gelu_args {
  lowrank_tensor y;  /* out, act: any shape */
  lowrank_tensor x;  /* in, act: the same */
  int64_t form;
} lowrank_gelu_args;
LOWRANK_API lowrank_status lowrank_gelu(lowrank_context* context, const lowrank_gelu_args* args);

/* gelu_grad
 * dx = dy * d(gelu)/dx. dx may be x or dy. */
typedef struct lowrank_gelu_grad_args {
  lowrank_tensor dx;  /* out, act: any shape */
  lowrank_tensor dy;  /* in, act: the same */
  lowrank_tensor x;   /* in, act: the same */
  int64_t form;
} lowrank_gelu_grad_args;
LOWRANK_API lowrank_status lowrank_gelu_grad(lowrank_context* context, const lowrank_gelu_grad_args* args);

/* cross_entropy_inplace
 * loss = sum over rows with a target of  log(sum_j exp(l_j)) - l_target;   logits become scale * (softmax(l) - onehot(target)), in place.
 * Rows whose target is -100 take no part: their loss and gradient are 0. Any other target outside [0, V) is ERR_RANGE. */
typedef struct lowrank_cross_entropy_inplace_args {
  lowrank_tensor loss;     /* out, f32: [1], the token sum */
  lowrank_tensor logits;   /* in and out, act: [T, V], then its gradient */
  lowrank_tensor targets;  /* in, i32: [T] */
  float scale;
} lowrank_cross_entropy_inplace_args;
LOWRANK_API lowrank_status lowrank_cross_entropy_inplace(lowrank_context* context, const lowrank_cross_entropy_inplace_args* args);

/* linear_cross_entropy
 * Cross entropy of logits = x W^T that never exist as a whole: a chunk of rows at a time, gradient taken on the way.
 *   dx = scale * (softmax(x W^T) - onehot(targets)) W.   Targets are cross_entropy_inplace's. */
typedef struct lowrank_linear_cross_entropy_args {
  lowrank_tensor loss;     /* out, f32: [1], the token sum */
  lowrank_tensor dx;       /* out, act: [T, C] or not given (evaluation) */
  lowrank_tensor x;        /* in, act: [T, C] */
  lowrank_weight w;        /* in: [V, C] */
  lowrank_tensor targets;  /* in, i32: [T] */
  float scale;
} lowrank_linear_cross_entropy_args;
LOWRANK_API lowrank_status lowrank_linear_cross_entropy(lowrank_context* context, const lowrank_linear_cross_entropy_args* args);

/* sum_squares
 * sum = sum of x^2, added in f64 in a fixed order. */
typedef struct lowrank_sum_squares_args {
  lowrank_tensor sum;  /* out, f32: [1] */
  lowrank_tensor x;    /* in, f32: any shape */
} lowrank_sum_squares_args;
LOWRANK_API lowrank_status lowrank_sum_squares(lowrank_context* context, const lowrank_sum_squares_args* args);

/* adamw
 * AdamW (Loshchilov & Hutter 2019), torch.optim's arithmetic. With g the gated gradient:
 *   m += (1 - beta1) (g - m),   v = beta2 v + (1 - beta2) g^2,
 *   p = p (1 - lr weight_decay) - lr / correction1 * m / (sqrt(v) / sqrt(correction2) + eps),   correction_i = 1 - beta_i^step. */
typedef struct lowrank_adamw_args {
  lowrank_tensor p;            /* in and out, f32: [n] */
  lowrank_tensor m;            /* in and out, f32: [n] */
  lowrank_tensor v;            /* in and out, f32: [n] */
  lowrank_tensor g;            /* in, f32: [n] */
  lowrank_tensor sum_squares;  /* in, f32: [1], of the whole gradient */
  lowrank_tensor losses;       /* in, f32: [micro-batches] */
  float clip;
  float loss_scale;
  float lr;
  float beta1;
  float beta2;
  float eps;
  float weight_decay;
  float correction1;
  float correction2;
} lowrank_adamw_args;
LOWRANK_API lowrank_status lowrank_adamw(lowrank_context* context, const lowrank_adamw_args* args);

/* sgd
 * SGD, torch.optim's arithmetic. With g the gated gradient plus weight_decay * p:
 *   momentum 0: p -= lr g.   Otherwise: buffer = first ? g : momentum * buffer + g,   p -= lr buffer. */
typedef struct lowrank_sgd_args {
  lowrank_tensor p;            /* in and out, f32: [n] */
  lowrank_tensor buffer;       /* in and out, f32: [n], or not given with momentum 0 */
  lowrank_tensor g;            /* in, f32: [n] */
  lowrank_tensor sum_squares;  /* in, f32: [1], of the whole gradient */
  lowrank_tensor losses;       /* in, f32: [micro-batches] */
  float clip;
  float loss_scale;
  float lr;
  float momentum;
  float weight_decay;
  int64_t first;               /* 1 on the first step */
} lowrank_sgd_args;
LOWRANK_API lowrank_status lowrank_sgd(lowrank_context* context, const lowrank_sgd_args* args);
#ifdef __cplusplus
}
#endif

#endif
