#include "amx.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// B comes from L2, tiles of A stay in L1: the former are asked for so many steps of k ahead.
constexpr int64_t kAhead = 2;

// Tiles 0 to 3 are C, two for each panel of A; then A's, then B's.
constexpr int kTileA = 4, kTileB = 6, kTiles = 8, kHalves = 2;

// What LDTILECFG reads. A tile without rows has no columns either.
struct alignas(64) Configuration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int64_t row_count, int64_t columns) {
    rows[tile] = static_cast<uint8_t>(columns > 0 ? row_count : 0);
    row_bytes[tile] = static_cast<uint16_t>(row_count > 0 ? columns * 4 : 0);
  }
};
static_assert(sizeof(Configuration) == 64);

LOWRANK_INLINE int64_t half_of(int64_t width, int half) {
  const int64_t left = width - half * kAmxWords;
  return left < 0 ? 0 : left < kAmxWords ? left : kAmxWords;
}

Configuration configuration_of(const AmxProduct& p) {
  Configuration configuration;
  for (int panel = 0; panel < kAmxPanels; ++panel) {
    configuration.set(kTileA + panel, p.rows[panel], kAmxWords);
    for (int half = 0; half < kHalves; ++half) configuration.set(kHalves * panel + half, p.rows[panel], half_of(p.width, half));
  }
  for (int half = 0; half < kHalves; ++half) configuration.set(kTileB + half, kAmxWords, half_of(p.width, half));
  return configuration;
}

#if defined(__x86_64__)

// The assembler knows these whatever the compiler may use by itself.
struct Instructions {
  template <int tile>
  static LOWRANK_INLINE void clear() { asm volatile("tilezero %%tmm%c0" ::"i"(tile)); }
  template <int tile>
  static LOWRANK_INLINE void load(const float* from, int64_t pitch) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(pitch * 4), "i"(tile) : "memory");
  }
  template <int tile>
  static LOWRANK_INLINE void store(float* to, int64_t pitch) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(pitch * 4), "i"(tile) : "memory");
  }
  template <int c, int a, int b>
  static LOWRANK_INLINE void multiply() { asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b)); }

  // For `count` words that are wanted soon.
  static LOWRANK_INLINE void ask(const float* from, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(from + i);
  }
  static void configure(const Configuration& configuration) { asm volatile("ldtilecfg %0" ::"m"(configuration)); }
  static void release() { asm volatile("tilerelease"); }
};

#endif

// What these do, as Intel's manual has it.
struct Emulation {
  static thread_local Configuration configured;
  static thread_local float tiles[kTiles][16][kAmxWords];

  static int64_t columns(int tile) { return configured.row_bytes[tile] / 4; }
  // body(number, row, column) for what a tile holds.
  template <int tile, class Body>
  static void each(const Body& body) {
    for (int64_t row = 0; row < configured.rows[tile]; ++row)
      for (int64_t column = 0; column < columns(tile); ++column) body(tiles[tile][row][column], row, column);
  }
  template <int tile>
  static void clear() { each<tile>([](float& number, int64_t, int64_t) { number = 0; }); }
  template <int tile>
  static void load(const float* from, int64_t pitch) {
    each<tile>([=](float& number, int64_t row, int64_t column) { memcpy(&number, from + row * pitch + column, sizeof number); });
  }
  template <int tile>
  static void store(float* to, int64_t pitch) {
    each<tile>([=](float& number, int64_t row, int64_t column) { memcpy(to + row * pitch + column, &number, sizeof number); });
  }
  static float half_of_pair(const float& pair, int upper) {
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    bits = upper != 0 ? bits & 0xffff0000u : bits << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
  }
  template <int c, int a, int b>
  static void multiply() {
    each<c>([](float& sum, int64_t row, int64_t column) {
      for (int64_t k = 0; k < columns(a); ++k)
        for (int upper = 0; upper < 2; ++upper) sum += half_of_pair(tiles[a][row][k], upper) * half_of_pair(tiles[b][k][column], upper);
    });
  }
  static void ask(const float*, int64_t) {}
  static void configure(const Configuration& configuration) { configured = configuration; }
  static void release() { configured = {}; }
};
thread_local Configuration Emulation::configured;
thread_local float Emulation::tiles[kTiles][16][kAmxWords];

template <int n>
struct Number {
  static constexpr int value = n;
};

// Each tile of A and of B that is loaded serves two products.
template <class Tiles, int panels, int halves>
void multiply_tiles(const AmxProduct& p) {
  const auto each_c = [&](const auto& body) {
    body(Number<0>(), p.c[0]);
    if constexpr (halves == 2) body(Number<1>(), p.c[0] + kAmxWords);
    if constexpr (panels == 2) body(Number<2>(), p.c[1]);
    if constexpr (panels == 2 && halves == 2) body(Number<3>(), p.c[1] + kAmxWords);
  };
  each_c([&](auto tile, float* c) {
    constexpr int number = decltype(tile)::value;
    if (p.adds) Tiles::template load<number>(c, p.c_pitch);
    else Tiles::template clear<number>();
  });
  const float* b = p.b;
  for (int64_t word = 0; word < p.words; word += kAmxWords, b += kAmxWords * p.width) {
    Tiles::ask(b + kAhead * kAmxWords * p.width, kAmxWords * p.width);
    Tiles::template load<kTileA>(p.a[0] + word * p.rows[0], kAmxWords);
    Tiles::template load<kTileB>(b, p.width);
    Tiles::template multiply<0, kTileA, kTileB>();
    if constexpr (halves == 2) {
      Tiles::template load<kTileB + 1>(b + kAmxWords, p.width);
      Tiles::template multiply<1, kTileA, kTileB + 1>();
    }
    if constexpr (panels == 2) {
      Tiles::template load<kTileA + 1>(p.a[1] + word * p.rows[1], kAmxWords);
      Tiles::template multiply<2, kTileA + 1, kTileB>();
      if constexpr (halves == 2) Tiles::template multiply<3, kTileA + 1, kTileB + 1>();
    }
  }
  each_c([&](auto tile, float* c) { Tiles::template store<decltype(tile)::value>(c, p.c_pitch); });
}

template <class Tiles>
void multiply_with(const AmxProduct& p) {
  const bool two = p.rows[1] > 0;
  if (p.width > kAmxWords) return two ? multiply_tiles<Tiles, 2, 2>(p) : multiply_tiles<Tiles, 1, 2>(p);
  two ? multiply_tiles<Tiles, 2, 1>(p) : multiply_tiles<Tiles, 1, 1>(p);
}

// body(type): the one that does what the tiles do.
template <class Body>
void with_tiles(bool emulated, const Body& body) {
#if defined(__x86_64__)
  if (!emulated) return body(Instructions());
#endif
  body(Emulation());
}

}  // namespace

AmxTiles::~AmxTiles() {
  if (width_ > 0) with_tiles(emulated_, [](auto tiles) { tiles.release(); });
}

void AmxTiles::configure(const AmxProduct& p) {
  if (rows_[0] == p.rows[0] && rows_[1] == p.rows[1] && width_ == p.width) return;
  rows_[0] = p.rows[0], rows_[1] = p.rows[1], width_ = p.width;
  with_tiles(emulated_, [&](auto tiles) { tiles.configure(configuration_of(p)); });
}

void AmxTiles::multiply_whole(const AmxProduct& p) {
  configure(p);
  with_tiles(emulated_, [&](auto tiles) { multiply_with<decltype(tiles)>(p); });
}

void AmxTiles::multiply(const AmxProduct& p) {
  static_assert(kTileRows <= 16 && kTileCols <= kHalves * kAmxWords);
  if (p.cols == p.width) return multiply_whole(p);
  HWY_ALIGN float temp[kAmxPanels][16 * kTileCols];
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
