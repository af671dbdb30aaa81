// cowbird-xterm-helper SOCKET: runs in the window of a terminal emulator that the plugin `xterm`
// started, gives the plugin the window's terminal, and stays, which keeps the window open, until
// the plugin closes the socket.
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "xterm/rendezvous.hpp"

namespace {

int connect_to(const char *path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  std::strcpy(address.sun_path, path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0)
    return -1;
  return fd;
}

bool send_terminal(int socket) {
  char here = channels::kHere;
  iovec data{&here, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr *const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int terminal = STDIN_FILENO;
  std::memcpy(CMSG_DATA(header), &terminal, sizeof terminal);
  return sendmsg(socket, &message, MSG_NOSIGNAL) == 1;
}

// Until the plugin has closed the socket.
void serve(int socket, int signals) {
  for (;;) {
    pollfd polled[] = {{socket, POLLIN, 0}, {signals, POLLIN, 0}};
    if (poll(polled, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    signalfd_siginfo info;
    if (polled[1].revents && read(signals, &info, sizeof info) > 0 &&
        send(socket, &channels::kResized, 1, MSG_NOSIGNAL) != 1)
      return;
    char byte;
    if (polled[0].revents && recv(socket, &byte, 1, 0) <= 0) return;
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2 || !isatty(STDIN_FILENO)) {
    std::fprintf(stderr, "%s is started by Cowbird's console plugin \"xterm\", in a terminal.\n",
                 channels::kHelperName);
    return 2;
  }
  sigset_t window;
  sigemptyset(&window);
  sigaddset(&window, SIGWINCH);
  sigprocmask(SIG_BLOCK, &window, nullptr);
  // The guest's program gets the keys; but the terminal may not be raw yet.
  signal(SIGINT, SIG_IGN);
  signal(SIGQUIT, SIG_IGN);
  signal(SIGTSTP, SIG_IGN);
  const int signals = signalfd(-1, &window, SFD_CLOEXEC);
  const int socket = connect_to(argv[1]);
  if (signals < 0 || socket < 0 || !send_terminal(socket)) {
    std::fprintf(stderr, "The guest cannot be reached at %s: %s.\n", argv[1], std::strerror(errno));
    return 1;
  }
  serve(socket, signals);
  return 0;
}
