// The drivers of consoles (con0 ... = /dev/tty0 ...) and serial lines (ssl0 ... = /dev/ttyS0 ...):
// two devices of one kind. They know every line's setting, also of those that nobody has named,
// make the lines (tty/line.hpp) and their device nodes, and serve their device numbers. Made by
// boot/, then owned by the DeviceRegistry.
//
// Big kernel lock; configure(), remove(), add() and register_devices() may sleep.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "devices/device_host.hpp"
#include "devices/device_registry.hpp"
#include "machine/machine_config.hpp"
#include "machine/plugin_catalog.hpp"
#include "sched/wait.hpp"
#include "tty/line.hpp"
#include "vfs/types.hpp"

namespace cowbird {

class LineDriver final : public DeviceDriver {
 public:
  // Of the 2^20 minor numbers of a major, the first ones are where Linux has them (major 4); the
  // others have a major of the range that is for local use.
  struct Kind {
    std::string_view prefix;    // "con"
    std::string_view node;      // "tty"
    std::string_view title;     // "console"
    std::uint32_t first_minor;  // of major 4
    std::uint32_t minors;
    std::uint32_t more_major;
  };
  static const Kind kConsoles;
  static const Kind kSerials;

  LineDriver(const Kind &kind, DeviceHost host);
  ~LineDriver() override;

  // Of the machine file. False and a sentence when the line cannot be made.
  bool add(const LineConfig &config, std::string &error);
  // The numbers and the nodes in /dev; once, after devtmpfs is there.
  Result<void> register_devices();

  // Waits until what the guest has written is with those who read the lines, for all of them until
  // this time of the guest's monotonic clock. Sleeps.
  void drain(std::int64_t deadline_ns);
  // All lines go; the guest runs no more. Does not sleep.
  void shut_down();

  // Null when the line has no channel; a line that only has the setting for all is made.
  TtyLine *line(std::uint32_t unit, std::string &error);
  // con0, or else the first line that there is.
  TtyLine *first_line(std::string &error);
  void for_each_line(const std::function<void(const std::string &name, TtyLine &line)> &function);

  // DeviceDriver
  std::string_view prefix() const override { return kind_.prefix; }
  std::string_view syntax() const override { return syntax_; }
  DeviceReply configure(std::string_view unit, std::string_view setting) override;
  DeviceReply query(std::string_view unit) override;
  DeviceReply remove(std::string_view unit) override;
  void for_each(const std::function<void(const DeviceStatus &)> &function) override;

 private:
  struct Entry {
    LineSetting setting;
    std::unique_ptr<TtyLine> line;  // null: no channel
  };
  // Where Linux has nodes of lines that nobody has named.
  static constexpr std::uint32_t kDefaultNodes = 64;

  std::string name_of(std::uint32_t unit) const;
  std::string node_of(std::uint32_t unit) const;
  DeviceNumber number_of(std::uint32_t unit) const;
  std::optional<std::uint32_t> unit_of(DeviceNumber number) const;
  std::string bad_unit(std::string_view unit) const;

  // Null and an empty error when the setting is none.
  std::unique_ptr<TtyLine> make_line(std::uint32_t unit, const LineSetting &setting,
                                     std::string &error);
  bool make_side(const std::string &name, const PluginSetting &setting, LineSide &side,
                 std::string &error);
  bool can_be_made(const LineSetting &setting, std::string &error);
  DeviceReply configure_default(std::string_view setting);
  std::string setting_now(const Entry &entry);
  Result<Ref<File>> open(DeviceNumber number, std::uint32_t flags);
  void add_node(std::uint32_t unit);
  void add_default_nodes();
  void drop_node(std::uint32_t unit);

  const Kind &kind_;
  const std::string syntax_;
  const DeviceHost host_;
  SharedCatalog catalog_;
  std::map<std::uint32_t, Entry> lines_;
  std::optional<LineSetting> default_;  // of lines that are not in lines_
  std::set<std::uint32_t> nodes_;
  bool registered_ = false;
  SleepMutex changing_{"line_config"};  // one change of settings and nodes at a time
};

}  // namespace cowbird
