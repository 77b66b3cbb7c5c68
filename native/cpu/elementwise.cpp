#include "half.h"
#include "rows.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// Source and destination of one vector's worth of elements, as the f32 bits between.
template <class From, class To>
void cast_span(const void* from, void* to, int64_t count) {
  const hn::ScalableTag<int32_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* x = static_cast<const typename From::Bits*>(from);
  auto* y = static_cast<typename To::Bits*>(to);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) To::store(d, From::load(d, x + i), y + i);
  if (i == count) return;
  typename From::Bits in[HWY_MAX_BYTES / sizeof(int32_t)] = {};
  typename To::Bits out[HWY_MAX_BYTES / sizeof(int32_t)];
  memcpy(in, x + i, static_cast<size_t>(count - i) * sizeof(in[0]));
  To::store(d, From::load(d, in), out);
  memcpy(y + i, out, static_cast<size_t>(count - i) * sizeof(out[0]));
}

using CastSpan = void (*)(const void* from, void* to, int64_t count);

// By DType: f32, f16, bf16.
constexpr CastSpan kCasts[3][3] = {
    {cast_span<F32Bits, F32Bits>, cast_span<F32Bits, F16Bits>, cast_span<F32Bits, BF16Bits>},
    {cast_span<F16Bits, F32Bits>, cast_span<F16Bits, F16Bits>, cast_span<F16Bits, BF16Bits>},
    {cast_span<BF16Bits, F32Bits>, cast_span<BF16Bits, F16Bits>, cast_span<BF16Bits, BF16Bits>},
};

void copy_bytes(const Tensor& y, const Tensor& x, const Context& context) {
  for_spans(context, y.bytes(), kTaskElements * 4, [&](int64_t start, int64_t bytes) {
    memcpy(y.as<uint8_t>() + start, x.as<uint8_t>() + start, static_cast<size_t>(bytes));
  });
}

}  // namespace

void copy(const Copy& op, const Context& context) { copy_bytes(op.y, op.x, context); }

void cast(const Cast& op, const Context& context) {
  if (op.y.dtype == op.x.dtype) return copy_bytes(op.y, op.x, context);
  const CastSpan span = kCasts[static_cast<int>(op.x.dtype)][static_cast<int>(op.y.dtype)];
  for_spans(context, op.y.count(), kTaskElements, [&](int64_t start, int64_t count) {
    span(op.x.as<uint8_t>() + start * size_of(op.x.dtype), op.y.as<uint8_t>() + start * size_of(op.y.dtype), count);
  });
}

void fill(const Fill& op, const Context& context) {
  for_spans(context, op.y.count(), kTaskElements, [&](int64_t start, int64_t count) {
    float* y = op.y.f32() + start;
    map_row(count, [&](auto d, int64_t i, auto part) { part.store(hn::Set(d, op.value), d, y + i); });
  });
}

void add(const Add& op, const Context& context) {
  for_spans(context, op.y.count(), kTaskElements, [&](int64_t start, int64_t count) {
    const float* a = op.a.f32() + start;
    const float* b = op.b.f32() + start;
    float* y = op.y.f32() + start;
    map_row(count, [&](auto d, int64_t i, auto part) {
      part.store(hn::Add(part.load(d, a + i), part.load(d, b + i)), d, y + i);
    });
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
