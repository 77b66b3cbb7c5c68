// Every contract, and the numbering of the ops.
#pragma once
#include "attention.h"
#include "cross_entropy.h"
#include "elementwise.h"
#include "embedding.h"
#include "gated_mlp.h"
#include "gelu.h"
#include "layer_norm.h"
#include "linear.h"
#include "lora_linear.h"
#include "optimizer.h"
#include "qk_norm.h"
#include "rms_norm.h"
#include "rope.h"
#include "swiglu.h"

namespace lowrank {

enum class Op : int32_t {
#define OP(stem, Contract) stem,
#include "list.def"
#undef OP
  count
};

}  // namespace lowrank
