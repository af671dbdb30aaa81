// Signal queues and dispositions: what needs no task.
#include <algorithm>

#include "abi/signal.hpp"
#include "proc/signal.hpp"

namespace cowbird {
namespace {

constexpr SignalSet make_set(std::initializer_list<int> signals) {
  SignalSet set;
  for (const int signal : signals) set.add(signal);
  return set;
}

// Faults of the thread itself come before anything else, so that their handler sees the state of
// the fault.
constexpr SignalSet kSynchronous =
    make_set({kSigSegv, kSigBus, kSigIll, kSigTrap, kSigFpe, kSigSys});

int lowest(SignalSet set) { return __builtin_ctzll(set.bits()) + 1; }

}  // namespace

Ref<SignalHandlers> SignalHandlers::clone() const {
  auto copy = make_ref<SignalHandlers>();
  copy->actions = actions;
  return copy;
}

void SignalHandlers::reset_for_exec() {
  for (SignalAction &action : actions) {
    const bool ignored = action.handler == abi::kSIG_IGN;
    action = SignalAction{};
    if (ignored) action.handler = abi::kSIG_IGN;
  }
}

bool PendingSignals::add(const SignalInfo &info, std::size_t limit) {
  const bool standard = info.signal < kSigRtMin;
  if (standard && set_.has(info.signal)) return false;
  if (queue_.size() >= limit) {
    // A standard signal is never lost, only what it carries.
    if (standard) set_.add(info.signal);
    return false;
  }
  queue_.push_back(info);
  set_.add(info.signal);
  return true;
}

bool PendingSignals::take(SignalSet allowed, SignalInfo &info) {
  const SignalSet candidates = set_ & allowed;
  if (candidates.empty()) return false;
  const SignalSet urgent = candidates & kSynchronous;
  const int signal = lowest(urgent.empty() ? candidates : urgent);
  const auto matches = [signal](const SignalInfo &entry) { return entry.signal == signal; };
  const auto entry = std::find_if(queue_.begin(), queue_.end(), matches);
  if (entry == queue_.end()) {
    info = SignalInfo{};
    info.signal = signal;
    info.code = abi::kSI_USER;
    set_.remove(signal);
    return true;
  }
  info = *entry;
  const auto rest = queue_.erase(entry);
  if (std::none_of(rest, queue_.end(), matches)) set_.remove(signal);
  return true;
}

void PendingSignals::remove(SignalSet signals) {
  if ((set_ & signals).empty()) return;
  std::erase_if(queue_, [signals](const SignalInfo &entry) { return signals.has(entry.signal); });
  set_ = set_ & ~signals;
}

DefaultAction default_action(int signal) {
  switch (signal) {
    case kSigChld:
    case kSigUrg:
    case kSigWinch:
      return DefaultAction::Ignore;
    case kSigCont:
      return DefaultAction::Continue;
    case kSigStop:
    case kSigTstp:
    case kSigTtin:
    case kSigTtou:
      return DefaultAction::Stop;
    case kSigQuit:
    case kSigIll:
    case kSigTrap:
    case kSigAbrt:
    case kSigBus:
    case kSigFpe:
    case kSigSegv:
    case kSigXcpu:
    case kSigXfsz:
    case kSigSys:
      return DefaultAction::Core;
    default:
      return DefaultAction::Terminate;
  }
}

}  // namespace cowbird
