// A kernel launch: blocks in random order, one after the other, each to its end.
#pragma once
#include <cstddef>

#include "dim3.h"

namespace cusim {

struct LaunchShape {
  dim3 grid, block;
  size_t shared_bytes;
};

// Calls body(argument) once for every thread. Throws Error with the report of the first thing that went wrong. Several host threads
// may launch; they take turns.
void launch(const char* kernel, const LaunchShape& shape, void (*body)(void*), void* argument);

template <class Body>
void launch(const char* kernel, const LaunchShape& shape, const Body& body) {
  launch(kernel, shape, [](void* own) { (*static_cast<const Body*>(own))(); }, const_cast<Body*>(&body));
}

}  // namespace cusim
