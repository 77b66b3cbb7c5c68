#include "fault.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include <memory>

#include "block.h"
#include "checker.h"
#include "memory.h"

namespace cusim {

struct FaultGuard::State {
  stack_t signal_stack_before;
  struct sigaction segv_before, bus_before;
};

namespace {

constexpr size_t kSignalStack = 64 << 10, kReportStack = 256 << 10;

alignas(16) unsigned char signal_stack[kSignalStack];
alignas(16) unsigned char report_stack[kReportStack];
pthread_t launching;
const void* fault_address;
const void* fault_instruction;
struct sigaction previous;

// Runs on a stack of its own, because that of the fiber may be full.
void report_fault() {
  for (const Thread& thread : block.threads)
    if (overflowed(thread.fiber, fault_address)) fail("the stack of a CUDA thread is full", Site{});
  const bool ours = device_memory.space().contains(fault_address) || shared_memory.space().contains(fault_address);
  const std::string where = ours ? describe(fault_address, 1) : format("address %p, which is no memory of the device", fault_address);
  const std::string place = place_of(static_cast<const char*>(fault_instruction) + 1);
  // The emulator itself reads the source of a cp.async; that thread's site is the copy's.
  const bool of_a_copy = place.find("async_copy.cpp") != std::string::npos;
  fail("access outside of every buffer: " + where, of_a_copy ? block.running->waits.text() : place);
}

void on_fault(int signal, siginfo_t* info, void* context) {
  if (block.running == nullptr || pthread_equal(pthread_self(), launching) == 0) {
    sigaction(signal, &previous, nullptr);  // not ours: happens again, to whoever was here before
    return;
  }
  auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  fault_address = info->si_addr;
  fault_instruction = reinterpret_cast<const void*>(registers[REG_RIP]);
  registers[REG_RIP] = reinterpret_cast<greg_t>(report_fault);
  registers[REG_RSP] = reinterpret_cast<greg_t>(report_stack + kReportStack - 8);
}

}  // namespace

FaultGuard::FaultGuard() : state_(new State) {
  launching = pthread_self();
  stack_t own{};
  own.ss_sp = signal_stack;
  own.ss_size = kSignalStack;
  sigaltstack(&own, &state_->signal_stack_before);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &state_->segv_before);
  sigaction(SIGBUS, &action, &state_->bus_before);
  previous = state_->segv_before;
}

FaultGuard::~FaultGuard() {
  sigaction(SIGSEGV, &state_->segv_before, nullptr);
  sigaction(SIGBUS, &state_->bus_before, nullptr);
  sigaltstack(&state_->signal_stack_before, nullptr);
  delete state_;
}

}  // namespace cusim
