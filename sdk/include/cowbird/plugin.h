/* Cowbird plugin ABI: what every plugin exports and what the host gives to every plugin.
 *
 * A plugin is a shared object with ONE exported symbol, the constant data object
 * `cowbird_plugin_descriptor` of type `struct cowbird_plugin`. The host reads it from the file
 * without running any code of the plugin (so it must be initialised by the compiler and the linker,
 * never at run time), checks it, and loads the library only when a device of it is created.
 *
 * The promise: a plugin built against an older version of these headers works with a newer host.
 *   - Structures only grow at their end. Each starts with (or contains) its size as the writer knew
 *     it; the reader treats what lies behind that size as zero.
 *   - A null function pointer in a table means "not offered"; the text at each function says
 * whether that is allowed and what the host does instead.
 *   - COWBIRD_ABI_VERSION changes only when the promise has to be broken; the host then refuses the
 *     plugin and prints both numbers.
 *   - Enumerators and flag bits keep their value forever. A receiver ignores flag bits that it does
 *     not know unless the text says otherwise.
 *
 * Status codes: functions that return `int` or `int64_t` return 0 or a count on success and a
 * negative Linux x86-64 errno (-EIO, -EAGAIN, ...) on failure. A plugin should call
 * cowbird_host.set_error with a full sentence before it returns a failure from `create` or `open`;
 * people see that sentence.
 *
 * Threads: the host calls the functions of one device one at a time (the device is serialised by
 * the host), but not always from the same host thread; functions of different devices may run at
 * the same time only on hosts that say so, so static data of a plugin needs its own locking. A
 * function must not block: what takes long is done on a thread of the plugin's own or with
 * asynchronous I/O, and reported through the host's notify and completion services, which may be
 * called from any thread. Functions of the host that are not marked "any thread" may be called only
 * from inside a call that the host made to this device. Threads that a plugin starts must block all
 * signals. The host process ignores SIGPIPE. Nothing may be thrown through a function of these
 * tables.
 *
 * This file is C11 and C++17. C++ authors will prefer <cowbird/plugin.hpp>.
 */
#ifndef COWBIRD_PLUGIN_H
#define COWBIRD_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "CWBPLUGN" as it lies in the file. */
#define COWBIRD_PLUGIN_MAGIC UINT64_C(0x4e47554c50425743)
#define COWBIRD_ABI_VERSION 1u
#define COWBIRD_PLUGIN_SYMBOL "cowbird_plugin_descriptor"

/* Put before the definition of cowbird_plugin_descriptor, the only symbol that has to be visible.
 */
#ifdef __cplusplus
#define COWBIRD_PLUGIN_EXPORT extern "C" __attribute__((visibility("default"), used))
#else
#define COWBIRD_PLUGIN_EXPORT __attribute__((visibility("default"), used))
#endif

/* What a plugin is. Numbers are fixed; there are gaps for kinds between. */
enum cowbird_kind {
  COWBIRD_KIND_TRANSPORT = 100, /* moves network frames: <cowbird/transport.h> */
  COWBIRD_KIND_BLOCK = 200,     /* answers block requests: <cowbird/blockdev.h> */
  COWBIRD_KIND_CHANNEL = 300    /* the host side of a console: <cowbird/channel.h> */
};

/* --- The keys of a plugin's configuration table ------------------------------------------------
 */

enum cowbird_key_type {
  COWBIRD_KEY_STRING = 1, /* any text */
  COWBIRD_KEY_BOOL = 2,   /* true, false (in text also: 1, 0, yes, no, on, off) */
  COWBIRD_KEY_INT = 3,    /* signed 64-bit integer */
  COWBIRD_KEY_SIZE =
      4, /* bytes; an integer, or text with the suffix K, M, G or T (powers of 1024) */
  COWBIRD_KEY_ENUM = 5, /* one of `choices` */
  COWBIRD_KEY_PATH =
      6, /* a path on the host; the host makes relative ones relative to the machine file */
  COWBIRD_KEY_MAC = 7,    /* an Ethernet address, aa:bb:cc:dd:ee:ff; the plugin gets lower case */
  COWBIRD_KEY_ADDRESS = 8 /* HOST:PORT, [IPV6]:PORT, or unix:/path */
};

/* cowbird_key.flags */
#define COWBIRD_KEY_REQUIRED (1u << 0)  /* an error when it is not given; has no default */
#define COWBIRD_KEY_HAS_RANGE (1u << 1) /* `min` and `max` hold (INT: value, SIZE: bytes) */

/* One key. The array of keys has the stride cowbird_plugin.key_size, so that this can grow. */
struct cowbird_key {
  /* Letters, digits, '-' and '_'; starts with a letter; unique in the plugin. "name" and "plugin"
   * belong to the machine file and are refused. */
  const char *name;
  uint32_t type; /* enum cowbird_key_type */
  uint32_t flags;
  /* The value used when the key is not given, written as in the machine file; null: none, the
   * getters then answer -ENOENT. Must satisfy the key's own type and range. */
  const char *default_value;
  int64_t min;
  int64_t max;
  const char *choices; /* ENUM: the allowed words, separated by '|'; null otherwise */
  const char *help;    /* one line for people; may be null */
};

/* --- The descriptor -----------------------------------------------------------------------------
 */

/* Every function table starts with these two fields. */
struct cowbird_ops_header {
  uint32_t struct_size; /* sizeof the table as the plugin knows it */
  uint32_t kind;        /* enum cowbird_kind; equal to the descriptor's */
};

struct cowbird_plugin {
  uint64_t magic;       /* COWBIRD_PLUGIN_MAGIC */
  uint32_t abi_version; /* COWBIRD_ABI_VERSION */
  uint32_t struct_size; /* sizeof(struct cowbird_plugin) */
  uint32_t kind;        /* enum cowbird_kind */
  uint32_t key_size;    /* sizeof(struct cowbird_key) */
  /* The name used in machine files; the file is NAME.so. Same characters as a key's name. */
  const char *name;
  const char *version; /* the plugin's own version, for people */
  /* struct cowbird_channel_ops, cowbird_block_ops or cowbird_transport_ops, as `kind` says. */
  const void *ops;
  const struct cowbird_key *keys; /* null when key_count is 0 */
  uint32_t key_count;             /* at most 256 */
  uint32_t reserved;              /* 0 */
  /* The oldest plugins end here. What follows may be missing, by struct_size, or null. */
  const char *description; /* one line */
  const char *license;     /* SPDX expression */
  const char *url;         /* where bugs are reported */
  uint64_t capabilities;   /* bits of the kind's header, COWBIRD_CHANNEL_CAP_... and so on */
};

/* The fixed fields of the descriptor, for a designated initialiser:
 *   COWBIRD_PLUGIN_EXPORT const struct cowbird_plugin cowbird_plugin_descriptor = {
 *       COWBIRD_PLUGIN_HEADER(COWBIRD_KIND_CHANNEL), .name = "mine", .version = "1", .ops = &ops };
 */
#define COWBIRD_PLUGIN_HEADER(the_kind)                                       \
  .magic = COWBIRD_PLUGIN_MAGIC, .abi_version = COWBIRD_ABI_VERSION,          \
  .struct_size = sizeof(struct cowbird_plugin), .kind = (uint32_t)(the_kind), \
  .key_size = sizeof(struct cowbird_key)

/* --- What the host gives ------------------------------------------------------------------------
 */

struct cowbird_device; /* the host's side of one device; passed back in every service call */
struct cowbird_config; /* a device's checked configuration, defaults filled in */
struct cowbird_watch;  /* a watched file descriptor or signal */
struct cowbird_timer;
struct cowbird_block_request; /* <cowbird/blockdev.h> */

/* Levels of syslog(3). */
enum cowbird_log_level {
  COWBIRD_LOG_ERROR = 3,
  COWBIRD_LOG_WARNING = 4,
  COWBIRD_LOG_NOTICE = 5,
  COWBIRD_LOG_INFO = 6,
  COWBIRD_LOG_DEBUG = 7
};

/* Events of a watched descriptor, the values of poll(2) and epoll(7). Level-triggered: the callback
 * is called again until the cause is gone or the watch is modified. ERROR and HANGUP are always
 * reported. */
#define COWBIRD_WATCH_READABLE 0x001u
#define COWBIRD_WATCH_WRITABLE 0x004u
#define COWBIRD_WATCH_ERROR 0x008u
#define COWBIRD_WATCH_HANGUP 0x010u
/* The peer of a stream socket sends no more; what it has sent may still be unread. */
#define COWBIRD_WATCH_PEER_CLOSED 0x2000u

/* Host signals that a device can ask for; see cowbird_host.signal_add. */
enum cowbird_host_signal {
  COWBIRD_SIGNAL_WINDOW = 1,   /* SIGWINCH: the host terminal's size may have changed */
  COWBIRD_SIGNAL_CONTINUED = 2 /* SIGCONT: the process goes on after it was stopped */
};

/* Callbacks run on the host's event thread, serialised with all other calls to the same device. */
typedef void (*cowbird_fd_callback)(void *user, uint32_t events);
typedef void (*cowbird_callback)(void *user);

/* The host's services. One table per process, valid as long as the plugin is loaded. A newer plugin
 * on an older host tests `struct_size` before it uses a service that was added later. */
struct cowbird_host {
  uint32_t struct_size;
  uint32_t abi_version;
  const char *host_version; /* for people and logs */

  /* Writes to the guest's kernel log, prefixed with the device's name. Any thread. `text` is
   * copied; long text is cut at 900 bytes. */
  void (*log)(struct cowbird_device *device, int level, const char *text);
  /* The sentence that explains the failure which the current call is about to return. Copied; the
   * last one wins; forgotten when the call succeeds. */
  void (*set_error)(struct cowbird_device *device, const char *text);

  /* Configuration. 0 and the value; -ENOENT when the key was not given and has no default (`out` is
   * untouched); -EINVAL when the plugin's schema has no such key or it is of another type. Only
   * during `create`; strings live as long as the device. config_string serves STRING, ENUM, PATH,
   * MAC and ADDRESS. */
  int (*config_string)(const struct cowbird_config *config, const char *key, const char **out);
  int (*config_int)(const struct cowbird_config *config, const char *key, int64_t *out);
  int (*config_size)(const struct cowbird_config *config, const char *key, uint64_t *out);
  int (*config_bool)(const struct cowbird_config *config, const char *key, int *out);
  int (*config_mac)(const struct cowbird_config *config, const char *key, uint8_t out[6]);

  /* Watches a descriptor. It stays the plugin's, which removes the watch before it closes the
   * descriptor. -EPERM when the descriptor cannot be polled (a regular file), which is then always
   * ready; -EEXIST when it is watched already. After fd_remove returns, the callback does not run
   * any more; fd_remove may be called inside the callback. `events` may be 0. */
  int (*fd_add)(struct cowbird_device *device, int fd, uint32_t events,
                cowbird_fd_callback callback, void *user, struct cowbird_watch **out);
  int (*fd_modify)(struct cowbird_watch *watch, uint32_t events);
  void (*fd_remove)(struct cowbird_watch *watch);

  /* Calls back each time the signal arrived (several arrivals may become one call). Removed with
   * fd_remove. */
  int (*signal_add)(struct cowbird_device *device, uint32_t signal, cowbird_callback callback,
                    void *user, struct cowbird_watch **out);

  /* Timers and time on the guest's monotonic clock, which stands still while the guest is stopped.
   * A timer fires once for each arming; arming again moves it. */
  int (*timer_add)(struct cowbird_device *device, cowbird_callback callback, void *user,
                   struct cowbird_timer **out);
  void (*timer_arm)(struct cowbird_timer *timer, int64_t delay_ns);
  void (*timer_cancel)(struct cowbird_timer *timer);
  void (*timer_remove)(struct cowbird_timer *timer);
  int64_t (*now_ns)(struct cowbird_device *device); /* any thread */

  /* Runs the callback soon on the event thread. Any thread. Calls that are still waiting when the
   * device is destroyed are dropped. -ENODEV once the device is being destroyed. */
  int (*post)(struct cowbird_device *device, cowbird_callback callback, void *user);

  /* Channels: something happened (COWBIRD_CHANNEL_... events). Any thread. */
  void (*channel_notify)(struct cowbird_device *device, uint32_t events);
  /* Block backends: the request is done, with 0 or a negative errno. Any thread, exactly once for
   * each request, also from inside `submit`. */
  void (*block_complete)(struct cowbird_device *device, struct cowbird_block_request *request,
                         int status);
  /* Block backends: the size has changed; the host asks get_info again. Any thread. */
  void (*block_resized)(struct cowbird_device *device);
  /* Transports: something happened (COWBIRD_TRANSPORT_... events). Any thread. */
  void (*transport_notify)(struct cowbird_device *device, uint32_t events);
  /* The oldest hosts end here. */

  /* The device's name in the machine file ("con1"). Lives as long as the device. Any thread. */
  const char *(*device_name)(struct cowbird_device *device);
};

/* `create` of every kind. Checks the configuration, allocates the device's state and stores it in
 * *out; takes no host resource that another device could need exclusively before `open`, where the
 * kind has one. Nothing may be created when it fails. `host` and `device` stay valid until
 * `destroy` returns; `config` until `create` returns. */
typedef int (*cowbird_create)(const struct cowbird_host *host, struct cowbird_device *device,
                              const struct cowbird_config *config, void **out);

/* `describe` of every kind: what the device is now, one line for people ("host terminal on
 * descriptors 0 and 1"), NUL-terminated and cut at `size`. */
typedef void (*cowbird_describe)(void *self, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
