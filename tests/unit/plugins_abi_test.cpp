// The layout of the plugin ABI, version 1. These numbers are a promise to plugins that exist: a
// field may be added at the end of a structure, and nothing here may change.
#include <cowbird/blockdev.h>
#include <cowbird/channel.h>
#include <cowbird/transport.h>

#include <catch2/catch.hpp>
#include <cstddef>

#define AT(type, field, offset) static_assert(offsetof(type, field) == (offset))

static_assert(COWBIRD_ABI_VERSION == 1);

AT(cowbird_plugin, magic, 0);
AT(cowbird_plugin, abi_version, 8);
AT(cowbird_plugin, struct_size, 12);
AT(cowbird_plugin, kind, 16);
AT(cowbird_plugin, key_size, 20);
AT(cowbird_plugin, name, 24);
AT(cowbird_plugin, version, 32);
AT(cowbird_plugin, ops, 40);
AT(cowbird_plugin, keys, 48);
AT(cowbird_plugin, key_count, 56);
AT(cowbird_plugin, description, 64);
AT(cowbird_plugin, capabilities, 88);
static_assert(sizeof(cowbird_plugin) >= 96);

AT(cowbird_key, type, 8);
AT(cowbird_key, default_value, 16);
AT(cowbird_key, min, 24);
AT(cowbird_key, choices, 40);
AT(cowbird_key, help, 48);
static_assert(sizeof(cowbird_key) >= 56);

AT(cowbird_host, host_version, 8);
AT(cowbird_host, log, 16);
AT(cowbird_host, set_error, 24);
AT(cowbird_host, config_string, 32);
AT(cowbird_host, config_mac, 64);
AT(cowbird_host, fd_add, 72);
AT(cowbird_host, fd_remove, 88);
AT(cowbird_host, signal_add, 96);
AT(cowbird_host, timer_add, 104);
AT(cowbird_host, now_ns, 136);
AT(cowbird_host, post, 144);
AT(cowbird_host, channel_notify, 152);
AT(cowbird_host, block_complete, 160);
AT(cowbird_host, block_resized, 168);
AT(cowbird_host, transport_notify, 176);
AT(cowbird_host, device_name, 184);

AT(cowbird_channel_ops, create, 8);
AT(cowbird_channel_ops, destroy, 16);
AT(cowbird_channel_ops, open, 24);
AT(cowbird_channel_ops, close, 32);
AT(cowbird_channel_ops, read, 40);
AT(cowbird_channel_ops, write, 48);
AT(cowbird_channel_ops, get_window, 56);
AT(cowbird_channel_ops, set_window, 64);
AT(cowbird_channel_ops, set_raw, 72);
AT(cowbird_channel_ops, describe, 80);
AT(cowbird_channel_ops, emergency_restore, 88);
AT(cowbird_channel_ops, set_break, 96);
AT(cowbird_channel_ops, unsent, 104);
static_assert(sizeof(cowbird_window) == 8);

AT(cowbird_block_ops, get_info, 24);
AT(cowbird_block_ops, submit, 32);
AT(cowbird_block_ops, describe, 40);
AT(cowbird_block_info, size, 8);
AT(cowbird_block_info, block_size, 16);
AT(cowbird_block_info, max_bytes, 24);
AT(cowbird_block_info, can_flush, 40);
AT(cowbird_block_request, operation, 4);
AT(cowbird_block_request, offset, 16);
AT(cowbird_block_request, length, 24);
AT(cowbird_block_request, iov, 32);
AT(cowbird_block_request, plugin_data, 40);

AT(cowbird_transport_ops, get_info, 40);
AT(cowbird_transport_ops, send, 48);
AT(cowbird_transport_ops, receive, 56);
AT(cowbird_transport_ops, set_features, 64);
AT(cowbird_frame, iov, 8);
AT(cowbird_frame, length, 16);
AT(cowbird_frame, offload, 24);
static_assert(sizeof(cowbird_net_header) == 12);
AT(cowbird_transport_info, mac, 16);
AT(cowbird_transport_info, features, 24);
AT(cowbird_receive_filter, addresses, 16);

TEST_CASE("the plugin ABI's layout is what plugins were built against") {
  SUCCEED("checked by the compiler");
}
