// Frozen products in bf16 by AMX: tiles are registers of up to 16 rows of 64 bytes, and one instruction adds to 16 x 16 sums in f32 the
// products of 16 x 32 numbers by 32 x 16. B is as other bf16 pairs have it (Words); A isn't.
#pragma once
#include "amx_tiles.h"

namespace lowrank::cpu::LOWRANK_ISA {

constexpr int kAmxPanels = 2;

// C [rows, cols] of two panels below each other (of the second there may be no rows) = or += A B.
struct AmxProduct {
  const float* a[kAmxPanels];  // pairs in tiles [rows, kAmxWords], one behind the other
  int64_t rows[kAmxPanels];
  const float* b;              // [words, width]
  int64_t width;               // of a panel of B: cols, or more
  int64_t words;               // a multiple of kAmxWords
  float* c[kAmxPanels];
  int64_t c_pitch;
  int64_t cols;
  bool adds;
};

// A thread's tiles, from the first product until this goes: what they hold has to be kept by whoever switches threads.
class AmxTiles {
 public:
  explicit AmxTiles(bool emulated) : emulated_(emulated) {}
  ~AmxTiles();
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  void multiply(const AmxProduct& product);

 private:
  void configure(const AmxProduct& product);
  void multiply_whole(const AmxProduct& product);

  template <class Body>
  void with_tiles(const Body& body);

  bool emulated_;
  AmxEmulation emulation_;
  int64_t rows_[kAmxPanels] = {}, width_ = 0;  // that they are configured for
};

}  // namespace lowrank::cpu::LOWRANK_ISA
