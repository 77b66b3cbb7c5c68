// The gradient in one pass: each block of scores is made once and feeds dq, dk and dv (5 products, not the 7 of separate passes).
//
// A sequence is cut into chunks; one task is a pair (chunk of queries, chunk of keys) of one kv head and adds to the dq of the
// one and to the dk, dv of the other. Round r of R runs the pairs with (query chunk + key chunk) mod R == r: within a round no two
// pairs share a chunk, so nobody waits and nothing is atomic, and the order of additions is that of the rounds.
#include "attention_blocks.h"
#include "attention_sequences.h"

namespace lowrank::cpu::LOWRANK_ISA {
namespace {

constexpr int64_t kGradRows = 96;          // rows of queries whose probabilities are kept at a time
constexpr int64_t kChunkFloats = 16 * 1024;  // of one packed operand of a chunk of keys: five of them and a block of rows fit a 1 MiB L2

struct GradHead {
  HeadView view;  // q, k, v at the first token of the sequence
  const float* dy;
  const float* lse;
  const float* delta;  // scale * dy.y
  float* dq;
  float* dk;
  float* dv;
  int64_t heads;  // H: the pitch of lse and delta
};

struct GradBlock {
  float* keys_t;    // [chunk / kKeys][size, kKeys], times scale * log2(e)
  float* values_t;  // likewise, times scale
  float* keys;      // [chunk, padded]
  float* dk;        // [chunk, padded]
  float* dv;        // [chunk, padded]
  float* q;         // [kGradRows, padded]
  float* dy;        // [kGradRows, padded]
  float* dq;        // [kGradRows, padded]
  float* p;         // [kGradRows, kKeys]
  float* ds;        // [kGradRows, kKeys]
  float* lse;       // [kGradRows], in units of ln 2
  float* delta;     // [kGradRows]
};

LOWRANK_INLINE GradBlock carve(Carver& carver, const HeadView& head, int64_t chunk) {
  const int64_t packed = chunk * head.padded(), rows = kGradRows * head.padded();
  const int64_t turned = round_up(chunk, kKeys) * head.size;
  return {carver.take(turned), carver.take(turned), carver.take(packed), carver.take(packed), carver.take(packed), carver.take(rows),
          carver.take(rows), carver.take(rows), carver.take(kGradRows * kKeys), carver.take(kGradRows * kKeys),
          carver.take(kGradRows), carver.take(kGradRows)};
}

// p = 2^(p - lse), ds = p (ds - delta); 0 where unseen.
LOWRANK_INLINE void differentiate(float* p, float* ds, float lse, float delta, Range columns, Visible strip) {
  const RowTag d;
  for (int64_t at = strip.first / kLanes * kLanes; at < strip.end; at += kLanes) {
    auto probability = exp2_of_negative(d, hn::Sub(hn::LoadU(d, p + at), hn::Set(d, lse)));
    auto slope = hn::Mul(probability, hn::Sub(hn::LoadU(d, ds + at), hn::Set(d, delta)));
    if (!strip.whole) {
      const auto seen = lanes_within(d, at, columns.begin, columns.end);
      probability = hn::IfThenElseZero(seen, probability);
      slope = hn::IfThenElseZero(seen, slope);
    }
    hn::StoreU(probability, d, p + at);
    hn::StoreU(slope, d, ds + at);
  }
}

LOWRANK_INLINE void zero(float* to, int64_t count) { memset(to, 0, static_cast<size_t>(count) * sizeof(float)); }

LOWRANK_INLINE void zero_outside(float* row, int64_t from, int64_t to, int64_t width) {
  const RowTag d;
  for (int64_t i = 0; i < from; i += kLanes) hn::StoreU(hn::Zero(d), d, row + i);
  for (int64_t i = to; i < width; i += kLanes) hn::StoreU(hn::Zero(d), d, row + i);
}

// Rows of queries against one block of keys, `at` its place in the chunk. first_row: the row of the sequence's query matrix that row 0 is.
inline void grad_of_block(const HeadView& head, const GradBlock& block, int64_t first_row, int64_t rows, Range keys, int64_t at) {
  const int64_t padded = head.padded(), width = round_up(keys.count(), kLanes);
  const float* keys_t = block.keys_t + at * head.size;
  const float* values_t = block.values_t + at * head.size;
  int64_t seen_from = rows, seen_to = 0, columns_to = 0;
  for (int64_t row = 0; row < rows; row += kStrip) {
    const int64_t count = least(kStrip, rows - row);
    const Visible strip = visible_to(head, (first_row + row) / head.group, (first_row + row + count - 1) / head.group, keys);
    if (strip.first >= strip.end) continue;
    seen_from = least(seen_from, row);
    seen_to = row + count;
    columns_to = most(columns_to, strip.end);
    const int64_t from = strip.first / kLanes * kLanes, to = round_up(strip.end, kLanes);
    float* p = block.p + row * kKeys;
    float* ds = block.ds + row * kKeys;
    multiply<Start::zero>(count, to - from, {block.q + row * padded, padded, keys_t + from, kKeys, p + from, kKeys, head.size, nullptr});
    multiply<Start::zero>(count, to - from, {block.dy + row * padded, padded, values_t + from, kKeys, ds + from, kKeys, head.size, nullptr});
    for_query_rows(first_row + row, count, head.group, [&](int64_t m, int64_t token, int64_t) {
      float* row_p = p + m * kKeys;
      float* row_ds = ds + m * kKeys;
      differentiate(row_p, row_ds, block.lse[row + m], block.delta[row + m], columns_of(head, token, keys), strip);
      zero_outside(row_p, from, to, width);
      zero_outside(row_ds, from, to, width);
    });
    multiply<Start::keep>(count, padded,
                          {ds + from, kKeys, block.keys + (at + from) * padded, padded, block.dq + row * padded, padded, strip.end - from, nullptr});
  }
  // Keys in strips too: the later they are, the later the first row that sees them.
  for (int64_t j = 0; j < columns_to; j += kStrip) {
    const int64_t begin = most(seen_from, (keys.begin + j) * head.group - first_row), out = (at + j) * padded, in = begin * padded;
    const int64_t count = least(kStrip, columns_to - j), scores = begin * kKeys + j;
    multiply<Start::keep, true>(count, padded, {block.p + scores, kKeys, block.dy + in, padded, block.dv + out, padded, seen_to - begin, nullptr});
    multiply<Start::keep, true>(count, padded, {block.ds + scores, kKeys, block.q + in, padded, block.dk + out, padded, seen_to - begin, nullptr});
  }
}

// to = from, or to += from.
LOWRANK_INLINE void deliver(float* to, const float* from, int64_t size, bool first) {
  map_row(size, [&](auto d, int64_t i, auto part) {
    auto v = hn::LoadU(d, from + i);
    if (!first) v = hn::Add(v, part.load(d, to + i));
    part.store(v, d, to + i);
  });
}

LOWRANK_INLINE void load_keys(const HeadView& head, const GradBlock& block, Range keys) {
  const int64_t padded = head.padded(), stride = head.kv_stride;
  for (int64_t at = 0; at < keys.count(); at += kKeys) {
    const int64_t row = (keys.begin + at) * stride, count = least(kKeys, keys.count() - at);
    pack_transposed(block.keys_t + at * head.size, kKeys, head.k + row, stride, count, head.size, head.scale * kLog2E);
    pack_transposed(block.values_t + at * head.size, kKeys, head.v + row, stride, count, head.size, head.scale);
  }
  for (int64_t j = 0; j < keys.count(); ++j) pack_row(block.keys + j * padded, head.k + (keys.begin + j) * stride, head.size);
  zero(block.dk, keys.count() * padded);
  zero(block.dv, keys.count() * padded);
}

LOWRANK_INLINE void load_queries(const GradHead& head, const GradBlock& block, int64_t first_row, int64_t rows) {
  const HeadView& view = head.view;
  const int64_t padded = view.padded(), dy_stride = head.heads * view.size;
  for_query_rows(first_row, rows, view.group, [&](int64_t m, int64_t token, int64_t h) {
    pack_row(block.q + m * padded, view.q + token * view.q_stride + h * view.size, view.size);
    pack_row(block.dy + m * padded, head.dy + token * dy_stride + h * view.size, view.size);
    block.lse[m] = head.lse[token * head.heads + h] * kLog2E;
    block.delta[m] = head.delta[token * head.heads + h];
  });
  zero(block.dq, rows * padded);
}

// One pair of chunks. first_q, first_k: nothing was delivered to these rows yet.
inline void grad_of_pair(const GradHead& head, const GradBlock& block, Range queries, Range keys, bool first_q, bool first_k) {
  const HeadView& view = head.view;
  const int64_t padded = view.padded(), stride = view.kv_stride;
  load_keys(view, block, keys);
  for (int64_t row = queries.begin * view.group; row < queries.end * view.group; row += kGradRows) {
    const int64_t rows = least(kGradRows, queries.end * view.group - row);
    load_queries(head, block, row, rows);
    for (int64_t at = 0; at < keys.count(); at += kKeys)
      grad_of_block(view, block, row, rows, {keys.begin + at, least(keys.begin + at + kKeys, keys.end)}, at);
    for_query_rows(row, rows, view.group, [&](int64_t m, int64_t token, int64_t h) {
      deliver(head.dq + token * stride + h * view.size, block.dq + m * padded, view.size, first_q);
    });
  }
  for (int64_t j = 0; j < keys.count(); ++j) {
    deliver(head.dk + (keys.begin + j) * stride, block.dk + j * padded, view.size, first_k);
    deliver(head.dv + (keys.begin + j) * stride, block.dv + j * padded, view.size, first_k);
  }
}

// The chunks of one sequence, and who meets whom when.
struct Chunks {
  int64_t tokens, chunk, window;

  LOWRANK_INLINE int64_t count() const { return (tokens + chunk - 1) / chunk; }
  LOWRANK_INLINE Range tokens_of(int64_t i) const { return {i * chunk, least((i + 1) * chunk, tokens)}; }
  LOWRANK_INLINE bool meet(int64_t q, int64_t k) const {
    return k >= 0 && k <= q && q < count() && (window == 0 || tokens_of(k).end > q * chunk - window + 1);
  }
  LOWRANK_INLINE int64_t round_of(int64_t q, int64_t k) const { return (q + k) % count(); }
  // The key chunk that query chunk q meets in a round.
  LOWRANK_INLINE int64_t partner(int64_t q, int64_t round) const { return ((round - q) % count() + count()) % count(); }
  LOWRANK_INLINE bool first_of_query(int64_t q, int64_t k) const {
    for (int64_t other = 0; other <= q; ++other)
      if (meet(q, other) && round_of(q, other) < round_of(q, k)) return false;
    return true;
  }
  LOWRANK_INLINE bool first_of_key(int64_t q, int64_t k) const {
    for (int64_t other = k; other < count(); ++other)
      if (meet(other, k) && round_of(other, k) < round_of(q, k)) return false;
    return true;
  }
};

// scale * dy.y of every row and head.
LOWRANK_INLINE void dot_rows(const AttentionGrad& op, int64_t size, float* delta, const Context& context) {
  const float* dy = op.dy.f32();
  const float* y = op.y.f32();
  for_rows(context, op.qkv.rows() * op.heads.query, size, [&](int64_t row) {
    delta[row] = op.scale * sum_of(size, [&](auto d, int64_t i, auto part) {
      return hn::Mul(part.load(d, dy + row * size + i), part.load(d, y + row * size + i));
    });
  });
}

}  // namespace

void attention_grad(const AttentionGrad& op, const Context& context) {
  const int64_t tokens = op.qkv.rows();
  if (!offsets_fit("attention_grad", op.offsets, tokens, context) || tokens == 0) return;
  const int64_t H = op.heads.query, G = op.heads.key_value, group = H / G, width = op.qkv.cols(), size = op.heads.size(op.qkv);
  const auto head_of = [&](int64_t g, int64_t begin, const float* delta) {
    const int64_t q = begin * width + g * group * size, k = begin * width + (H + g) * size, v = k + G * size, h = begin * H + g * group;
    const HeadView view{op.qkv.f32() + q, op.qkv.f32() + k, op.qkv.f32() + v, 0, width, width, group, size, op.window, op.scale};
    return GradHead{view, op.dy.f32() + h * size, op.lse.f32() + h, delta + h, op.dqkv.f32() + q, op.dqkv.f32() + k, op.dqkv.f32() + v, H};
  };
  const int64_t step = round_up(most(1, kChunkFloats / round_up(size, kLanes)), kKeys);
  const Pieces pieces = cut_sequences(op.offsets, step, context);
  Carver count{nullptr, 0};
  carve(count, head_of(0, 0, nullptr).view, least(step, tokens));
  float* memory = context.scratch_for<float>(-1, count.used * context.threads);
  float* delta = context.scratch_for<float>(-1, tokens * H);
  if (pieces.list == nullptr || memory == nullptr || delta == nullptr) return;
  dot_rows(op, size, delta, context);

  int64_t rounds = 0;
  for (int64_t s = 0; s + 1 < op.offsets.count(); ++s)
    rounds = most(rounds, Chunks{op.offsets.i32()[s + 1] - op.offsets.i32()[s], step, op.window}.count());
  for (int64_t round = 0; round < rounds; ++round) {
    for_pieces(context, pieces, G, [&](const Piece& piece, int64_t g, int worker) {
      const Chunks chunks{piece.sequence_end - piece.sequence, step, op.window};
      const int64_t q = (piece.begin - piece.sequence) / step, k = chunks.partner(q, round);
      if (round >= chunks.count() || !chunks.meet(q, k)) return;
      Carver carver{memory + worker * count.used, 0};
      const GradHead head = head_of(g, piece.sequence, delta);
      const GradBlock block = carve(carver, head.view, least(step, tokens));
      grad_of_pair(head, block, chunks.tokens_of(q), chunks.tokens_of(k), chunks.first_of_query(q, k), chunks.first_of_key(q, k));
    });
  }
}

}  // namespace lowrank::cpu::LOWRANK_ISA
