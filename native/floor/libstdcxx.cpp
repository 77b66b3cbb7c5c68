// What newer versions of libstdc++ export, for older ones: GCC 8's, which come with glibc 2.28, are enough.
#include <new>

namespace std {

// GLIBCXX_3.4.29
[[noreturn, gnu::visibility("hidden")]] void __throw_bad_array_new_length() { throw bad_array_new_length(); }

}  // namespace std

// GLIBCXX_3.4.30 gave it a version that may throw; the one before may not, and nothing is thrown through it here.
extern "C" {
void older_wait(void* condition, void* lock);
asm(".symver older_wait, _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");
[[gnu::visibility("hidden")]] void _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE(void* condition, void* lock) { older_wait(condition, lock); }
}
