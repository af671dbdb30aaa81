// StubContext: the stub engine's Context: one guest thread, run by one host thread of a stub
// process, spoken to through its mailbox. See engine/stub_protocol.hpp for the hand-over.
//
// Nothing that the mailbox says is believed: locations are checked to lie inside the mailbox, and
// what is used twice is copied first. A guest thread that forges its own or its sibling's mailbox
// gets nonsense for itself.
#pragma once

#include <atomic>
#include <string>

#include "engine/deaf_watch.hpp"
#include "engine/placement.hpp"
#include "engine/platform.hpp"
#include "engine/spin_governor.hpp"
#include "engine/stub_space.hpp"

namespace cowbird {

class StubContext final : public Context {
 public:
  static Result<std::unique_ptr<StubContext>> create(StubSpace &space);
  ~StubContext() override;

  Trap run() override;
  void interrupt() override;
  void park() override;
  std::size_t get_xstate(std::span<std::byte> out) override;
  Result<void> set_xstate(std::span<const std::byte> in) override;
  void reset_xstate() override;

 private:
  StubContext(StubSpace &space, unsigned slot);

  Result<void> make_thread();
  void write_frame();
  void place(SyncPoint point);
  void resume(SyncPoint point);
  // False: the stub is dead.
  bool wait_for_trap(SyncPoint point);
  bool sleep_for_trap(SyncPoint point);
  Trap read_trap();
  bool trapped() const;
  void set_active(bool active);
  stub::HostFrame &frame() const;
  // Kills the stub when a guest thread has arranged not to hear interrupt().
  void check_responsive(SyncPoint point);
  // Has the guest thread run on the caller's processor.
  void share_cpu();
  void look_at_deaf(const std::string &status, const std::string &directory, bool orders_idle);

  StubSpace &space_;
  StubProcess &process_;
  EngineMachine &machine_;
  const unsigned slot_;
  stub::Mailbox *const box_;

  std::uint32_t to_guest_, to_kernel_;  // the words as last written and last seen
  std::uint64_t frame_offset_;          // checked
  std::uint64_t stub_fs_ = 0, stub_gs_ = 0;
  bool bases_known_ = false;
  std::uint64_t trapped_at_ = 0;  // ticks
  HandOverGovernor governor_;
  HandOver mode_ = HandOver::OneCpu;  // of the hand-over in progress
  StubPlacement placement_;
  SpinGovernor kernel_spin_, guest_spin_;  // in mode TwoCpus
  abi::UserRegs written_{};                // what the frame holds, as far as we wrote or read it
  bool frame_complete_ = false;            // the frame's constant parts have been written
  bool guest_may_spin_ = false;
  bool active_ = false;

  std::atomic<bool> running_{false}, kick_{false};
  DeafWatch deaf_;
};

}  // namespace cowbird
