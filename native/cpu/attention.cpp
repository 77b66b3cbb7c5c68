#include "attention_blocks.h"
#include "attention_sequences.h"

namespace lowrank::cpu::LOWRANK_ISA {

void attention(const Attention& op, const Context& context) {
  const int64_t tokens = op.qkv.rows();
  if (!offsets_fit("attention", op.offsets, tokens, context) || tokens == 0) return;
  const int64_t H = op.heads.query, G = op.heads.key_value, group = H / G, width = op.qkv.cols(), size = op.heads.size(op.qkv);
  const auto head_of = [&](int64_t g, int64_t sequence) {
    const float* row = op.qkv.f32() + sequence * width;
    return HeadView{row + g * group * size, row + (H + g) * size, row + (H + G + g) * size, 0, width, width, group, size, op.window, op.scale};
  };
  const int64_t step = tokens_per_block(group), rows = least(step, tokens) * group;
  const Pieces pieces = cut_sequences(op.offsets, step, context);
  Carver all{nullptr, 0};
  carve_rows(all, head_of(0, 0), rows);
  carve_keys(all, head_of(0, 0));
  float* memory = context.scratch_for<float>(-1, all.used * context.threads);
  if (pieces.list == nullptr || memory == nullptr) return;

  for_pieces(context, pieces, G, [&](const Piece& piece, int64_t g, int worker) {
    const HeadView head = head_of(g, piece.sequence);
    Carver carver{memory + worker * all.used, 0};
    const QueryRows state = carve_rows(carver, head, rows);
    const KeyBlock block = carve_keys(carver, head);
    const Range queries{piece.begin - piece.sequence, piece.end - piece.sequence};
    attend(head, state, block, queries);
    for_query_rows(piece.begin * group, queries.count() * group, group, [&](int64_t m, int64_t token, int64_t h) {
      const int64_t at = token * H + g * group + h;
      op.lse.f32()[at] = finish_row(head, state, m, op.y.f32() + at * size);
    });
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
