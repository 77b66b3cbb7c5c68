#include "amx.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// B comes from L2, tiles of A stay in L1: the former are asked for so many steps of k ahead.
constexpr int64_t kAhead = 2;

// Tiles 0 to 3 are C, two for each panel of A; then A's, then B's.
constexpr int kTileA = 4, kTileB = 6, kHalves = 2;

LOWRANK_INLINE int64_t half_of(int64_t width, int half) {
  const int64_t left = width - half * kAmxWords;
  return left < 0 ? 0 : left < kAmxWords ? left : kAmxWords;
}

AmxConfiguration configuration_of(const AmxProduct& p) {
  AmxConfiguration configuration;
  for (int panel = 0; panel < kAmxPanels; ++panel) {
    configuration.set(kTileA + panel, p.rows[panel], kAmxWords);
    for (int half = 0; half < kHalves; ++half) configuration.set(kHalves * panel + half, p.rows[panel], half_of(p.width, half));
  }
  for (int half = 0; half < kHalves; ++half) configuration.set(kTileB + half, kAmxWords, half_of(p.width, half));
  return configuration;
}

LOWRANK_INLINE void ask_for(const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(from + i);
}

template <int n>
struct Number {
  static constexpr int value = n;
};

// Each tile of A and of B that is loaded serves two products.
template <int panels, int halves, class Tiles>
void multiply_tiles(Tiles& tiles, const AmxProduct& p) {
  const auto each_c = [&](const auto& body) {
    body(Number<0>(), p.c[0]);
    if constexpr (halves == 2) body(Number<1>(), p.c[0] + kAmxWords);
    if constexpr (panels == 2) body(Number<2>(), p.c[1]);
    if constexpr (panels == 2 && halves == 2) body(Number<3>(), p.c[1] + kAmxWords);
  };
  each_c([&](auto tile, float* c) {
    constexpr int number = decltype(tile)::value;
    if (p.adds) tiles.template load<number>(c, p.c_pitch);
    else tiles.template clear<number>();
  });
  const float* b = p.b;
  for (int64_t word = 0; word < p.words; word += kAmxWords, b += kAmxWords * p.width) {
    ask_for(b + kAhead * kAmxWords * p.width, kAmxWords * p.width);
    tiles.template load<kTileA>(p.a[0] + word * p.rows[0], kAmxWords);
    tiles.template load<kTileB>(b, p.width);
    tiles.template multiply<0, kTileA, kTileB>();
    if constexpr (halves == 2) {
      tiles.template load<kTileB + 1>(b + kAmxWords, p.width);
      tiles.template multiply<1, kTileA, kTileB + 1>();
    }
    if constexpr (panels == 2) {
      tiles.template load<kTileA + 1>(p.a[1] + word * p.rows[1], kAmxWords);
      tiles.template multiply<2, kTileA + 1, kTileB>();
      if constexpr (halves == 2) tiles.template multiply<3, kTileA + 1, kTileB + 1>();
    }
  }
  each_c([&](auto tile, float* c) { tiles.template store<decltype(tile)::value>(c, p.c_pitch); });
}

template <class Tiles>
void multiply_with(Tiles& tiles, const AmxProduct& p) {
  const bool two = p.rows[1] > 0;
  if (p.width > kAmxWords) return two ? multiply_tiles<2, 2>(tiles, p) : multiply_tiles<1, 2>(tiles, p);
  two ? multiply_tiles<2, 1>(tiles, p) : multiply_tiles<1, 1>(tiles, p);
}

}  // namespace

template <class Body>
void AmxTiles::with_tiles(const Body& body) {
#if defined(__x86_64__)
  AmxInstructions instructions;
  if (!emulated_) return body(instructions);
#endif
  body(emulation_);
}

AmxTiles::~AmxTiles() {
  if (width_ > 0) with_tiles([](auto& tiles) { tiles.release(); });
}

void AmxTiles::configure(const AmxProduct& p) {
  if (rows_[0] == p.rows[0] && rows_[1] == p.rows[1] && width_ == p.width) return;
  rows_[0] = p.rows[0], rows_[1] = p.rows[1], width_ = p.width;
  with_tiles([&](auto& tiles) { tiles.configure(configuration_of(p)); });
}

void AmxTiles::multiply_whole(const AmxProduct& p) {
  configure(p);
  with_tiles([&](auto& tiles) { multiply_with(tiles, p); });
}

void AmxTiles::multiply(const AmxProduct& p) {
  static_assert(kTileRows <= kAmxRows && kTileCols <= kHalves * kAmxWords);
  if (p.cols == p.width) return multiply_whole(p);
  HWY_ALIGN float temp[kAmxPanels][kAmxRows * kTileCols];
  AmxProduct whole = p;
  whole.adds = false, whole.cols = whole.c_pitch = p.width;
  for (int panel = 0; panel < kAmxPanels; ++panel) whole.c[panel] = temp[panel];
  multiply_whole(whole);
  for (int panel = 0; panel < kAmxPanels; ++panel)
    for (int64_t i = 0; i < p.rows[panel]; ++i)
      for (int64_t j = 0; j < p.cols; ++j) {
        float& c = p.c[panel][i * p.c_pitch + j];
        c = (p.adds ? c : 0.0f) + temp[panel][i * p.width + j];
      }
}

}  // namespace lowrank::cpu::LOWRANK_ISA
