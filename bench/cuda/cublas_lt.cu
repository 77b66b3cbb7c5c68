#include "cublas_lt.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdlib.h>

#include <vector>

namespace lowrank::bench {

namespace {

// Values and layouts of cublasLt.h of CUDA 13.
using Handle = void*;
struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};
constexpr int kCompute32F = 68, k32F = 0, kBF16 = 14;
constexpr int kTransposeA = 3, kWorkspaceBytes = 1, kReductionMask = 3;
constexpr size_t kWorkspace = 32 << 20;

#define LT_FUNCTIONS(F)                                                                                                        \
  F(size_t, GetVersion, ())                                                                                                    \
  F(int, Create, (Handle*))                                                                                                    \
  F(int, Destroy, (Handle))                                                                                                    \
  F(int, MatmulDescCreate, (Handle*, int compute, int scale))                                                                  \
  F(int, MatmulDescDestroy, (Handle))                                                                                          \
  F(int, MatmulDescSetAttribute, (Handle, int, const void*, size_t))                                                           \
  F(int, MatrixLayoutCreate, (Handle*, int type, uint64_t rows, uint64_t cols, int64_t ld))                                    \
  F(int, MatrixLayoutDestroy, (Handle))                                                                                        \
  F(int, MatmulPreferenceCreate, (Handle*))                                                                                    \
  F(int, MatmulPreferenceDestroy, (Handle))                                                                                    \
  F(int, MatmulPreferenceSetAttribute, (Handle, int, const void*, size_t))                                                     \
  F(int, MatmulAlgoGetHeuristic, (Handle, Handle, Handle, Handle, Handle, Handle, Handle, int, Heuristic*, int*))              \
  F(int, Matmul,                                                                                                               \
    (Handle, Handle, const void*, const void*, Handle, const void*, Handle, const void*, const void*, Handle, void*, Handle,   \
     const Algorithm*, void*, size_t, cudaStream_t))

struct Functions {
#define DECLARE(result, name, arguments) result(*name) arguments = nullptr;
  LT_FUNCTIONS(DECLARE)
#undef DECLARE
};

std::vector<std::string> places() {
  std::vector<std::string> found;
  if (const char* chosen = getenv("LOWRANK_CUBLASLT")) found.push_back(chosen);
  found.push_back("libcublasLt.so.13");
  for (const char* pattern : {"/usr/local/cuda/lib64", "/usr/local/cuda-13*/lib64", "/opt/*/.venv/lib/python3*/site-packages/nvidia/cu13/lib",
                              "/usr/local/lib/python3*/*-packages/nvidia/cu13/lib"}) {
    glob_t matches{};
    if (glob(pattern, 0, nullptr, &matches) == 0) {
      for (size_t i = 0; i < matches.gl_pathc; ++i) found.push_back(std::string(matches.gl_pathv[i]) + "/libcublasLt.so.13");
    }
    globfree(&matches);
  }
  return found;
}

}  // namespace

struct CublasLt::State {
  Functions call;
  Handle handle = nullptr, product = nullptr, preference = nullptr;
  Handle layouts[3] = {};  // w, x, y, as column-major matrices
  Heuristic found[kMostChoices] = {};
  int count = 0, chosen = 0;
  void* workspace = nullptr;

  void drop_product() {
    for (Handle& layout : layouts) {
      if (layout != nullptr) call.MatrixLayoutDestroy(layout);
      layout = nullptr;
    }
    if (product != nullptr) call.MatmulDescDestroy(product);
    product = nullptr;
  }
  ~State() {
    drop_product();
    if (preference != nullptr) call.MatmulPreferenceDestroy(preference);
    if (handle != nullptr) call.Destroy(handle);
    cudaFree(workspace);
  }
};

CublasLt::CublasLt(std::unique_ptr<State> state) : state_(std::move(state)) {}
CublasLt::~CublasLt() = default;
size_t CublasLt::version() const { return state_->call.GetVersion(); }

std::unique_ptr<CublasLt> CublasLt::open(std::string& why) {
  void* library = nullptr;
  std::string file, tried;
  for (const std::string& place : places()) {
    library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    file = place;
    if (library != nullptr) break;
    tried += (tried.empty() ? "" : ", ") + place;
  }
  if (library == nullptr) return why = "no cublasLt of CUDA 13 (tried " + tried + ")", nullptr;
  auto state = std::make_unique<State>();
#define BIND(result, name, arguments)                                                                       \
  state->call.name = reinterpret_cast<result(*) arguments>(dlsym(library, "cublasLt" #name));               \
  if (state->call.name == nullptr) return why = file + " has no cublasLt" #name, nullptr;
  LT_FUNCTIONS(BIND)
#undef BIND
  if (const int status = state->call.Create(&state->handle)) return why = "cublasLtCreate fails with " + std::to_string(status), nullptr;
  state->call.MatmulPreferenceCreate(&state->preference);
  state->call.MatmulPreferenceSetAttribute(state->preference, kWorkspaceBytes, &kWorkspace, sizeof kWorkspace);
  if (cudaMalloc(&state->workspace, kWorkspace) != cudaSuccess) return why = "no memory for a workspace", nullptr;
  std::unique_ptr<CublasLt> lt(new CublasLt(std::move(state)));
  lt->file_ = file;
  return lt;
}

std::string CublasLt::prepare(const Product& p) {
  State& s = *state_;
  s.drop_product();
  // Row-major matrices are column-major ones transposed: y^T [N, T] = op(w) [N, K] x^T [K, T].
  const int transpose = p.backward ? 0 : 1;
  const uint32_t reductions = p.split ? 2 : 0;  // CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, _NONE
  s.call.MatmulPreferenceSetAttribute(s.preference, kReductionMask, &reductions, sizeof reductions);
  s.call.MatmulDescCreate(&s.product, kCompute32F, k32F);
  s.call.MatmulDescSetAttribute(s.product, kTransposeA, &transpose, sizeof transpose);
  const auto layout = [&](Handle* made, int type, int64_t rows, int64_t cols, int64_t ld) {
    s.call.MatrixLayoutCreate(made, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), ld);
  };
  layout(&s.layouts[0], kBF16, p.backward ? p.N : p.K, p.backward ? p.K : p.N, p.ldw);
  layout(&s.layouts[1], kBF16, p.K, p.T, p.ldx);
  layout(&s.layouts[2], p.y_is_f32 ? k32F : kBF16, p.N, p.T, p.ldy);
  s.count = s.chosen = 0;
  const int status = s.call.MatmulAlgoGetHeuristic(s.handle, s.product, s.layouts[0], s.layouts[1], s.layouts[2], s.layouts[2], s.preference, kMostChoices, s.found, &s.count);
  if (status == 0 && s.count > 0) return "";
  return "cublasLt knows no algorithm (status " + std::to_string(status) + ")";
}

int CublasLt::choices() const { return state_->count; }
void CublasLt::choose(int which) { state_->chosen = which; }

bool CublasLt::run(const void* x, const void* w, void* y, cudaStream_t stream) {
  State& s = *state_;
  const float one = 1, zero = 0;
  return s.call.Matmul(s.handle, s.product, &one, w, s.layouts[0], x, s.layouts[1], &zero, y, s.layouts[2], y, s.layouts[2], &s.found[s.chosen].algorithm, s.workspace,
                       kWorkspace, stream) == 0;
}

}  // namespace lowrank::bench
