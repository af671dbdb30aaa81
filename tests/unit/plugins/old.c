// A channel as the oldest headers had it: descriptor and function table end early. What lies behind
// them is garbage that the host must not look at.
#include <cowbird/channel.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

static int create(const struct cowbird_host *host, struct cowbird_device *device,
                  const struct cowbird_config *config, void **out) {
  static int self;
  (void)device;
  (void)config;
  if (host->struct_size < offsetof(struct cowbird_host, transport_notify)) return -EINVAL;
  *out = &self;
  return 0;
}
static void nothing(void *self) { (void)self; }
static int succeed(void *self) {
  (void)self;
  return 0;
}
static int64_t read_old(void *self, void *buffer, size_t size) {
  (void)self;
  memset(buffer, 'o', size);
  return (int64_t)size;
}
static int64_t write_old(void *self, const void *buffer, size_t size) {
  (void)self;
  (void)buffer;
  return (int64_t)size;
}

static struct {
  struct cowbird_ops_header header;
  cowbird_create create;
  void (*destroy)(void *);
  int (*open)(void *);
  void (*close)(void *);
  int64_t (*read)(void *, void *, size_t);
  int64_t (*write)(void *, const void *, size_t);
  uintptr_t garbage[8];
} const ops = {
    .header = {offsetof(struct cowbird_channel_ops, get_window), COWBIRD_KIND_CHANNEL},
    .create = create,
    .destroy = nothing,
    .open = succeed,
    .close = nothing,
    .read = read_old,
    .write = write_old,
    .garbage = {1, 2, 3, 4, 5, 6, 7, 8},
};

struct old_descriptor {
  uint64_t magic;
  uint32_t abi_version, struct_size, kind, key_size;
  const char *name, *version;
  const void *ops;
  const struct cowbird_key *keys;
  uint32_t key_count, reserved;
  uintptr_t garbage[4];
};
_Static_assert(offsetof(struct old_descriptor, garbage) ==
                   offsetof(struct cowbird_plugin, description),
               "the oldest descriptor ends where the header says");

COWBIRD_PLUGIN_EXPORT const struct old_descriptor cowbird_plugin_descriptor = {
    .magic = COWBIRD_PLUGIN_MAGIC,
    .abi_version = COWBIRD_ABI_VERSION,
    .struct_size = offsetof(struct old_descriptor, garbage),
    .kind = COWBIRD_KIND_CHANNEL,
    .name = "old",
    .version = "0.1",
    .ops = &ops,
    .garbage = {1, 2, 3, 4},
};
