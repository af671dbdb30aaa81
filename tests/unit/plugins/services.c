// A channel that uses the host's services as the written byte says:
//   't' a timer notifies READABLE after 1 ms      'p' a posted call notifies CONNECTED
//   'n' notifies HANGUP from inside write          'l' returns a count larger than offered
//   'w' watches a pipe, whose callback removes the watch, closes the pipe and notifies WINDOW
//   'f' leaves a watch and a timer behind
#include <cowbird/channel.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct services {
  const struct cowbird_host *host;
  struct cowbird_device *device;
  struct cowbird_timer *timer;
  struct cowbird_watch *watch;
  int pipe[2];
};

static void on_timer(void *user) {
  struct services *s = user;
  s->host->channel_notify(s->device, COWBIRD_CHANNEL_READABLE);
}
static void on_post(void *user) {
  struct services *s = user;
  s->host->channel_notify(s->device, COWBIRD_CHANNEL_CONNECTED);
}
static void on_pipe(void *user, uint32_t events) {
  struct services *s = user;
  if (!(events & COWBIRD_WATCH_READABLE)) abort();
  s->host->fd_remove(s->watch);
  s->watch = NULL;
  close(s->pipe[0]);
  close(s->pipe[1]);
  s->host->channel_notify(s->device, COWBIRD_CHANNEL_WINDOW);
}

static int create(const struct cowbird_host *host, struct cowbird_device *device,
                  const struct cowbird_config *config, void **out) {
  struct services *s = calloc(1, sizeof *s);
  (void)config;
  s->host = host;
  s->device = device;
  host->log(device, COWBIRD_LOG_NOTICE, "the services device is there");
  if (host->timer_add(device, on_timer, s, &s->timer) != 0) abort();
  *out = s;
  return 0;
}
static void destroy(void *self) {
  struct services *s = self;
  if (s->timer) s->host->timer_remove(s->timer);
  free(s);
}
static int open_services(void *self) {
  (void)self;
  return 0;
}
static void close_services(void *self) { (void)self; }
static int64_t read_nothing(void *self, void *buffer, size_t size) {
  (void)self;
  (void)buffer;
  (void)size;
  return -EAGAIN;
}
static int64_t write_order(void *self, const void *buffer, size_t size) {
  struct services *s = self;
  switch (*(const char *)buffer) {
    case 't':
      s->host->timer_arm(s->timer, 1000000);
      break;
    case 'p':
      if (s->host->post(s->device, on_post, s) != 0) abort();
      break;
    case 'n':
      s->host->channel_notify(s->device, COWBIRD_CHANNEL_HANGUP);
      break;
    case 'l':
      return (int64_t)size + 1;
    case 'w':
      if (pipe(s->pipe) != 0 || write(s->pipe[1], "x", 1) != 1) abort();
      return s->host->fd_add(s->device, s->pipe[0], COWBIRD_WATCH_READABLE, on_pipe, s,
                             &s->watch) == 0
                 ? 1
                 : -EIO;
    case 'f':
      s->timer = NULL;
      break;
  }
  return 1;
}

static const struct cowbird_channel_ops ops = {
    .header = {sizeof(struct cowbird_channel_ops), COWBIRD_KIND_CHANNEL},
    .create = create,
    .destroy = destroy,
    .open = open_services,
    .close = close_services,
    .read = read_nothing,
    .write = write_order,
};

COWBIRD_PLUGIN_EXPORT const struct cowbird_plugin cowbird_plugin_descriptor = {
    COWBIRD_PLUGIN_HEADER(COWBIRD_KIND_CHANNEL),
    .name = "services",
    .version = "1",
    .ops = &ops,
};
