#include "operands.cuh"

int main() {
  kernels::test_gemm();
  kernels::test_adapters();
  kernels::test_loss();
  kernels::test_attention_order();
  kernels::test_guests();
  kernels::test_queue();
  return planted::failures == 0 ? 0 : 1;
}
