// The gradient in 16 bits on tensor cores: the two passes of attention_grad.cu, dq by tiles of rows, dk and dv by tiles of keys.
#include "attention_flash_grad.cuh"

namespace lowrank::cuda {

template <class T>
bool attend_grad_on_tensor_cores(Queue& queue, const AttendGrad<T>& p) {
  const bool aligned = in_pieces(p.view) && in_pieces(p.dy, p.dy_pitch) && in_pieces(p.dq, p.dqkv_pitch) && in_pieces(p.dk, p.dqkv_pitch) && in_pieces(p.dv, p.dqkv_pitch);
  if (!aligned || !(p.view.scale > 0)) return false;
  query_grad_on_tensor_cores(queue, p);
  if (p.view.size <= kAlone) key_grad_on_tensor_cores(queue, p);
  else key_grad_in_pairs_on_tensor_cores(queue, p);
  return true;
}

template bool attend_grad_on_tensor_cores(Queue&, const AttendGrad<f16>&);
template bool attend_grad_on_tensor_cores(Queue&, const AttendGrad<bf16>&);

}  // namespace lowrank::cuda
