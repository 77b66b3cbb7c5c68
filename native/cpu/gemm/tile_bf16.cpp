// The micro-kernel over bf16 pairs. The only file that is compiled for AVX512-BF16 (twice the rate of f32): nothing of it may be
// called before the processor has been asked (Context::bf16). Elsewhere it is empty: bf16 would be slower than f32.
#include "tile_run.h"

namespace lowrank::cpu::LOWRANK_ISA {

#if defined(__AVX512BF16__)

namespace {

// sum + down_lower * across_lower + down_upper * across_upper. Products exact, sums f32.
struct MultiplyPairs {
  LOWRANK_INLINE TileVec operator()(TileVec down, TileVec across, TileVec sum) const {
    return TileVec{_mm512_dpbf16_ps(sum.raw, (__m512bh)down.raw, (__m512bh)across.raw)};
  }
};

}  // namespace

bool has_pairs() { return true; }
TileKernel pairs_kernel(int64_t rows, int64_t vectors) { return kTiles<MultiplyPairs>[rows - 1][vectors - 1]; }

#else

bool has_pairs() { return false; }
TileKernel pairs_kernel(int64_t, int64_t) { return nullptr; }

#endif

}  // namespace lowrank::cpu::LOWRANK_ISA
