// The first include of every kernel file: Highway for the one instruction set this file is being compiled for,
// contracts, and the namespace the kernels live in. Nothing from std:: here (see Context about weak symbols).
#pragma once
#ifndef HWY_COMPILE_ONLY_STATIC
#error "kernel files are compiled by native/cpu/CMakeLists.txt, once per instruction set"
#endif
#include <stdint.h>
#include <string.h>
#include <hwy/highway.h>

#include "../core/context.h"
#include "../ops/all.h"

// LOWRANK_ISA is base (x86-64-v2), avx2 (x86-64-v3) or avx512 (x86-64-v4); on 64-bit Arm neon; elsewhere base, what the compiler takes.
namespace lowrank::cpu::LOWRANK_ISA {

namespace hn = hwy::HWY_NAMESPACE;

#define OP(stem, Contract) void stem(const Contract& op, const Context& context);
#include "../ops/list.def"
#undef OP

}  // namespace lowrank::cpu::LOWRANK_ISA
