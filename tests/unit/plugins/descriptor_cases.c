// A channel plugin with one thing wrong, chosen by a CASE_ macro; without one it is good.
#include <cowbird/channel.h>
#include <errno.h>
#include <stddef.h>

#ifdef CASE_UNRESOLVED
int a_function_that_nobody_defines(void);
#endif

static int create(const struct cowbird_host *host, struct cowbird_device *device,
                  const struct cowbird_config *config, void **out) {
  (void)host;
  (void)device;
  (void)config;
  *out = (void *)1;
#ifdef CASE_UNRESOLVED
  return a_function_that_nobody_defines();
#else
  return 0;
#endif
}
static void nothing(void *self) { (void)self; }
static int succeed(void *self) {
  (void)self;
  return 0;
}
static int64_t read_nothing(void *self, void *buffer, size_t size) {
  (void)self;
  (void)buffer;
  (void)size;
  return 0;
}
__attribute__((unused)) static int64_t write_nothing(void *self, const void *buffer, size_t size) {
  (void)self;
  (void)buffer;
  return (int64_t)size;
}

#ifdef CASE_SMALL_OPS
#define OPS_SIZE offsetof(struct cowbird_channel_ops, write)
#else
#define OPS_SIZE sizeof(struct cowbird_channel_ops)
#endif
#ifdef CASE_OTHER_OPS_KIND
#define OPS_KIND COWBIRD_KIND_BLOCK
#else
#define OPS_KIND COWBIRD_KIND_CHANNEL
#endif

__attribute__((unused)) static const struct cowbird_channel_ops ops = {
    .header = {OPS_SIZE, OPS_KIND},
    .create = create,
    .destroy = nothing,
    .open = succeed,
    .close = nothing,
    .read = read_nothing,
#ifndef CASE_MISSING_FUNCTION
    .write = write_nothing,
#endif
};

static const struct cowbird_key keys[] = {
    {"first", COWBIRD_KEY_INT, 0, "1", 0, 0, NULL, "the first"},
#if defined(CASE_BAD_KEY_TYPE)
    {"second", 77, 0, NULL, 0, 0, NULL, NULL},
#elif defined(CASE_DUPLICATE_KEY)
    {"first", COWBIRD_KEY_STRING, 0, NULL, 0, 0, NULL, NULL},
#elif defined(CASE_RESERVED_KEY)
    {"plugin", COWBIRD_KEY_STRING, 0, NULL, 0, 0, NULL, NULL},
#elif defined(CASE_BAD_DEFAULT)
    {"second", COWBIRD_KEY_SIZE, 0, "plenty", 0, 0, NULL, NULL},
#elif defined(CASE_NO_CHOICES)
    {"second", COWBIRD_KEY_ENUM, 0, NULL, 0, 0, NULL, NULL},
#endif
};

COWBIRD_PLUGIN_EXPORT const struct cowbird_plugin cowbird_plugin_descriptor = {
#ifdef CASE_BAD_MAGIC
    .magic = 1,
#else
    .magic = COWBIRD_PLUGIN_MAGIC,
#endif
#ifdef CASE_OTHER_ABI
    .abi_version = 99,
#else
    .abi_version = COWBIRD_ABI_VERSION,
#endif
#ifdef CASE_SMALL_SIZE
    .struct_size = 16,
#else
    .struct_size = sizeof(struct cowbird_plugin),
#endif
#ifdef CASE_BAD_KIND
    .kind = 12345,
#else
    .kind = COWBIRD_KIND_CHANNEL,
#endif
    .key_size = sizeof(struct cowbird_key),
#ifdef CASE_OTHER_NAME
    .name = "somebody_else",
#else
    .name = PLUGIN_NAME,
#endif
    .version = "1.0",
#ifndef CASE_NO_OPS
    .ops = &ops,
#endif
    .keys = keys,
    .key_count = sizeof keys / sizeof keys[0],
    .description = "a plugin of the tests",
    .license = "Apache-2.0",
};
