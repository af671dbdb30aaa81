/* Transports: move network frames, in batches, with the offload metadata of virtio-net.
 *
 * Life: create -> (open -> send, receive, ... -> close)* -> destroy; open and close follow the
 * guest's "ip link set up/down".
 *
 * Readiness is as in <cowbird/channel.h>: when send or receive takes fewer frames than offered, the
 * plugin owes the host one transport_notify with WRITABLE (or READABLE) as soon as a further call
 * would make progress.
 *
 * General rules (threads, errors, growth): <cowbird/plugin.h>.
 */
#ifndef COWBIRD_TRANSPORT_H
#define COWBIRD_TRANSPORT_H

#include <cowbird/plugin.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cowbird_plugin.capabilities: what the plugin may be able to do; get_info says what a device can.
 */
#define COWBIRD_TRANSPORT_CAP_BATCH_SEND (UINT64_C(1) << 0) /* many frames for one host call */
#define COWBIRD_TRANSPORT_CAP_BATCH_RECEIVE (UINT64_C(1) << 1)
#define COWBIRD_TRANSPORT_CAP_CHECKSUM                      \
  (UINT64_C(1) << 2) /* takes frames with partial checksums \
                      */
#define COWBIRD_TRANSPORT_CAP_SEGMENTATION               \
  (UINT64_C(1) << 3) /* takes frames larger than the MTU \
                      */
#define COWBIRD_TRANSPORT_CAP_RECEIVE_MERGED \
  (UINT64_C(1) << 4)                                     /* gives frames larger than the MTU */
#define COWBIRD_TRANSPORT_CAP_IP_ONLY (UINT64_C(1) << 5) /* frames have no Ethernet header */
#define COWBIRD_TRANSPORT_CAP_RECEIVE_ONLY (UINT64_C(1) << 6)
#define COWBIRD_TRANSPORT_CAP_NEEDS_NET_ADMIN (UINT64_C(1) << 16) /* host privilege, mostly */
#define COWBIRD_TRANSPORT_CAP_NEEDS_NET_RAW (UINT64_C(1) << 17)

/* cowbird_transport_info.features, and what set_features chooses of them. */
#define COWBIRD_NET_TX_CHECKSUM (UINT64_C(1) << 0) /* send takes NEEDS_CHECKSUM */
#define COWBIRD_NET_TX_TCP4 (UINT64_C(1) << 1)     /* send takes GSO_TCP4 */
#define COWBIRD_NET_TX_TCP6 (UINT64_C(1) << 2)
#define COWBIRD_NET_TX_UDP (UINT64_C(1) << 3) /* send takes GSO_UDP_L4 */
#define COWBIRD_NET_RX_CHECKSUM \
  (UINT64_C(1) << 8)                           /* receive may give NEEDS_CHECKSUM and DATA_VALID */
#define COWBIRD_NET_RX_TCP4 (UINT64_C(1) << 9) /* receive may give GSO_TCP4 */
#define COWBIRD_NET_RX_TCP6 (UINT64_C(1) << 10)
#define COWBIRD_NET_RX_UDP (UINT64_C(1) << 11)

/* transport_notify events */
#define COWBIRD_TRANSPORT_READABLE (1u << 0)
#define COWBIRD_TRANSPORT_WRITABLE (1u << 1)
#define COWBIRD_TRANSPORT_LINK (1u << 2) /* get_info would answer another link state or MTU */

/* The fields and values of virtio_net_hdr (virtio 1.2, 5.1.6), in host byte order. */
#define COWBIRD_NET_HDR_NEEDS_CHECKSUM \
  1u                                  /* checksum from csum_start on, to be put at csum_offset */
#define COWBIRD_NET_HDR_DATA_VALID 2u /* the checksum was verified */
#define COWBIRD_NET_GSO_NONE 0u
#define COWBIRD_NET_GSO_TCP4 1u
#define COWBIRD_NET_GSO_TCP6 4u
#define COWBIRD_NET_GSO_UDP_L4 5u
#define COWBIRD_NET_GSO_ECN 0x80u /* or-ed to a TCP one */

struct cowbird_net_header {
  uint8_t flags;     /* COWBIRD_NET_HDR_... */
  uint8_t gso_type;  /* COWBIRD_NET_GSO_... */
  uint16_t hdr_len;  /* bytes of headers; a hint */
  uint16_t gso_size; /* payload bytes of a segment */
  uint16_t csum_start;
  uint16_t csum_offset;
  uint16_t reserved; /* 0 */
};

/* One frame, in the host's memory, valid during the call. Arrays hold pointers, so that this can
 * grow. */
struct cowbird_frame {
  uint32_t struct_size;
  uint32_t iov_count;
  struct iovec *iov; /* send: the frame; receive: room for one */
  uint32_t length;   /* send: bytes of the frame; receive: set by the plugin */
  uint32_t flags;    /* 0 */
  struct cowbird_net_header
      offload; /* receive: set by the plugin, all zero when there is nothing to say */
};

struct cowbird_transport_info {
  uint32_t struct_size; /* set by the host before the call; the plugin fills no more than this */
  uint32_t link_up;     /* 0 or 1 */
  uint32_t mtu;         /* largest IP packet; 0: the host's choice */
  uint32_t has_mac; /* `mac` is to be the interface's address unless the machine file gives one */
  uint8_t mac[6];
  uint8_t reserved[2];
  uint64_t features;   /* COWBIRD_NET_... */
  uint32_t max_batch;  /* frames that one call can move at once; 0: no limit */
  uint32_t speed_mbit; /* 0: not known */
};

/* What the interface wants to receive. A transport that cannot filter gives everything. */
struct cowbird_receive_filter {
  uint32_t struct_size;
  uint32_t promiscuous;
  uint32_t all_multicast;
  uint32_t address_count;
  const uint8_t (*addresses)[6]; /* unicast and multicast; valid during the call */
};

struct cowbird_transport_ops {
  struct cowbird_ops_header
      header; /* { sizeof(struct cowbird_transport_ops), COWBIRD_KIND_TRANSPORT } */

  cowbird_create create;       /* required */
  void (*destroy)(void *self); /* required; the transport is closed */
  int (*open)(void *self);     /* required */
  void (*close)(void *self);   /* required */
  int (*get_info)(void *self, struct cowbird_transport_info *out); /* required */
  /* Required unless CAP_RECEIVE_ONLY. Number of frames taken, from the first on, possibly 0; frames
   * that cannot be sent for a reason of their own (too long) count as taken and are dropped.
   * Negative: the device failed. Frames are copied or sent before the call returns. */
  int (*send)(void *self, struct cowbird_frame *const *frames, uint32_t count);
  /* Required. Fills up to `count` frames; number filled, 0 when there is none now. Negative: the
   * device failed. A frame larger than its room is dropped and not counted. */
  int (*receive)(void *self, struct cowbird_frame *const *frames, uint32_t count);
  /* The oldest plugins end here. */

  /* May be null: no features are used. `features` is a subset of get_info's. */
  int (*set_features)(void *self, uint64_t features);
  /* May be null: nothing to do. */
  int (*set_filter)(void *self, const struct cowbird_receive_filter *filter);
  /* May be null: -EOPNOTSUPP; the interface then keeps get_info's MTU as its upper bound. */
  int (*set_mtu)(void *self, uint32_t mtu);
  cowbird_describe describe; /* may be null */
};

#ifdef __cplusplus
}
#endif
#endif
