// Whom the kernel's own access to guest memory asks when it needs a frame and there is none. mm/
// lies below proc/, which has the OOM killer. Needs the big kernel lock.
#pragma once

namespace cowbird {

// `waiter` may sleep; true: try again. Without one, and for false, the access is Fault.
void set_memory_waiter(bool (*waiter)());

}  // namespace cowbird
