#pragma once
#include "contract.h"

namespace lowrank {

// The adapter of a joined projection. Part i (q, k, v or gate, up) has rank r_i (0: no adapter), scale s_i and a number of its own
// that its dropout mask is drawn from. R is the sum of the ranks.
struct LoraParts {
  int64_t rank[kMaxParts];
  float scale[kMaxParts];
  uint32_t layer[kMaxParts];
  float dropout;  // p in [0, 1); below 2^-16: no mask
  uint32_t seed_low, seed_high;
  uint32_t step;  // differs between any two forward passes that must not share a mask

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.value("rank0", rank[0]), v.value("rank1", rank[1]), v.value("rank2", rank[2]);
    v.value("scale0", scale[0]), v.value("scale1", scale[1]), v.value("scale2", scale[2]);
    v.value("layer0", layer[0]), v.value("layer1", layer[1]), v.value("layer2", layer[2]);
    v.value("dropout", dropout);
    v.value("seed_low", seed_low), v.value("seed_high", seed_high);
    v.value("step", step);
  }
  LOWRANK_INLINE int64_t ranks() const { return rank[0] + rank[1] + rank[2]; }
  // A half word below it drops its element: p to 16 bits. 0: no mask.
  LOWRANK_INLINE uint32_t threshold() const { return static_cast<uint32_t>(dropout * 65536.0f); }
  // What the kept are multiplied by: 1 / (1 - p) for that p, so that the mean stays.
  LOWRANK_INLINE float keep() const { return 65536.0f / static_cast<float>(65536 - threshold()); }
  // Numbers in the flat B: sum of N_i * r_i.
  LOWRANK_INLINE int64_t b_count(const Weight& w) const {
    int64_t n = 0;
    for (int i = 0; i < w.parts; ++i) n += w.out[i] * rank[i];
    return n;
  }
  LOWRANK_INLINE const char* misfit(const Weight& w, const Tensor& a, const Tensor& b) const {
    for (int i = 0; i < kMaxParts; ++i)
      if (rank[i] < 0 || (i >= w.parts && rank[i] != 0)) return "each part of W has one rank, not negative";
    for (int i = 0; i < kMaxParts; ++i)
      if (rank[i] > a.rows()) return "A must be [R, K]";  // before sums and products of ranks, which could overflow
    if (!(dropout >= 0.0f && dropout < 1.0f)) return "dropout must be in [0, 1)";
    if (!is_matrix(a, ranks(), w.in)) return "A must be [R, K]";
    for (int i = 0; i < w.parts; ++i)
      if (rank[i] > 0 && w.out[i] > b.count() / rank[i]) return "B must have the sum of N_i * r_i elements";  // their product could overflow
    if (b.count() != b_count(w)) return "B must have the sum of N_i * r_i elements";
    return nullptr;
  }
};

// For part i, with its rows W_i [N_i, K], A_i [r_i, K] and B_i [N_i, r_i] (Hu et al. 2021):
//   u_i = s_i * xhat_i A_i^T,   y_i = x W_i^T + bias_i + u_i B_i^T   (+ carry, see linear),   xhat_i = mask_i * x / (1 - p), p to 16 bits.
// mask_i keeps element e = t*K + k iff half word e%8 of Philox4x32-10(counter (e/8 low, e/8 high, layer_i, step), key seed) >= floor(p * 2^16).
struct LoraLinear {
  Tensor y;      // [T, N]
  Tensor u;      // [T, R], kept for the gradient
  Tensor x;      // [T, K]
  Weight w;      // [N, K]
  Tensor bias;   // [N] or not given
  Tensor carry;  // [T, N] or not given; y may be carry
  Tensor a;      // [R, K], the parts one below the other
  Tensor b;      // flat: part after part, each [N_i, r_i]
  LoraParts parts;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.out("u", u, Kind::f32);
    v.in("x", x, Kind::activation);
    v.weight("w", w);
    v.optional("bias", bias, Kind::f32);
    v.optional("carry", carry, Kind::activation);
    v.in("a", a, Kind::f32);
    v.in("b", b, Kind::f32);
    parts.visit(v);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (w.in != x.cols()) return "W must be [N, K]";
    if (const char* fault = parts.misfit(w, a, b)) return fault;
    if (!is_matrix(y, x.rows(), w.rows())) return "y must be [T, N]";
    if (!is_matrix(u, x.rows(), parts.ranks())) return "u must be [T, R]";
    if (bias.given() && bias.count() != w.rows()) return "bias must have N elements";
    if (carry.given() && !same_shape(carry, y)) return "carry must have the shape of y";
    return nullptr;
  }
};

// With v_i = s_i * dy_i B_i:   dA_i += v_i^T xhat_i,   dB_i += dy_i^T u_i,
//   dx = dy W + sum_i mask_i * (v_i A_i) / (1 - p).   dx is left out below the lowest adapter.
struct LoraLinearGrad {
  Tensor dx;  // [T, K] or not given
  Tensor da;  // [R, K], added to
  Tensor db;  // flat like b, added to
  Tensor dy;  // [T, N]
  Tensor x;   // [T, K]
  Tensor u;   // [T, R]
  Weight w;   // [N, K]
  Tensor a;   // [R, K]
  Tensor b;   // flat
  LoraParts parts;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.optional_out("dx", dx, Kind::activation);
    v.inout("da", da, Kind::f32);
    v.inout("db", db, Kind::f32);
    v.in("dy", dy, Kind::activation);
    v.in("x", x, Kind::activation);
    v.in("u", u, Kind::f32);
    v.weight("w", w);
    v.in("a", a, Kind::f32);
    v.in("b", b, Kind::f32);
    parts.visit(v);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (w.in != x.cols()) return "W must be [N, K]";
    if (const char* fault = parts.misfit(w, a, b)) return fault;
    if (dx.given() && !same_shape(dx, x)) return "dx must have the shape of x";
    if (!same_shape(da, a)) return "da must have the shape of A";
    if (db.count() != b.count()) return "db must have the elements of B";
    if (!is_matrix(dy, x.rows(), w.rows())) return "dy must be [T, N]";
    if (!is_matrix(u, x.rows(), parts.ranks())) return "u must be [T, R]";
    return nullptr;
  }
};

// merged = W + scale * B A, computed in f32 and rounded once. `order` in_out: W is stored [K, N] and B A is transposed (GPT-2).
struct LoraMerge {
  Tensor merged;  // as w
  Tensor w;       // [N, K], or [K, N] with order 1; frozen
  Tensor a;       // [r, K]
  Tensor b;       // [N, r]
  float scale;
  int64_t order;  // how w is stored: 0 [N, K], 1 [K, N]

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("merged", merged, Kind::frozen);
    v.in("w", w, Kind::floating);
    v.in("a", a, Kind::f32);
    v.in("b", b, Kind::f32);
    v.value("scale", scale);
    v.value("order", order);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (order != 0 && order != 1) return "order must be 0 ([N, K]) or 1 ([K, N])";
    const int64_t n = order == 0 ? w.rows() : w.cols(), k = order == 0 ? w.cols() : w.rows();
    if (!same_shape(merged, w)) return "merged must have the shape of W";
    if (merged.dtype != w.dtype) return "merged must have the dtype of W";
    if (a.cols() != k) return "A must be [r, K]";
    return is_matrix(b, n, a.rows()) ? nullptr : "B must be [N, r]";
  }
};

}  // namespace lowrank
