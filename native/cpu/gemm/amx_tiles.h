// AMX's tiles and their instructions, and the same in plain C++ for tests elsewhere.
#pragma once
#include "tile.h"

namespace lowrank::cpu::LOWRANK_ISA {

constexpr int kAmxTiles = 8, kAmxRows = 16;

// What LDTILECFG reads. A tile without rows has no columns either.
struct alignas(64) AmxConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int64_t row_count, int64_t columns) {
    rows[tile] = static_cast<uint8_t>(columns > 0 ? row_count : 0);
    row_bytes[tile] = static_cast<uint16_t>(row_count > 0 ? columns * 4 : 0);
  }
};
static_assert(sizeof(AmxConfiguration) == 64);

#if defined(__x86_64__)

// The assembler knows these whatever the compiler may use by itself. Pitches are in words.
struct AmxInstructions {
  template <int tile>
  LOWRANK_INLINE void clear() { asm volatile("tilezero %%tmm%c0" ::"i"(tile)); }
  template <int tile>
  LOWRANK_INLINE void load(const float* from, int64_t pitch) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(pitch * 4), "i"(tile) : "memory");
  }
  template <int tile>
  LOWRANK_INLINE void store(float* to, int64_t pitch) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(pitch * 4), "i"(tile) : "memory");
  }
  // c += a b, of bf16 pairs.
  template <int c, int a, int b>
  LOWRANK_INLINE void multiply() { asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b)); }

  void configure(const AmxConfiguration& configuration) { asm volatile("ldtilecfg %0" ::"m"(configuration)); }
  void release() { asm volatile("tilerelease"); }
};

#endif

// What these do by Intel's manual; what would be a fault there is a trap here.
class AmxEmulation {
 public:
  template <int tile>
  void clear() { each<tile>([](float& number, int64_t, int64_t) { number = 0; }); }
  template <int tile>
  void load(const float* from, int64_t pitch) {
    each<tile>([=](float& number, int64_t row, int64_t column) { memcpy(&number, from + row * pitch + column, sizeof number); });
  }
  template <int tile>
  void store(float* to, int64_t pitch) {
    each<tile>([=](float& number, int64_t row, int64_t column) { memcpy(to + row * pitch + column, &number, sizeof number); });
  }
  template <int c, int a, int b>
  void multiply() {
    require(rows(a) == rows(c) && columns(a) == rows(b) && columns(b) == columns(c));
    each<c>([this](float& sum, int64_t row, int64_t column) {
      float lower = 0, upper = 0;
      for (int64_t k = 0; k < columns(a); ++k) {
        const auto left = __builtin_bit_cast(uint32_t, tiles_[a][row][k]), right = __builtin_bit_cast(uint32_t, tiles_[b][k][column]);
        lower += __builtin_bit_cast(float, left << 16) * __builtin_bit_cast(float, right << 16);
        upper += __builtin_bit_cast(float, left & 0xffff0000u) * __builtin_bit_cast(float, right & 0xffff0000u);
      }
      sum += lower + upper;
    });
  }
  void configure(const AmxConfiguration& configuration) { configured_ = configuration; }
  void release() { configured_ = {}; }

 private:
  static void require(bool fact) {
    if (!fact) __builtin_trap();
  }
  int64_t rows(int tile) const { return configured_.rows[tile]; }
  int64_t columns(int tile) const { return configured_.row_bytes[tile] / 4; }
  // body(number, row, column) for what a tile holds.
  template <int tile, class Body>
  void each(const Body& body) {
    require(rows(tile) > 0 && rows(tile) <= kAmxRows && columns(tile) > 0 && columns(tile) <= kAmxWords);
    for (int64_t row = 0; row < rows(tile); ++row)
      for (int64_t column = 0; column < columns(tile); ++column) body(tiles_[tile][row][column], row, column);
  }

  AmxConfiguration configured_;
  float tiles_[kAmxTiles][kAmxRows][kAmxWords];
};

}  // namespace lowrank::cpu::LOWRANK_ISA
