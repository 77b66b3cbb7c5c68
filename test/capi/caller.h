/* A program that has CUDA to itself: a stream of its own, made by the driver's interface, which needs no CUDA header to build. */
#ifndef LOWRANK_TEST_CALLER_H
#define LOWRANK_TEST_CALLER_H

#include <dlfcn.h>
#include <stddef.h>

typedef struct Caller {
  void *context, *stream;
  int (*get_current)(void**);
  int (*synchronize)(void*);
  int (*to_host)(void*, unsigned long long, size_t);
} Caller;

static inline void (*driver_call(void* library, const char* name))(void) {
  void (*call)(void) = NULL;
  *(void**)&call = dlsym(library, name);
  return call;
}

/* 1: there it is. */
static inline int open_caller(Caller* caller) {
  enum { kNonBlocking = 1 };
  void* library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == NULL) return 0;
  int (*init)(unsigned) = (int (*)(unsigned))driver_call(library, "cuInit");
  int (*get_device)(int*, int) = (int (*)(int*, int))driver_call(library, "cuDeviceGet");
  int (*retain)(void**, int) = (int (*)(void**, int))driver_call(library, "cuDevicePrimaryCtxRetain");
  int (*set_current)(void*) = (int (*)(void*))driver_call(library, "cuCtxSetCurrent");
  int (*new_stream)(void**, unsigned) = (int (*)(void**, unsigned))driver_call(library, "cuStreamCreate");
  caller->get_current = (int (*)(void**))driver_call(library, "cuCtxGetCurrent");
  caller->synchronize = (int (*)(void*))driver_call(library, "cuStreamSynchronize");
  caller->to_host = (int (*)(void*, unsigned long long, size_t))driver_call(library, "cuMemcpyDtoH_v2");
  if (!init || !get_device || !retain || !set_current || !new_stream || !caller->get_current || !caller->synchronize || !caller->to_host) return 0;
  int device = 0;
  return init(0) == 0 && get_device(&device, 0) == 0 && retain(&caller->context, device) == 0 && set_current(caller->context) == 0 &&
         new_stream(&caller->stream, kNonBlocking) == 0;
}

#endif
