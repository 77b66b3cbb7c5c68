#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gpu.cuh"

namespace lowrank::cuda {

namespace {

constexpr int kOldestChip = 80;  // compute capability 8.0: cp.async, bf16 mma

// "13.0" of 13000
struct Version {
  int major, minor;
};
Version version_of(int number) { return {number / 1000, number % 1000 / 10}; }

// False: there is no driver that this build can talk to.
bool driver_is_new_enough(char* why, size_t size) {
  int driver = 0, needed = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&needed);
  if (driver == 0) {
    // A container sees the kernel's driver also when it was not given the library.
    const bool in_kernel = access("/proc/driver/nvidia/version", R_OK) == 0;
    snprintf(why, size, "%s", in_kernel ? "the NVIDIA driver is in the kernel, but its library libcuda.so.1 was not found (a container needs --gpus, another path LD_LIBRARY_PATH)"
                                        : "no NVIDIA driver is installed (libcuda.so.1 was not found)");
    return false;
  }
  // Within one major version any driver will do (CUDA's minor version compatibility).
  if (version_of(driver).major >= version_of(needed).major) return true;
  snprintf(why, size, "the NVIDIA driver is too old: it supports CUDA %d.%d, this build needs %d.0", version_of(driver).major, version_of(driver).minor,
           version_of(needed).major);
  return false;
}

}  // namespace

std::vector<int> usable_devices(char* why, size_t size) {
  std::vector<int> usable;
  if (!driver_is_new_enough(why, size)) return usable;
  int count = 0;  // left alone when the call fails
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (error != cudaSuccess || count == 0) {
    const char* visible = getenv("CUDA_VISIBLE_DEVICES");
    snprintf(why, size, "there is no CUDA device (%s%s%s)", error == cudaSuccess ? "the driver counts none" : cudaGetErrorString(error),
             visible == nullptr ? "" : "; CUDA_VISIBLE_DEVICES=", visible == nullptr ? "" : visible);
    return usable;
  }
  for (int device = 0; device < count; ++device) {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (10 * major + minor >= kOldestChip) {
      usable.push_back(device);
      continue;
    }
    cudaDeviceProp properties;
    const bool named = cudaGetDeviceProperties(&properties, device) == cudaSuccess;
    snprintf(why, size, "%s is too old: it has compute capability %d.%d, 8.0 is needed", named ? properties.name : "the device", major, minor);
  }
  return usable;
}

}  // namespace lowrank::cuda
