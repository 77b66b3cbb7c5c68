#include "gemm/gemm.h"
#include "gemm/gemv.h"

namespace lowrank::cpu::LOWRANK_ISA {

namespace {

// Where part i of a joined projection begins: in the columns of y, in the ranks, in the flat B.
struct Place {
  int64_t n, rank, b;
};

struct Places {
  Place at[kMaxParts];
};

Places places_of(const Weight& w, const LoraParts& parts) {
  Places places{};
  Place next{};
  for (int i = 0; i < w.parts; ++i) {
    places.at[i] = next;
    next.n += w.out[i], next.rank += parts.rank[i], next.b += w.out[i] * parts.rank[i];
  }
  return places;
}

// y = [x | u] [W | B]^T, u made from the panels of x on their way.
Gemm forward(const LoraLinear& op, const Places& places) {
  const int64_t n = op.w.rows(), ranks = op.parts.ranks();
  Gemm gemm;
  gemm.m = op.x.rows();
  gemm.lefts[0] = {op.x.f32(), op.w.in, op.w.in};
  gemm.lefts[1].k = ranks;
  gemm.left_count = 2;
  for (int i = 0; i < op.w.parts; ++i) {
    const Place& at = places.at[i];
    const int64_t rank = op.parts.rank[i];
    Columns& columns = gemm.columns[gemm.column_count++];
    columns.n = op.w.out[i];
    columns.c = op.y.f32() + at.n, columns.pitch = n;
    if (op.bias.given()) columns.bias = op.bias.f32() + at.n;
    if (op.carry.given()) columns.carry = op.carry.f32() + at.n;
    columns.add(0, op.w.in, weight_transposed(op.w, i));
    if (rank == 0) continue;
    columns.add(1, rank, f32_matrix(op.b.f32() + at.b, rank, Lie::columns)).first = at.rank;
    Side& u = gemm.sides[gemm.side_count++];
    u.from = 0, u.into = 1, u.first = at.rank, u.n = rank;
    u.right = f32_matrix(op.a.f32() + at.rank * op.w.in, op.w.in, Lie::columns);
    u.scale = op.parts.scale[i], u.drop = dropout_of(op.parts, i);
    u.out = op.u.f32() + at.rank, u.pitch = ranks;
  }
  return gemm;
}

// Decoding: u, then y, each in one pass over its weights. Dropped-out rows are few enough to be written down.
void forward_few(const LoraLinear& op, const Places& places, const Context& context) {
  const int64_t rows = op.x.rows(), k = op.w.in, ranks = op.parts.ranks();
  const bool drops = op.parts.threshold() != 0;
  float* dropped = drops ? context.scratch_for<float>(-1, kMaxParts * rows * k + 1) : nullptr;
  if (drops && dropped == nullptr) return;
  Gemv us[kMaxParts], ys[kMaxParts];
  for (int i = 0; i < op.w.parts; ++i) {
    const Place& at = places.at[i];
    const int64_t rank = op.parts.rank[i];
    Gemv& u = us[i];
    u.m = rows, u.k = k, u.n = rank;
    u.x = op.x.f32(), u.x_pitch = k;
    if (drops && rank > 0) {
      u.x = dropped + i * rows * k;
      drop_row(dropout_of(op.parts, i), op.x.f32(), 0, rows * k, dropped + i * rows * k);
    }
    u.w = f32_matrix(op.a.f32() + at.rank * k, k, Lie::columns);
    u.scale = op.parts.scale[i];
    u.y = op.u.f32() + at.rank, u.y_pitch = ranks;
    Gemv& y = ys[i];
    y.m = rows, y.k = k, y.n = op.w.out[i];
    y.x = op.x.f32(), y.x_pitch = k;
    y.w = weight_transposed(op.w, i);
    y.y = op.y.f32() + at.n, y.y_pitch = op.w.rows();
    if (op.bias.given()) y.bias = op.bias.f32() + at.n;
    if (op.carry.given()) y.carry = op.carry.f32() + at.n;
    y.u = op.u.f32() + at.rank, y.u_pitch = ranks, y.rank = rank, y.b = op.b.f32() + at.b;
  }
  multiply_few(context, us, op.w.parts);
  multiply_few(context, ys, op.w.parts);
}

// dx = [dy | v] [W ; A], v made from the panels of dy on their way. With dropout each part's v A goes through its mask.
Gemm backward(const LoraLinearGrad& op, const Places& places, float* v) {
  const int64_t n = op.w.rows(), ranks = op.parts.ranks();
  Gemm gemm;
  gemm.m = op.x.rows();
  gemm.left_count = op.w.parts + 1;
  gemm.lefts[op.w.parts].k = ranks;
  gemm.column_count = op.dx.given() ? 1 : 0;
  Columns& columns = gemm.columns[0];
  columns.n = columns.pitch = op.w.in;
  columns.c = op.dx.f32();
  for (int i = 0; i < op.w.parts; ++i) {
    const Place& at = places.at[i];
    const int64_t rank = op.parts.rank[i];
    gemm.lefts[i] = {op.dy.f32() + at.n, op.w.out[i], n};
    columns.add(i, op.w.out[i], weight_straight(op.w, i));
    if (rank == 0) continue;
    Side& side = gemm.sides[gemm.side_count++];
    side.from = i, side.into = op.w.parts, side.first = at.rank, side.n = rank;
    side.right = f32_matrix(op.b.f32() + at.b, rank, Lie::rows);
    side.scale = op.parts.scale[i];
    side.out = v + at.rank, side.pitch = ranks;
  }
  return gemm;
}

// The dropout of each part, drawn once, in whole batches, and kept until the op ends: dA and dx need them.
struct Masks {
  Dropout of[kMaxParts];
};

bool draw_masks(const LoraLinearGrad& op, const Context& context, Masks& masks) {
  constexpr int64_t kSpan = 64 * kPhiloxBatch;
  const int64_t count = op.x.count();
  for (int i = 0; i < op.w.parts; ++i) {
    Dropout& drop = masks.of[i];
    drop = dropout_of(op.parts, i);
    if (!drop.on() || op.parts.rank[i] == 0) continue;
    uint8_t* bits = context.scratch_for<uint8_t>(-1, dropout_bytes(count));
    if (bits == nullptr) return false;
    for_spans(context, count, kSpan, [&](int64_t begin, int64_t n) { write_dropout_bits(drop, begin, n, bits + begin / 8); });
    drop.bits = bits;
  }
  return true;
}

void add_low_rank_dx(const LoraLinearGrad& op, const Places& places, const Masks& masks, Columns& columns) {
  if (op.parts.threshold() == 0) {
    columns.add(op.w.parts, op.parts.ranks(), f32_matrix(op.a.f32(), op.w.in, Lie::rows));
    return;
  }
  for (int i = 0; i < op.w.parts; ++i) {
    const int64_t rank = op.parts.rank[i], first = places.at[i].rank;
    if (rank == 0) continue;
    Product& product = columns.add(op.w.parts, rank, f32_matrix(op.a.f32() + first * op.w.in, op.w.in, Lie::rows));
    product.first = first, product.mask = masks.of[i];
  }
}

// dA rows [first, first + rank) += v^T xhat.
OuterSum grad_a(const LoraLinearGrad& op, const float* v, int64_t first, int64_t rank, const Dropout& drop) {
  OuterSum sum;
  sum.rows = op.x.rows();
  sum.x = op.x.f32(), sum.n = sum.x_pitch = op.w.in, sum.drop = drop;
  sum.v = v + first, sum.rank = rank, sum.v_pitch = op.parts.ranks();
  sum.c = op.da.f32() + first * op.w.in, sum.pitch = op.w.in, sum.lie = Lie::columns;
  return sum;
}

// dB_i += dy_i^T u_i.
OuterSum grad_b(const LoraLinearGrad& op, const Place& at, int64_t out, int64_t rank) {
  OuterSum sum;
  sum.rows = op.x.rows();
  sum.x = op.dy.f32() + at.n, sum.n = out, sum.x_pitch = op.w.rows();
  sum.v = op.u.f32() + at.rank, sum.rank = rank, sum.v_pitch = op.parts.ranks();
  sum.c = op.db.f32() + at.b, sum.pitch = rank;
  return sum;
}

int list_adapter_grads(const LoraLinearGrad& op, const Places& places, const Masks& masks, const float* v, OuterSum* sums) {
  int count = 0;
  if (op.parts.threshold() == 0) sums[count++] = grad_a(op, v, 0, op.parts.ranks(), Dropout());
  for (int i = 0; i < op.w.parts; ++i) {
    const int64_t rank = op.parts.rank[i];
    if (rank == 0) continue;
    if (op.parts.threshold() != 0) sums[count++] = grad_a(op, v, places.at[i].rank, rank, masks.of[i]);
    sums[count++] = grad_b(op, places.at[i], op.w.out[i], rank);
  }
  return count;
}

}  // namespace

void lora_linear(const LoraLinear& op, const Context& context) {
  const Places places = places_of(op.w, op.parts);
  if (op.x.rows() <= kGemvRows) return forward_few(op, places, context);
  multiply(context, forward(op, places));
}

void lora_linear_grad(const LoraLinearGrad& op, const Context& context) {
  const Places places = places_of(op.w, op.parts);
  const int64_t ranks = op.parts.ranks();
  if (ranks == 0) {
    if (op.dx.given()) multiply(context, backward(op, places, nullptr));
    return;
  }
  float* v = context.scratch_for<float>(-1, op.x.rows() * ranks);
  if (v == nullptr) return;
  Masks masks;
  if (!draw_masks(op, context, masks)) return;
  Gemm gemm = backward(op, places, v);
  if (op.dx.given()) add_low_rank_dx(op, places, masks, gemm.columns[0]);
  OuterSum grads[2 * kMaxParts];
  multiply(context, gemm, grads, list_adapter_grads(op, places, masks, v, grads));
}

}  // namespace lowrank::cpu::LOWRANK_ISA
