/* Block backends: answer read, write, flush, discard and write-zeroes on ranges of bytes.
 *
 * Life: create -> submit* -> destroy. `create` opens the backing store and fails when it is not
 * usable.
 *
 * Requests are asynchronous: `submit` starts them and returns; each is completed exactly once with
 * cowbird_host.block_complete, in any order, from any thread. The host splits requests by the
 * limits of get_info, never submits one beyond the end or not aligned to block_size, never a
 * changing one to a read-only device, and never one of an operation that get_info says is not
 * there. It destroys the device only when no request is under way.
 *
 * Order: requests that are under way at the same time may take effect in any order. A flush covers
 * every write that was completed before the flush was submitted.
 *
 * General rules (threads, errors, growth): <cowbird/plugin.h>.
 */
#ifndef COWBIRD_BLOCKDEV_H
#define COWBIRD_BLOCKDEV_H

#include <cowbird/plugin.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cowbird_plugin.capabilities */
#define COWBIRD_BLOCK_CAP_WRITE (UINT64_C(1) << 0)  /* can be writable */
#define COWBIRD_BLOCK_CAP_RESIZE (UINT64_C(1) << 1) /* reports a changed size while in use */

/* How an operation is offered. */
enum cowbird_support {
  COWBIRD_SUPPORT_NONE = 0,    /* not at all: the host answers the guest as Linux does without it */
  COWBIRD_SUPPORT_EMULATE = 1, /* the host emulates it (write_zeroes: by writing zeroes; flush:
                                  nothing to do, writes are durable when they complete) */
  COWBIRD_SUPPORT_NATIVE = 2   /* submit takes it */
};

struct cowbird_block_info {
  uint32_t struct_size;  /* set by the host before the call; the plugin fills no more than this */
  uint32_t read_only;    /* 0 or 1 */
  uint64_t size;         /* bytes, a multiple of block_size */
  uint32_t block_size;   /* 512..65536, power of two: alignment of offset and length */
  uint32_t preferred_io; /* bytes that are good to transfer at once; 0: not known */
  uint64_t max_bytes;    /* of one request; 0: no limit below 1 GiB */
  uint32_t max_iov;      /* buffers of one request; 0: 1024 */
  uint32_t queue_depth;  /* requests under way at a time; 0: no limit */
  uint32_t can_flush;    /* enum cowbird_support */
  uint32_t can_discard;
  uint32_t can_write_zeroes;
  uint32_t reserved;
};

enum cowbird_block_operation {
  COWBIRD_BLOCK_READ = 1,
  COWBIRD_BLOCK_WRITE = 2,
  COWBIRD_BLOCK_FLUSH = 3,       /* offset, length 0: all of the device */
  COWBIRD_BLOCK_DISCARD = 4,     /* contents become undefined, space may be given back */
  COWBIRD_BLOCK_WRITE_ZEROES = 5 /* reads give zeroes afterwards; space may be given back */
};

/* cowbird_block_request.flags */
#define COWBIRD_BLOCK_FUA (1u << 0)      /* WRITE, WRITE_ZEROES: durable when it completes */
#define COWBIRD_BLOCK_NO_UNMAP (1u << 1) /* WRITE_ZEROES: keep the space allocated */

/* The host's, valid and unchanged until completion; its address names it. */
struct cowbird_block_request {
  uint32_t struct_size;
  uint32_t
      operation; /* enum cowbird_block_operation; an unknown one is completed with -EOPNOTSUPP */
  uint32_t flags;
  uint32_t iov_count;
  uint64_t offset; /* bytes */
  uint64_t length; /* bytes; READ, WRITE: sum of the buffers, > 0 */
  const struct iovec
      *iov;          /* READ, WRITE; null otherwise. Buffers are the host's until completion. */
  void *plugin_data; /* for the plugin, null at submission */
};

struct cowbird_block_ops {
  struct cowbird_ops_header header; /* { sizeof(struct cowbird_block_ops), COWBIRD_KIND_BLOCK } */

  cowbird_create create; /* required */
  /* Required. Waits for no request (none is under way); closes the backing store. */
  void (*destroy)(void *self);
  /* Required. */
  int (*get_info)(void *self, struct cowbird_block_info *out);
  /* Required. `count` >= 1 requests; the array is gone when the call returns, the requests are not.
   * Failures are reported by completing the request, so there is no result. */
  void (*submit)(void *self, struct cowbird_block_request *const *requests, uint32_t count);
  /* The oldest plugins end here. */

  /* May be null: the plugin's name is shown. */
  cowbird_describe describe;
};

#ifdef __cplusplus
}
#endif
#endif
