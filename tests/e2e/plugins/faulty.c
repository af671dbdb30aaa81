/* A console channel for the tests of the debugger, and of them alone: it passes nothing on, and a
 * letter that the guest writes to it makes it fail in kernel code, as a plugin or the kernel itself
 * may: 's' writes through a null pointer, 'a' fails an assertion. */
#undef NDEBUG
#include <assert.h>
#include <cowbird/channel.h>
#include <errno.h>
#include <stdlib.h>

struct faulty {
  struct cowbird_device *device;
  int written; /* bytes so far */
};

static int create(const struct cowbird_host *host, struct cowbird_device *device,
                  const struct cowbird_config *config, void **out) {
  struct faulty *faulty = calloc(1, sizeof *faulty);
  (void)host;
  (void)config;
  if (!faulty) return -ENOMEM;
  faulty->device = device;
  *out = faulty;
  return 0;
}

static void destroy(void *self) { free(self); }

static int open_channel(void *self) {
  (void)self;
  return 0;
}

static void close_channel(void *self) { (void)self; }

static int64_t read_channel(void *self, void *buffer, size_t size) {
  (void)self;
  (void)buffer;
  (void)size;
  return -EAGAIN;
}

__attribute__((noinline)) static void fail_at(struct faulty *faulty, char letter) {
  volatile int *volatile nowhere = NULL;
  if (letter == 's') *nowhere = faulty->written;
  assert(letter != 'a');
}

static int64_t write_channel(void *self, const void *data, size_t size) {
  struct faulty *faulty = self;
  for (size_t i = 0; i < size; ++i) {
    ++faulty->written;
    fail_at(faulty, ((const char *)data)[i]);
  }
  return (int64_t)size;
}

static const struct cowbird_channel_ops ops = {
    .header = {sizeof(struct cowbird_channel_ops), COWBIRD_KIND_CHANNEL},
    .create = create,
    .destroy = destroy,
    .open = open_channel,
    .close = close_channel,
    .read = read_channel,
    .write = write_channel,
};

COWBIRD_PLUGIN_EXPORT const struct cowbird_plugin cowbird_plugin_descriptor = {
    COWBIRD_PLUGIN_HEADER(COWBIRD_KIND_CHANNEL),
    .name = "faulty",
    .version = "1.0",
    .ops = &ops,
    .description = "fails when it is told to",
    .license = "Apache-2.0",
};
