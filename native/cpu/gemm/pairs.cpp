// What bf16 pairs need of the processor. The only file that is compiled for AVX512-BF16 (on AMD's, twice the rate of f32): nothing of it may
// be called before the processor has been asked (Context::frozen). Elsewhere it is empty: bf16 would be slower than f32.
#include "pack.h"
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

void pair_panel(const float* wide, int64_t rows, int64_t k, float* panel) {
  static_assert(kTileRows <= kLanes, "a run of the panel fits into a vector");
  const TileTag d;
  HWY_ALIGN static constexpr uint16_t kZip[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i zip = _mm512_load_si512(kZip);
  for (int64_t i = 0; i < k; i += 2, wide += 2 * rows, panel += rows) {
    const TileVec second = i + 1 < k ? hn::LoadU(d, wide + rows) : hn::Zero(d);
    const __m512bh halves = _mm512_cvtne2ps_pbh(second.raw, hn::LoadU(d, wide).raw);  // to nearest even; NaNs stay, subnormals don't
    _mm512_storeu_si512(panel, _mm512_permutexvar_epi16(zip, (__m512i)halves));
  }
}

#else

bool has_pairs() { return false; }
TileKernel pairs_kernel(int64_t, int64_t) { return nullptr; }
void pair_panel(const float*, int64_t, int64_t, float*) {}

#endif

}  // namespace lowrank::cpu::LOWRANK_ISA
