#include "sched/bkl.hpp"

#include "sched/internals.hpp"

namespace cowbird {

constinit Mutex big_kernel_lock{LockRank::BigKernel, "big kernel lock"};

void release_bkl_to_wait() {
  if (Vcpu *vcpu = this_vcpu()) call_for_help(*vcpu);
  big_kernel_lock.unlock();
}

void retake_bkl() { big_kernel_lock.lock(); }

BklReleased::BklReleased() { release_bkl_to_wait(); }

BklReleased::~BklReleased() { retake_bkl(); }

}  // namespace cowbird
