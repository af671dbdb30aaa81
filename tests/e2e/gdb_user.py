#!/usr/bin/env python3
"""Guest programs under a real gdb, through the gdb server: memory, registers, breakpoints, steps, system calls, forks,
exec, signals and threads, for a static program and for a dynamic one on the host's files."""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import BUILD, COWBIRD, Skip, check, contains, main, test
from debugged import in_order

PROGRAMS = BUILD / "tests" / "e2e"
SERVER = PROGRAMS / "guest-gdbserver"
LIMIT = 120


class Guest:
    """`cowbird run` of one mode of the debuggee, with a gdb server."""

    def __init__(self, mode, vcpus=1, static=True):
        if not shutil.which("gdb"):
            raise Skip("gdb is not installed")
        self.place = tempfile.TemporaryDirectory(prefix="cb-gdb-")
        program = PROGRAMS / ("debuggee-static" if static else "debuggee")
        where = ["--mount", f"{PROGRAMS}:/mnt:ro"] if static else ["--root", "/", "--read-only"]
        name = f"/mnt/{program.name}" if static else str(program)
        self.guest = subprocess.Popen(
            [COWBIRD, "run", "--vcpus", str(vcpus), *where, "--", name, mode], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ, COWBIRD_DIR=self.place.name))
        line = self.guest.stdout.readline()
        if not line.startswith(b"ready"):
            raise AssertionError(f"the guest did not start: {line!r} {self.guest.stderr.read()[-2000:]!r}")
        self.address = f"{self.place.name}/gdb"
        self.server = subprocess.Popen([SERVER, str(self.guest.pid), f"unix:{self.address}"],
                                       stderr=subprocess.PIPE)
        line = self.server.stderr.readline()
        check(line == b"listening\n", f"the server listens: {line!r}")

    def gdb(self, *commands):
        """What gdb prints for these commands after it has attached to process 1."""
        script = Path(self.place.name) / "commands"
        script.write_text("\n".join(commands) + "\n")
        words = ["gdb", "-nx", "-batch"]
        for command in ("set pagination off", "set confirm off", "set width 0", "set breakpoint pending on",
                        f"file {COWBIRD}", f"target extended-remote {self.address}", "add-inferior", "inferior 2",
                        "attach 1"):
            words += ["-ex", command]
        done = subprocess.run([*words, "-x", script], stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=LIMIT, check=False)
        text = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
        return "\n".join(line for line in text.splitlines() if not line.startswith("Reading "))

    def goes_on(self):
        """The program outlives gdb."""
        check(self.guest.poll() is None, "the guest lives")

    def close(self):
        for process in (self.server, self.guest):
            process.kill()
            process.wait()
        self.server.stderr.close()
        self.guest.stdout.close()
        self.guest.stderr.close()
        self.place.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def each_kind(function):
    """Makes tests of a function of the number of vCPUs and of whether the program is static."""
    for vcpus, static in ((1, True), (2, True), (2, False)):
        def one(vcpus=vcpus, static=static):
            function(vcpus, static)
        one.__name__ = f"{function.__name__}_{'static' if static else 'dynamic'}_{vcpus}"
        one.__signature__ = __import__("inspect").Signature()
        test(one)
    return function


@each_kind
def breakpoints_and_steps(vcpus, static):
    with Guest("loop", vcpus, static) as guest:
        text = guest.gdb("bt", "break debuggee.c:add", "continue", "bt", "finish", "next", "step", "stepi", "up",
                         "delete", "tbreak debuggee.c:work", "continue", "p rounds", "p counter > 0",
                         "p add(30, 4)", "info inferiors", "detach")
        in_order(text, r"nanosleep", r"in loop", r"in main", r"hit Breakpoint 1, add \(a=0, b=.*0\)",
                 r"#1 .* in work \(rounds=.*3\)", r"#2 .* in loop", r"Value returned is \$1 = 0",
                 r"hit Temporary breakpoint 2.*work \(rounds=", r"\$2 = 3", r"\$3 = 1", r"\$4 = 34",
                 r"process 1 ", r"\[Inferior 2 \(process 1\) detached\]")
        guest.goes_on()


@test
def libraries_come_by_themselves():
    with Guest("waits", 1, static=False) as guest:
        text = guest.gdb("info sharedlibrary", "bt", "info auxv", "info proc mappings", "p $_exitcode")
        in_order(text, r"Yes .*libc\.so\.6", r"Yes .*ld-linux", r"in waits", r"in main", r"AT_ENTRY",
                 r"r-xp .*/debuggee")


@test
def the_guests_own_proc_is_seen():
    with Guest("waits") as guest:
        text = guest.gdb("info proc mappings", "inferior 1", "info proc mappings")
        in_order(text, r"0x400000 .*/mnt/debuggee-static", r"\[stack\]", r"/cowbird\n", r"memfd:cowbird")


@test
def conditions_are_evaluated():
    with Guest("loop") as guest:
        text = guest.gdb("break debuggee.c:add if a == 1 && b == 2", "continue", "p a * 10 + b", "continue",
                         "p a * 10 + b", "detach")
        in_order(text, r"hit Breakpoint 1, add", r"\$1 = 12", r"\$2 = 12")


@test
def vector_registers():
    with Guest("vectors") as guest:
        text = guest.gdb("break *vectors_loaded", "continue", "p $ymm0.v8_int32[7]", "p $ymm0.v8_int32[0]",
                         "set var $ymm0.v8_int32[7] = 0x42c80000", "p $mxcsr", "p $fctrl", "delete",
                         "set var counter = 0", "tbreak usleep", "continue", "p counter")
        in_order(text, r"\$1 = 1090519040", r"\$2 = 1065353216", r"\$3 = ", r"\$4 = 895", r"\$5 = 100")


@test
def debug_registers_are_refused():
    with Guest("loop") as guest:
        text = guest.gdb("hbreak debuggee.c:work", "continue", "delete", "set can-use-hw-watchpoints 0",
                         "tbreak debuggee.c:add", "continue", "watch counter", "continue", "detach")
        in_order(text, r"Cannot insert hardware breakpoint", )
        guest.goes_on()


@test
def software_watchpoints():
    with Guest("loop") as guest:
        text = guest.gdb("set can-use-hw-watchpoints 0", "tbreak debuggee.c:add", "continue", "watch counter",
                         "continue", "p $_", "bt 1")
        in_order(text, r"Watchpoint 2: counter", r"Old value = \d+", r"New value = \d+", r"add \(")


@each_kind
def system_calls(vcpus, static):
    with Guest("loop", vcpus, static) as guest:
        text = guest.gdb("catch syscall clock_nanosleep", "continue", "p $orig_rax", "continue", "p $rax", "delete",
                         "detach")
        in_order(text, r"call to syscall clock_nanosleep", r"\$1 = 230", r"returned from syscall clock_nanosleep",
                 r"\$2 = 0")


@each_kind
def forks(vcpus, static):
    with Guest("forks", vcpus, static) as guest:
        text = guest.gdb("set follow-fork-mode child", "break debuggee.c:work", "continue", "bt 2", "info inferiors",
                         "delete", "continue")
        in_order(text, r"Attaching after Thread 1\.1 fork to child", r"Detaching after fork from parent",
                 r"hit Breakpoint 1, .*work", r"in forks", r"exited with code 06")
        guest.goes_on()
    with Guest("forks", vcpus, static) as guest:
        text = guest.gdb("catch fork", "continue", "continue", "delete", "break debuggee.c:work", "tbreak usleep",
                         "continue", "bt 2", "detach")
        in_order(text, r"hit Catchpoint 1 \(forked process", r"Detaching after fork from child",
                 r"hit Catchpoint 1 \(forked process", r"hit Temporary breakpoint 3.*usleep")
        guest.goes_on()


@test
def both_sides_of_a_fork():
    with Guest("forks") as guest:
        text = guest.gdb("set detach-on-fork off", "set schedule-multiple on", "catch fork", "continue", "delete",
                         "tbreak debuggee.c:add", "continue", "bt 2", "info inferiors")
        in_order(text, r"hit Catchpoint 1", r"New inferior 3", r"hit Temporary breakpoint 2.*add", r"in work",
                 r"process 1 ")


@test
def vfork():
    with Guest("vforks") as guest:
        text = guest.gdb("tbreak debuggee.c:add", "continue", "bt 2", "tbreak debuggee.c:add", "continue", "detach")
        in_order(text, r"hit Temporary breakpoint 1.*add", r"in work", r"hit Temporary breakpoint 2.*add")
        guest.goes_on()


@each_kind
def exec_of_another_program(vcpus, static):
    with Guest("execs", vcpus, static) as guest:
        text = guest.gdb("catch exec", "tbreak debuggee.c:work", "continue", "set var stop_asked = 1", "continue",
                         "tbreak debuggee.c:work", "continue", "bt 2", "p stop_asked", "detach")
        in_order(text, r"hit Temporary breakpoint 2", r"is executing new program: .*debuggee",
                 r"hit Catchpoint 1 \(exec'd", r"hit Temporary breakpoint 3.*work", r"in loop", r"\$1 = 0")


@each_kind
def signals(vcpus, static):
    with Guest("signals", vcpus, static) as guest:
        text = guest.gdb("handle SIGUSR1 stop print nopass", "continue", "p $_siginfo.si_signo", "p handled",
                         "continue", "p handled", "handle SIGUSR1 nostop noprint pass", "tbreak on_signal", "continue",
                         "bt 2", "handle SIGUSR1 stop print pass", "continue", "stepi", "bt 1", "signal 0", "detach")
        in_order(text, r"received signal SIGUSR1", r"\$1 = 10", r"\$2 = (\d+)", r"received signal SIGUSR1",
                 r"\$3 = \d+", r"on_signal \(number=10\)", r"<signal handler called>", r"received signal SIGUSR1",
                 r"on_signal")
        numbers = re.findall(r"\$[23] = (\d+)", text)
        check(numbers[0] == numbers[1], f"a signal that is not passed is not handled: {numbers}")
        guest.goes_on()


@test
def a_crash():
    with Guest("crash") as guest:
        text = guest.gdb("set var stop_asked = 1", "continue", "p $_siginfo._sifields._sigfault.si_addr", "bt 1",
                         "continue", "info inferiors")
        in_order(text, r"received signal SIGSEGV", r"\$1 = \(void \*\) 0x8", r"crash \(\)",
                 r"terminated with signal SIGSEGV")


@each_kind
def threads(vcpus, static):
    with Guest("threads", vcpus, static) as guest:
        text = guest.gdb("info threads", "break debuggee.c:add", "continue", "thread apply all bt 2",
                         "set scheduler-locking on", "p counter", "next", "next", "p counter", "p $_thread != 0",
                         "set scheduler-locking off", "delete", "thread find third", "detach")
        in_order(text, r'Thread 1\.\d+ "first"', r'Thread 1\.\d+ "second"', r'Thread 1\.\d+ "third"',
                 r"hit Breakpoint 1, add", r"in work|thread_main|nanosleep", r"\$1 = \d+", r"\$2 = \d+")
        before, after = (int(n) for n in re.findall(r"\$[12] = (\d+)", text))
        check(0 <= after - before <= 1, f"the others stood still: counter {before} to {after}")
        guest.goes_on()


@test
def a_call_in_a_sleeping_program():
    with Guest("waits") as guest:
        text = guest.gdb("bt 1", "p add(3, 4)", "bt 1", "p handled", "detach")
        in_order(text, r"read", r"\$1 = 7", r"read", r"\$2 = 0")
        guest.goes_on()


@test
def the_kernel_beside_it():
    with Guest("waits", vcpus=2) as guest:
        text = guest.gdb("inferior 1", "thread apply all -s -q bt", "inferior 2", "bt 1", "p counter")
        in_order(text, r'enter_system_call \(name=.*"read", number=.*0', r"read", r"\$1 = ")


@test
def a_kernel_breakpoint_of_a_guest_call():
    with Guest("loop") as guest:
        text = guest.gdb("inferior 1", "tbreak cowbird::sys_clock_nanosleep", "continue", "bt 3", "inferior 2",
                         "bt 4", "p counter >= 0")
        guest.goes_on()
        in_order(text, r"hit Temporary breakpoint 1.*sys_clock_nanosleep", r"enter_system_call",
                 r"nanosleep", r"in loop", r"\$1 = true")


@test
def kill_ends_the_program():
    with Guest("spin") as guest:
        guest.gdb("kill")
        check(guest.guest.wait(LIMIT) == 128 + 9, "the exit status")


if __name__ == "__main__":
    main()
