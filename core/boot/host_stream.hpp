// HostStream: a descriptor of the host process as a file of the guest: what `cowbird run` gives its
// program as standard input, output and error when they are no terminals. Bytes pass unchanged; the
// guest sees neither a terminal nor the host's file. For boot/ only. Needs the big kernel lock.
#pragma once

#include "base/result.hpp"
#include "vfs/file.hpp"

namespace cowbird {

// `host_fd` stays open for the life of the process; `flags` is O_RDONLY or O_WRONLY.
Result<Ref<File>> make_host_stream(int host_fd, std::uint32_t flags);

}  // namespace cowbird
