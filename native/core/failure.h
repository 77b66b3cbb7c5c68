// What went wrong, as text with a stable code (see src/error.ts). Crosses the backend table, so C types only.
#pragma once
#include <stdarg.h>
#include <stdio.h>

namespace lowrank {

struct Failure {
  char code[32];
  char text[480];

  bool happened() const { return code[0] != 0; }
  void set(const char* new_code, const char* format, va_list arguments) {
    snprintf(code, sizeof code, "%s", new_code);
    vsnprintf(text, sizeof text, format, arguments);
  }
  __attribute__((format(printf, 3, 4))) void set(const char* new_code, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    set(new_code, format, arguments);
    va_end(arguments);
  }
};

}  // namespace lowrank
