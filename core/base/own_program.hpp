// The program that this process runs and the words it was started with, to start it again or to
// read its file. The host's /proc knows both; in a chroot without one it is what main() has noted.
// Anybody may ask, from any thread.
#pragma once

#include <string>
#include <vector>

namespace cowbird {

// First thing in main(), while the working directory is the one that the program was started in.
void note_own_program(int argc, const char *const *argv);

// A name that opens and executes the program: "/proc/self/exe", which also finds one that was
// removed or replaced since, else the path it was started by. "" when nobody knows. The text stays.
// Safe in signal handlers.
const char *own_program();

// The absolute path, as people know it; "" when nobody knows.
std::string own_program_path();

// The words of the command line as they were at the start, the program's name first.
std::vector<std::string> own_words();

}  // namespace cowbird
