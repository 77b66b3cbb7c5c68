// Binds what glibc 2.29 to 2.34 gave a new version to its older one, so that a binary built here loads on older systems too.
//
// Each line makes a hidden function of the old name which jumps to the old version: objects of ours and of static libraries (CUDA's
// runtime is one) find it before they find glibc's. Sections of their own let the linker drop the ones that nobody calls.
#if defined(__x86_64__)
#define BASE "GLIBC_2.2.5"
#define DLMOPEN "GLIBC_2.3.4"
#define JUMP(target) "jmp *" target "@GOTPCREL(%rip)\n"
#define FSTAT "movq %rsi, %rdx\nmovl %edi, %esi\nmovl $1, %edi\njmp *__fxstat@GOTPCREL(%rip)\n"
#define EXECUTABLE ",\"ax\",@progbits\n"
#define READABLE ",\"a\",@progbits\n"
#elif defined(__aarch64__)
#define BASE "GLIBC_2.17"
#define DLMOPEN BASE
#define JUMP(target) "adrp x16, :got:" target "\nldr x16, [x16, #:got_lo12:" target "]\nbr x16\n"
#define FSTAT "mov x2, x1\nmov w1, w0\nmov w0, #0\n" JUMP("__fxstat")
#define EXECUTABLE ",\"ax\",%progbits\n"
#define READABLE ",\"a\",%progbits\n"
#else
#error "older versions are known for x86-64 and aarch64 only: -DLOWRANK_FLOOR=OFF"
#endif

#define HIDDEN(name, section, content) \
  asm(".pushsection " section ".globl " name "\n.hidden " name "\n" name ":\n" content ".popsection\n");
#define OLDER_AS(name, version) \
  asm(".symver older_" name ", " name "@" version "\n"); \
  HIDDEN(name, ".text.floor." name EXECUTABLE ".type " name ", %function\n", JUMP("older_" name))
#define OLDER(name) OLDER_AS(#name, BASE)

// 2.34 moved libdl, libpthread and librt into libc.
OLDER(dladdr) OLDER(dlclose) OLDER(dlerror) OLDER(dlopen) OLDER(dlsym) OLDER(dlvsym)
OLDER_AS("dlmopen", DLMOPEN)
OLDER(pthread_condattr_setpshared) OLDER(pthread_create) OLDER(pthread_detach) OLDER(pthread_getspecific) OLDER(pthread_join)
OLDER(pthread_key_create) OLDER(pthread_key_delete) OLDER(pthread_kill) OLDER(pthread_mutex_trylock) OLDER(pthread_mutexattr_destroy)
OLDER(pthread_mutexattr_init) OLDER(pthread_mutexattr_setpshared) OLDER(pthread_mutexattr_settype) OLDER(pthread_once)
OLDER(pthread_rwlock_destroy) OLDER(pthread_rwlock_init) OLDER(pthread_rwlock_rdlock) OLDER(pthread_rwlock_timedrdlock)
OLDER(pthread_rwlock_timedwrlock) OLDER(pthread_rwlock_tryrdlock) OLDER(pthread_rwlock_trywrlock) OLDER(pthread_rwlock_unlock)
OLDER(pthread_rwlock_wrlock) OLDER(pthread_rwlockattr_destroy) OLDER(pthread_rwlockattr_init) OLDER(pthread_rwlockattr_setpshared)
OLDER(pthread_setspecific) OLDER(pthread_spin_destroy) OLDER(pthread_spin_init) OLDER(pthread_spin_lock) OLDER(pthread_spin_trylock)
OLDER(pthread_spin_unlock) OLDER(sem_destroy) OLDER(sem_init) OLDER(sem_post) OLDER(sem_timedwait) OLDER(sem_trywait) OLDER(sem_wait)
OLDER(shm_open) OLDER(shm_unlink)

// 2.32 moved it before the others.
OLDER(pthread_sigmask)

// 2.29: the same functions without the old ways to tell of an error.
OLDER(exp) OLDER(log) OLDER(pow)

// 2.33 made a function of what had been an inline call with a version of the struct.
HIDDEN("fstat", ".text.floor.fstat" EXECUTABLE ".type fstat, %function\n", FSTAT)

// 2.32: whether the process has one thread, which libstdc++ reads to save an atomic. It hasn't.
HIDDEN("__libc_single_threaded", ".rodata.floor" READABLE ".type __libc_single_threaded, %object\n.size __libc_single_threaded, 1\n", ".byte 0\n")
