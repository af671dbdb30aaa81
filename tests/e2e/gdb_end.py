#!/usr/bin/env python3
"""Ends of a guest under gdb: reboot, power-off, a fault in kernel code, an assertion, a panic; and what is left of it
in a core file."""
import re
import time

from harness import LIMIT, alive, check, contains, equal, main, test
from gdb import batch
from debugged import COWBIRD, PROGRAMS, SCRIPT, TICKER, Guest, go_to, in_order, until

# Says "up" when the two others sleep, so that nothing changes any more.
WAITING = "sleep 1000 & sleep 1001 & until [ $(cat /proc/[0-9]*/wchan | grep -o hrtimer | wc -l) = 2 ]; do :; done; " \
          "echo up; read word; "
FAULTY = f'[[console]]\nname = "con0"\nplugin = "fd"\ninput = 0\noutput = 1\n' \
         f'[[serial]]\nname = "ssl0"\nplugin = "{PROGRAMS}/plugins/faulty.so"\n'


@test
def a_reboot_leaves_gdb_attached(scratch):
    """The program is executed anew: breakpoints are put into it again, and the symbols stay right."""
    with Guest(scratch, "echo up; read word; reboot -f", debug=f'gdb = "unix:{scratch}/gdb"') as guest, \
            guest.gdb(at=f"{scratch}/gdb") as gdb:
        gdb.run("break cowbird::Machine::bring_up")
        gdb.run("continue &")
        guest.type()
        contains(gdb.stopped(), "bring_up")
        contains(gdb.run("info threads"), '"boot"')
        in_order(gdb.run("backtrace"), "bring_up", "cowbird_thread_entry")
        gdb.run("delete")
        gdb.run("continue &")
        guest.says("up", times=2)
        gdb.run("interrupt")
        gdb.stopped()
        contains(gdb.run("info threads"), '"sh/1"')
        gdb.run("detach")
        check(alive(guest.process.pid), "the guest goes on")
        # And without it.
        guest.type()
        guest.says("up", times=3)


@test
def poweroff_is_an_exit(scratch):
    with Guest(scratch, "echo up; read word; poweroff -f") as guest, guest.gdb() as gdb:
        gdb.run("continue &")
        guest.type()
        contains(gdb.record("=thread-group-exited"), 'exit-code="0"')
        guest.ended(0)


def fails(gdb, guest, what, signal, place):
    """Stops where it fails, and again when the kernel has noticed; all stacks of that moment."""
    contains(gdb.run("info sharedlibrary"), "faulty.so")
    gdb.run("continue &")
    guest.type()
    contains(gdb.stopped(), signal)
    contains(gdb.run("info threads"), 'running on vcpu 0, system call write')
    in_order(gdb.run("backtrace"), place, "write_channel .*faulty.c", "cowbird::sys_write", "cowbird_thread_entry")
    gdb.run("continue")
    contains(gdb.stopped(), "SIGABRT")
    contains(gdb.console, "guest kernel panic: ")
    contains(gdb.console, what)
    return stacks(gdb.run("thread apply all backtrace"))


def stacks(text):
    """Name of each kernel thread: its functions from the outside in."""
    found = {}
    for part in re.split(r"^Thread \d+ \(Thread ", text, flags=re.M)[1:]:
        name = re.search(r'"([^"]*)"', part).group(1)
        functions = [re.sub(r"^0x\w+ in ", "", line).split(" (")[0]
                     for line in re.findall(r"^#\d+ +(.*)$", part, re.M)]
        if "(host)" not in name:
            found[name] = functions[::-1]
    return found


def same_stacks(live, dead):
    equal(sorted(dead), sorted(live), "threads in the core file")
    for name, functions in live.items():
        if any("panic" in function for function in functions):
            # It has gone on to the writing of the core.
            at = next(i for i, function in enumerate(functions) if "panic" in function)
            equal(dead[name][:at], functions[:at], f"the stack of {name}, which has panicked")
            check("write_panic_core" in " ".join(dead[name]), f"{name} waits for its core: {dead[name]}")
        else:
            equal(dead[name], functions, f"the stack of {name}")


def look_at(core):
    return batch(f"source {SCRIPT}", f"file {COWBIRD}",
                 f"target extended-remote | {COWBIRD} gdbserver --core {core} --stdio", "info threads",
                 "thread apply all backtrace", "monitor ps", "cb-ps", "cb-mounts", "monitor bt all", "print $current()->comm",
                 options=("-iex", "set sysroot /"), timeout=2 * LIMIT)


def a_failure_leaves_a_core(scratch, letter, what, signal, place):
    (scratch / "cores").mkdir()
    with Guest(scratch, WAITING + f"echo {letter} > /dev/ttyS0; sleep 1002", debug=f'core = "{scratch}/cores"', more=FAULTY) as guest:
        with guest.gdb() as gdb:
            live = fails(gdb, guest, what, signal, place)
            gdb.run("detach")
        guest.ended(3)
        contains(guest.text(), what)
    cores = list((scratch / "cores").iterdir())
    equal(len(cores), 1, f"core files of a guest that says {guest.text()[-3000:]}")
    text = look_at(cores[0])
    contains(text, "guest kernel panic: ")
    same_stacks(live, stacks(text))
    in_order(text, r'"sh/1"', r"clock_nanosleep", r"PID +TID", r" 1 +1 +\d+ R sh ", r"proc on /proc type proc")
    contains(text, '= "sh"')
    check("Python Exception" not in text, text)


@test
def a_fault_in_kernel_code(scratch):
    a_failure_leaves_a_core(scratch, "s", "invalid memory access (SIGSEGV): write at 0x0", "SIGSEGV", "fail_at .*faulty.c")


@test
def a_failed_assertion(scratch):
    a_failure_leaves_a_core(scratch, "a", "abort() was called", "SIGABRT", "fail_at .*faulty.c")


@test
def a_report_that_is_out_just_in_time_leaves_a_core(scratch):
    """The limit that a panic sets itself comes when it is just being lifted."""
    with Guest(scratch, "echo up; read word; echo c > /proc/sysrq-trigger", debug=f'core = "{scratch}"') as guest:
        with guest.gdb() as gdb:
            gdb.run("break cowbird::boot::stop_panic_timer")
            gdb.run("continue &")
            guest.type()
            contains(gdb.stopped(), "SIGABRT")
            gdb.run("continue")
            contains(gdb.stopped(), "stop_panic_timer")
            time.sleep(3)  # it is one of two seconds
            gdb.run("detach")
        guest.ended(3)
    equal(len(list(scratch.glob("*.core"))), 1, f"core files of a guest that says {guest.text()[-3000:]}")


@test
def a_fault_without_gdb_waits_for_it(scratch):
    with Guest(scratch, WAITING + "echo s > /dev/ttyS0; sleep 1002", debug='on_panic = "wait"', more=FAULTY) as guest:
        guest.type()
        guest.says("cowbird gdb seen")
        for _ in range(2):
            text = guest.batch("info threads", "backtrace", "thread apply all backtrace 3", "monitor log 3")
            in_order(text, r'"sh/1" \(running on vcpu 0, system call write', "stand_still_after_panic",
                     "fail_at .*faulty.c", "write_channel", "cowbird::sys_write")
            contains(text, "panic: invalid memory access")
            check(alive(guest.process.pid), "it stands still")


@test
def a_fault_without_gdb_leaves_a_core(scratch):
    (scratch / "cores").mkdir()
    with Guest(scratch, WAITING + "echo s > /dev/ttyS0; sleep 1002", debug=f'core = "{scratch}/cores"', more=FAULTY) as guest:
        guest.type()
        guest.ended(3)
        contains(guest.text(), "core file")
    text = look_at(next((scratch / "cores").iterdir()))
    in_order(text, r'"sleep/\d+" \(sleeping in \w+, system call clock_nanosleep', "fail_at .*faulty.c", "write_channel")


if __name__ == "__main__":
    main()
