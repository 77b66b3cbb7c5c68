// The joined projection that attention and its neighbours read: each row is H query heads, then G key heads, then G value
// heads, of D numbers each. Query head h reads key and value head h / (H / G).
#pragma once
#include "contract.h"

namespace lowrank {

struct Heads {
  int64_t query;      // H
  int64_t key_value;  // G, a divisor of H

  template <class V>
  LOWRANK_INLINE void visit(V&& v) {
    v.value("heads", query);
    v.value("kv_heads", key_value);
  }
  LOWRANK_INLINE int64_t all() const { return query + 2 * key_value; }
  LOWRANK_INLINE int64_t size(const Tensor& qkv) const { return qkv.cols() / all(); }  // D
  LOWRANK_INLINE const char* misfit(const Tensor& qkv) const {
    if (query < 1 || key_value < 1) return "heads and kv_heads must be positive";
    if (query % key_value != 0) return "kv_heads must divide heads";
    if (query > qkv.cols() || key_value > qkv.cols()) return "the joined row must have (heads + 2 kv_heads) * D columns";  // all() could overflow
    if (qkv.cols() % all() != 0 || qkv.cols() == 0) return "the joined row must have (heads + 2 kv_heads) * D columns";
    return nullptr;
  }
};

}  // namespace lowrank
