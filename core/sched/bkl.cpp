#include "sched/bkl.hpp"

#include "sched/internals.hpp"

namespace cowbird {

constinit Mutex big_kernel_lock{LockRank::BigKernel, "big kernel lock"};

BklReleased::BklReleased() {
  if (Vcpu *vcpu = this_vcpu()) call_for_help(*vcpu);
  big_kernel_lock.unlock();
}

BklReleased::~BklReleased() { big_kernel_lock.lock(); }

}  // namespace cowbird
