// Waiting for memory, for the parts of proc/. Needs the big kernel lock.
#pragma once

namespace cowbird {

// For a task that needs a frame and gets none: kill_for_memory(), and a moment's sleep. False: it
// must do without, since it ends itself or nobody else can.
bool wait_for_memory();

}  // namespace cowbird
