// A channel with keys of every type; `create` checks that it gets what the test configures, and
// says in set_error what it got.
#include <cowbird/channel.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

static int create(const struct cowbird_host *host, struct cowbird_device *device,
                  const struct cowbird_config *config, void **out) {
  const char *text = "", *word = "", *path = "", *address = "", *unset = "unset";
  int64_t number = 0, wrong = 0;
  uint64_t size = 0;
  int flag = 0;
  uint8_t mac[6] = {0};
  char sentence[512];
  (void)out;
  host->config_string(config, "text", &text);
  host->config_string(config, "mode", &word);
  host->config_string(config, "path", &path);
  host->config_string(config, "address", &address);
  host->config_int(config, "number", &number);
  host->config_size(config, "size", &size);
  host->config_bool(config, "flag", &flag);
  host->config_mac(config, "mac", mac);
  const int optional = host->config_string(config, "optional", &unset);
  const int mistyped = host->config_int(config, "text", &wrong);
  const int unknown = host->config_int(config, "nonsense", &wrong);
  snprintf(sentence, sizeof sentence,
           "%s %s %s %s %" PRId64 " %" PRIu64 " %d %02x%02x%02x%02x%02x%02x %s %d %d %d", text,
           word, path, address, number, size, flag, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5],
           unset, optional == -ENOENT, mistyped == -EINVAL, unknown == -EINVAL);
  host->set_error(device, sentence);
  return -EPERM;
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
static int64_t write_nothing(void *self, const void *buffer, size_t size) {
  (void)self;
  (void)buffer;
  return (int64_t)size;
}

static const struct cowbird_channel_ops ops = {
    .header = {sizeof(struct cowbird_channel_ops), COWBIRD_KIND_CHANNEL},
    .create = create,
    .destroy = nothing,
    .open = succeed,
    .close = nothing,
    .read = read_nothing,
    .write = write_nothing,
};

static const struct cowbird_key keys[] = {
    {"text", COWBIRD_KEY_STRING, 0, "hello", 0, 0, NULL, "some text"},
    {"flag", COWBIRD_KEY_BOOL, 0, "false", 0, 0, NULL, NULL},
    {"number", COWBIRD_KEY_INT, COWBIRD_KEY_HAS_RANGE, "-5", -10, 10, NULL, NULL},
    {"size", COWBIRD_KEY_SIZE, COWBIRD_KEY_HAS_RANGE, "1M", 4096, INT64_C(1) << 40, NULL, NULL},
    {"mode", COWBIRD_KEY_ENUM, 0, "listen", 0, 0, "listen|connect", NULL},
    {"path", COWBIRD_KEY_PATH, COWBIRD_KEY_REQUIRED, NULL, 0, 0, NULL, "where it is"},
    {"mac", COWBIRD_KEY_MAC, 0, "FE:fd:0a:00:00:02", 0, 0, NULL, NULL},
    {"address", COWBIRD_KEY_ADDRESS, 0, "localhost:80", 0, 0, NULL, NULL},
    {"optional", COWBIRD_KEY_STRING, 0, NULL, 0, 0, NULL, NULL},
};

COWBIRD_PLUGIN_EXPORT const struct cowbird_plugin cowbird_plugin_descriptor = {
    COWBIRD_PLUGIN_HEADER(COWBIRD_KIND_CHANNEL),
    .name = "schema",
    .version = "2.1",
    .ops = &ops,
    .keys = keys,
    .key_count = sizeof keys / sizeof keys[0],
    .description = "keys of every type",
    .license = "Apache-2.0",
    .url = "https://example.org/schema",
    .capabilities = COWBIRD_CHANNEL_CAP_REMOTE,
};
