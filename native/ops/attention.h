#pragma once
#include "heads.h"

namespace lowrank {

// Causal attention inside each of S sequences that lie one behind the other (offsets). For query row i and key row j of one sequence,
//   y_i = sum_j exp(scale * q_i.k_j - lse_i) v_j,   lse_i = log sum_j exp(scale * q_i.k_j),
// over j <= i and, with window > 0, j > i - window. Never more than a block of scores exists (Dao et al. 2022).
struct Attention {
  Tensor y;        // [T, H*D]
  Tensor lse;      // [T, H], natural logarithm, kept for the gradient
  Tensor qkv;      // [T, (H+2G)*D]
  Tensor offsets;  // [S+1], rising from 0 to T
  Heads heads;
  int64_t window;  // 0: none
  float scale;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.out("lse", lse, Kind::f32);
    v.in("qkv", qkv, Kind::activation);
    v.in("offsets", offsets, Kind::i32);
    heads.visit(v);
    v.value("window", window);
    v.value("scale", scale);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (const char* fault = heads.misfit(qkv)) return fault;
    if (!is_matrix(y, qkv.rows(), heads.query * heads.size(qkv))) return "y must be [T, heads * D]";
    if (lse.count() != qkv.rows() * heads.query) return "lse must be [T, heads]";
    if (offsets.count() < 1) return "offsets must have S+1 elements";
    if (window < 0) return "window must not be negative";
    return nullptr;
  }
};

// With p_ij = exp(scale * q_i.k_j - lse_i) and delta_i = dy_i.y_i:
//   dv_j = sum_i p_ij dy_i,   ds_ij = scale * p_ij * (dy_i.v_j - delta_i),   dq_i = sum_j ds_ij k_j,   dk_j = sum_i ds_ij q_i.
struct AttentionGrad {
  Tensor dqkv;     // [T, (H+2G)*D]
  Tensor dy;       // [T, H*D]
  Tensor qkv;      // [T, (H+2G)*D]
  Tensor y;        // [T, H*D]
  Tensor lse;      // [T, H]
  Tensor offsets;  // [S+1]
  Heads heads;
  int64_t window;
  float scale;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("dqkv", dqkv, Kind::activation);
    v.in("dy", dy, Kind::activation);
    v.in("qkv", qkv, Kind::activation);
    v.in("y", y, Kind::activation);
    v.in("lse", lse, Kind::f32);
    v.in("offsets", offsets, Kind::i32);
    heads.visit(v);
    v.value("window", window);
    v.value("scale", scale);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (const char* fault = heads.misfit(qkv)) return fault;
    if (!same_shape(dqkv, qkv)) return "dqkv must have the shape of qkv";
    if (!is_matrix(y, qkv.rows(), heads.query * heads.size(qkv))) return "y must be [T, heads * D]";
    if (!same_shape(dy, y)) return "dy must have the shape of y";
    if (lse.count() != qkv.rows() * heads.query) return "lse must be [T, heads]";
    if (offsets.count() < 1) return "offsets must have S+1 elements";
    if (window < 0) return "window must not be negative";
    return nullptr;
  }
};

// Generation: T new tokens of one sequence at positions start .. start+T-1. Their keys and values are written into the cache at those
// rows, then each token attends to all cached rows up to its own (the last `window` of them, with window > 0).
struct AttentionCache {
  Tensor y;        // [T, H*D]
  Tensor k_cache;  // [P, G*D]
  Tensor v_cache;  // [P, G*D]
  Tensor qkv;      // [T, (H+2G)*D]
  Heads heads;
  int64_t start;   // start + T <= P
  int64_t window;
  float scale;

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.out("y", y, Kind::activation);
    v.inout("k_cache", k_cache, Kind::activation);
    v.inout("v_cache", v_cache, Kind::activation);
    v.in("qkv", qkv, Kind::activation);
    heads.visit(v);
    v.value("start", start);
    v.value("window", window);
    v.value("scale", scale);
  }
  LOWRANK_INLINE const char* misfit() const {
    if (const char* fault = heads.misfit(qkv)) return fault;
    if (!is_matrix(y, qkv.rows(), heads.query * heads.size(qkv))) return "y must be [T, heads * D]";
    if (k_cache.cols() != heads.key_value * heads.size(qkv)) return "k_cache must be [P, kv_heads * D]";
    if (!same_shape(k_cache, v_cache)) return "v_cache must have the shape of k_cache";
    if (start < 0 || start > k_cache.rows() - qkv.rows()) return "start + T must not exceed the rows of the cache";
    if (window < 0) return "window must not be negative";
    return nullptr;
  }
};

}  // namespace lowrank
