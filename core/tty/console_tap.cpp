#include "tty/console_tap.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "tty/tty_impl.hpp"

namespace cowbird {
namespace {

struct TapTable {
  std::vector<ConsoleTap *> taps;
  ConsoleObserver *observer = nullptr;
  std::map<std::string, std::function<void(std::string_view)>> makers;  // by prefix
};
TapTable &table() {
  static TapTable *const instance = new TapTable;
  return *instance;
}

}  // namespace

ConsoleTap::ConsoleTap(std::string name, Tty &tty) : name_(std::move(name)), tty_(tty) {}

bool ConsoleTap::active() const { return tty_.active; }

std::size_t ConsoleTap::type(std::span<const std::byte> bytes) {
  if (!tty_.active) return bytes.size();
  const std::size_t taken = std::min(bytes.size(), tty_.ldisc.input_room());
  if (taken > 0) tty_input(tty_, bytes.first(taken));
  wants_room_ = taken < bytes.size();
  return taken;
}

void ConsoleTap::set_window_size(std::uint16_t rows, std::uint16_t columns) {
  tty_set_window_size(tty_, rows, columns);
}

bool ConsoleTap::has_window_size(std::uint16_t rows, std::uint16_t columns) const {
  return tty_.window.rows == rows && tty_.window.columns == columns;
}

void ConsoleTap::restore_window_size() { tty_.port.restore_window_size(); }

void ConsoleTap::resume_output() { tty_port_writable(tty_); }

std::vector<std::byte> ConsoleTap::scrollback() const {
  std::vector<std::byte> bytes;
  bytes.reserve(ring_.size());
  const auto middle = ring_.begin() + static_cast<std::ptrdiff_t>(next_);
  bytes.insert(bytes.end(), middle, ring_.end());
  bytes.insert(bytes.end(), ring_.begin(), middle);
  return bytes;
}

std::size_t ConsoleTap::output_room() {
  ConsoleObserver *const observer = table().observer;
  return observer ? observer->output_room(*this) : SIZE_MAX;
}

void ConsoleTap::record(std::span<const std::byte> bytes) {
  keep(bytes);
  if (ConsoleObserver *const observer = table().observer) observer->output(*this, bytes);
}

void ConsoleTap::keep(std::span<const std::byte> bytes) {
  bytes = bytes.last(std::min(bytes.size(), kScrollback));
  const std::size_t grown = std::min(kScrollback - ring_.size(), bytes.size());
  ring_.insert(ring_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(grown));
  for (const std::byte byte : bytes.subspan(grown)) {
    ring_[next_] = byte;
    next_ = (next_ + 1) % kScrollback;
  }
}

void ConsoleTap::after_read() {
  if (!wants_room_ || tty_.ldisc.input_room() == 0) return;
  wants_room_ = false;
  if (ConsoleObserver *const observer = table().observer) observer->input_room(*this);
}

void ConsoleTap::window_changed(std::uint16_t rows, std::uint16_t columns) {
  if (ConsoleObserver *const observer = table().observer) {
    observer->window_size(*this, rows, columns);
  }
}

ConsoleTap &add_console_tap(std::string name, Tty &tty) {
  remove_console_tap(tty);
  if (const ConsoleTap *const other = find_console_tap(name)) remove_console_tap(other->tty_);
  tty.tap = std::make_unique<ConsoleTap>(std::move(name), tty);
  table().taps.push_back(tty.tap.get());
  return *tty.tap;
}

void remove_console_tap(Tty &tty) {
  if (!tty.tap) return;
  std::erase(table().taps, tty.tap.get());
  if (ConsoleObserver *const observer = table().observer) observer->removed(*tty.tap);
  tty.tap.reset();
}

void set_console_tap_maker(std::string prefix, std::function<void(std::string_view name)> make) {
  if (make) {
    table().makers[std::move(prefix)] = std::move(make);
  } else {
    table().makers.erase(prefix);
  }
}

ConsoleTap *find_or_make_console_tap(std::string_view name) {
  if (ConsoleTap *const tap = find_console_tap(name)) return tap;
  for (const auto &[prefix, make] : table().makers) {
    if (name.starts_with(prefix)) make(name);
  }
  return find_console_tap(name);
}

ConsoleTap *find_console_tap(std::string_view name) {
  const auto &taps = table().taps;
  const auto found =
      std::ranges::find_if(taps, [&](const auto *tap) { return tap->name() == name; });
  return found == taps.end() ? nullptr : *found;
}

void for_each_console_tap(const std::function<void(ConsoleTap &)> &function) {
  for (ConsoleTap *const tap : table().taps) function(*tap);
}

void set_console_observer(ConsoleObserver *observer) { table().observer = observer; }

}  // namespace cowbird
