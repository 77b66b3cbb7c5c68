#include "operands.cuh"

int main() {
  kernels::test_gemm();
  kernels::test_adapters();
  kernels::test_loss();
  kernels::test_guests();
  return planted::failures == 0 ? 0 : 1;
}
