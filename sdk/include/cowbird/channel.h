/* Channels: the host side of a guest console or serial line, a pair of byte streams.
 *
 * Life: create -> (open -> read, write, ... -> close)* -> destroy. A channel may stay closed until
 * the guest opens the device, and is closed again when the guest's last user has gone. Nothing on
 * the host changes (terminal modes, listening sockets, ...) before `open`.
 *
 * Readiness: read and write never block. When one returns -EAGAIN, the plugin owes the host one
 * channel_notify with READABLE (or WRITABLE) as soon as a further call would make progress. More
 * notices than owed do no harm.
 *
 * In UML's syntax of settings ("port:9000") the argument is the value of the plugin's first key.
 *
 * General rules (threads, errors, growth): <cowbird/plugin.h>.
 */
#ifndef COWBIRD_CHANNEL_H
#define COWBIRD_CHANNEL_H

#include <cowbird/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cowbird_plugin.capabilities */
#define COWBIRD_CHANNEL_CAP_TERMINAL \
  (UINT64_C(1) << 0) /* may be a host terminal (raw mode, window size) */
#define COWBIRD_CHANNEL_CAP_REMOTE (UINT64_C(1) << 1) /* peers come and go while it is open */

/* channel_notify events */
#define COWBIRD_CHANNEL_READABLE (1u << 0) /* read has data or an end of file */
#define COWBIRD_CHANNEL_WRITABLE (1u << 1) /* write can take data */
/* The peer has gone: the guest's line sees a modem hang-up. The channel stays open, reads give what
 * is left and then end of file. */
#define COWBIRD_CHANNEL_HANGUP (1u << 2)
#define COWBIRD_CHANNEL_CONNECTED (1u << 3) /* a peer has come (again) */
#define COWBIRD_CHANNEL_WINDOW (1u << 4)    /* get_window would answer something new */
/* The peer has sent a break. Its place among the bytes is where the last read answered -EAGAIN. */
#define COWBIRD_CHANNEL_BREAK (1u << 5)

struct cowbird_window {
  uint16_t rows, columns;       /* in characters; 0: not known */
  uint16_t width_px, height_px; /* 0: not known */
};

struct cowbird_channel_ops {
  struct cowbird_ops_header
      header; /* { sizeof(struct cowbird_channel_ops), COWBIRD_KIND_CHANNEL } */

  cowbird_create create; /* required */
  /* Required. The channel is closed. Removes what it registered with the host. */
  void (*destroy)(void *self);

  /* Required. Takes the host's resources (terminal modes included). The host calls it at most once
   * before `close`. */
  int (*open)(void *self);
  /* Required. Gives everything back as it was before `open`. */
  void (*close)(void *self);
  /* Required. Up to `size` (> 0) bytes. > 0: count; 0: end of file, no data will come until the
   * channel is opened again or a CONNECTED notice; -EAGAIN: nothing now; else the error, which ends
   * the guest's read. */
  int64_t (*read)(void *self, void *buffer, size_t size);
  /* Required. > 0: bytes taken, may be fewer than `size` (> 0); -EAGAIN: none can be taken now;
   * -EPIPE: the peer has gone. */
  int64_t (*write)(void *self, const void *buffer, size_t size);
  /* The oldest plugins end here. */

  /* May be null: -ENOTTY. -ENOTTY also when the channel has no window (a pipe). */
  int (*get_window)(void *self, struct cowbird_window *out);
  /* May be null: -ENOTTY. Asks the peer to have this size. */
  int (*set_window)(void *self, const struct cowbird_window *window);
  /* May be null: nothing to do. raw != 0: the peer's terminal passes bytes through both ways
   * untouched (which is the state after `open`); raw == 0: as it was before `open`. -ENOTTY when it
   * is no terminal. */
  int (*set_raw)(void *self, int raw);
  /* May be null: the plugin's name is shown. A channel that knows more while it is open than its
   * configuration says begins with "NAME:", the plugin's name: "pts:/dev/pts/9". The management
   * console answers that in place of the configuration. */
  cowbird_describe describe;
  /* May be null. Puts host state that outlives the process (terminal modes, O_NONBLOCK) back, from
   * a crash handler: called at any moment from the call of `open` until `close` returns, on any
   * thread, even in the middle of another function of this channel, and only async-signal-safe
   * functions may be used. May be called more than once; `close` may still follow. */
  void (*emergency_restore)(void *self);
  /* May be null: -ENOTTY, the peer knows no break. on != 0: the line's break condition begins,
   * which a serial line shows as long as it lasts and telnet as one command; on == 0: it ends. */
  int (*set_break)(void *self, int on);
  /* May be null: 0. How many bytes that `write` has taken would be lost by a `close` now, since the
   * peer has not got them yet; 0 also when nobody can tell. Before the host closes a channel that
   * the guest has finished with, it asks again and again until it is 0, for some seconds. */
  int64_t (*unsent)(void *self);
};

#ifdef __cplusplus
}
#endif
#endif
