#include "matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "block.h"
#include "checker.h"
#include "config.h"
#include "memory.h"
#include "warp.h"

namespace cusim {

namespace {

struct LoadArgument {
  uint32_t* registers;
  const unsigned char* row;
  int count;
  Transpose transpose;
  Site site;
  uint16_t thread;
};

// Eight rows of 16 bytes are read at once; rows in the same 16 bytes of the 128 that the banks are wide wait for each other.
void count_conflicts(void** arguments, int matrix) {
  int rows_in[8] = {}, worst = 0;
  for (int i = 0; i < 8; ++i) {
    const auto* row = static_cast<LoadArgument*>(arguments[matrix * 8 + i])->row;
    worst = std::max(worst, ++rows_in[reinterpret_cast<uintptr_t>(row) / 16 % 8]);
  }
  ++counts.ldmatrix_phases;
  counts.ldmatrix_conflicts += static_cast<uint64_t>(worst - 1);
}

void load_matrices(void** arguments, uint32_t) {
  const auto& first = *static_cast<LoadArgument*>(arguments[0]);
  for (int matrix = 0; matrix < first.count; ++matrix) {
    uint16_t m[8][8];
    for (int i = 0; i < 8; ++i) {
      const auto& lane = *static_cast<LoadArgument*>(arguments[matrix * 8 + i]);
      memcpy(m[i], lane.row, 16);
      if (checked()) check_access(lane.thread, lane.row, 16, Touch::read, {nullptr, lane.site});
    }
    count_conflicts(arguments, matrix);
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      const unsigned r = lane / 4, c = lane % 4 * 2;
      const bool across = first.transpose == Transpose::yes;
      const uint32_t low = across ? m[c][r] : m[r][c], high = across ? m[c + 1][r] : m[r][c + 1];
      static_cast<LoadArgument*>(arguments[lane])->registers[matrix] = low | high << 16;
    }
  }
}

struct MmaArgument {
  float* d;
  const uint32_t *a, *b;
  Half type;
};

std::vector<float> all_f16() {
  std::vector<float> values(65536);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value = exponent == 31 ? (fraction != 0 ? NAN : INFINITY) : std::ldexp(static_cast<float>(exponent != 0 ? 1024 + fraction : fraction),
                                                                                  static_cast<int>(std::max(exponent, 1u)) - 25);
    values[bits] = (bits & 0x8000) != 0 ? -value : value;
  }
  return values;
}

float value_of(Half type, uint32_t bits) {
  static const std::vector<float> f16 = all_f16();
  if (type == Half::f16) return f16[bits & 0xffff];
  const uint32_t word = bits << 16;
  float value;
  memcpy(&value, &word, sizeof value);
  return value;
}

void multiply(void** arguments, uint32_t) {
  float a[16][16], b[16][8];
  double d[16][8];
  const Half type = static_cast<MmaArgument*>(arguments[0])->type;
  for (int lane = 0; lane < static_cast<int>(kWarp); ++lane) {
    const auto& own = *static_cast<MmaArgument*>(arguments[lane]);
    const int r = lane / 4, c = lane % 4 * 2;
    for (int i = 0; i < 4; ++i)
      for (int half = 0; half < 2; ++half) a[r + i % 2 * 8][c + i / 2 * 8 + half] = value_of(type, own.a[i] >> 16 * half);
    for (int i = 0; i < 2; ++i)
      for (int half = 0; half < 2; ++half) b[c + i * 8 + half][r] = value_of(type, own.b[i] >> 16 * half);
    for (int i = 0; i < 4; ++i) d[r + i / 2 * 8][c + i % 2] = own.d[i];
  }
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < 8; ++j) d[i][j] += static_cast<double>(a[i][k]) * static_cast<double>(b[k][j]);
  for (int lane = 0; lane < static_cast<int>(kWarp); ++lane) {
    const int r = lane / 4, c = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) static_cast<MmaArgument*>(arguments[lane])->d[i] = static_cast<float>(d[r + i / 2 * 8][c + i % 2]);
  }
  ++counts.mma;
}

}  // namespace

void ldmatrix(uint32_t* registers, int count, Transpose transpose, const void* row, const Site& site) {
  const bool names_a_row = static_cast<int>(block.running->lane()) < 8 * count;
  if (names_a_row && reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix: the address of a row must be 16-byte aligned", site);
  if (names_a_row && !shared_memory.holds(row, 16)) fail("ldmatrix: a row lies outside of shared memory: " + describe(row, 16), site);
  const Meeting meeting{1000 + 2 * count + (transpose == Transpose::yes), "ldmatrix", true, load_matrices};
  LoadArgument argument{registers, static_cast<const unsigned char*>(row), count, transpose, site, block.running->linear};
  meet(meeting, whole_warp("ldmatrix", site), &argument, site);
}

void mma_m16n8k16(Half type, float* d, const uint32_t* a, const uint32_t* b, const Site& site) {
  const Meeting meeting{2000 + static_cast<int>(type), "mma.m16n8k16", true, multiply};
  MmaArgument argument{d, a, b, type};
  meet(meeting, whole_warp("mma.m16n8k16", site), &argument, site);
}

}  // namespace cusim
