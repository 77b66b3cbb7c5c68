#include "attention_blocks.h"
#include "attention_sequences.h"

namespace lowrank::cpu::LOWRANK_ISA {

void attention(const Attention& op, const Context& context) {
  const int64_t tokens = op.qkv.rows();
  if (!offsets_fit("attention", op.offsets, tokens, context)) return;
  const int64_t group = op.heads.query / op.heads.key_value, width = op.qkv.cols(), size = op.heads.size(op.qkv);
  const auto head_of = [&](int64_t g, int64_t begin) {
    const float* row = op.qkv.f32() + begin * width;
    return HeadView{row + g * group * size, row + (op.heads.query + g) * size, row + (op.heads.query + op.heads.key_value + g) * size,
                    width, width, group, size, op.window, op.scale};
  };
  const int64_t step = tokens_per_block(group);
  const Pieces pieces = cut_sequences(op.offsets, step, context);
  if (pieces.count == 0) return;
  int64_t bytes = 0;
  QueryBlock({nullptr, 0}, least(step, tokens) * group, head_of(0, 0), &bytes);
  char* memory = static_cast<char*>(context.scratch(context.self, -1, bytes * context.threads));
  if (memory == nullptr) return;
  for_pieces(context, pieces, op.heads.key_value, [&](const Piece& piece, int64_t g, int worker) {
    const HeadView head = head_of(g, piece.sequence);
    const QueryBlock block({reinterpret_cast<float*>(memory + worker * bytes), 0}, least(step, tokens) * group, head, nullptr);
    const Range queries{piece.begin - piece.sequence, piece.end - piece.sequence};
    attend(head, block, queries, {0, queries.end});
    for (int64_t m = 0; m < queries.count() * group; ++m) {
      const int64_t token = piece.begin + m / group, h = g * group + m % group;
      op.lse.f32()[token * op.heads.query + h] = finish_row(head, block, m, op.y.f32() + (token * op.heads.query + h) * size);
    }
  });
}

}  // namespace lowrank::cpu::LOWRANK_ISA
