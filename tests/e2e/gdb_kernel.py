#!/usr/bin/env python3
"""The kernel of a running guest under a real gdb: threads, breakpoints, steps, watchpoints, non-stop, and its end."""
import re
import subprocess
import time

from harness import BUILD, COWBIRD, LIMIT, Skip, check, contains, equal, main, test
from debugged import go_to, until
from gdb import GDB, GdbError, Mi, batch

SERVER = BUILD / "tests" / "e2e" / "guest-gdbserver"
TICKER = "while :; do cat /proc/uptime; sleep 0.05; done"
IDLE = 'Thread [0-9.]+ "vcpu0 \\(host\\)"'


def need_gdb():
    if GDB is None:
        raise Skip("gdb is not installed")


class Guest:
    """`cowbird run` of a shell script, with its output in a file."""

    def __init__(self, scratch, script=TICKER, *options):
        need_gdb()
        self.output = scratch / "output"
        self.socket = scratch / "gdb"
        self.servers = []
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen([str(COWBIRD), "run", *options, "--", "/bin/sh", "-c", script],
                                            stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)
        if script == TICKER:
            self.grow()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.kill()
            server.wait()
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def grow(self):
        """Waits until the guest has written something more."""
        size = self.output.stat().st_size
        until(lambda: self.output.stat().st_size > size, "output of the guest")

    def serve(self):
        self.socket.unlink(missing_ok=True)
        self.servers.append(subprocess.Popen(
            [str(SERVER), str(self.process.pid), f"unix:{self.socket}"], stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL))
        until(self.socket.exists, "the server's socket")

    def symbols(self):
        """Of gdb, so that it need not read the files through the connection."""
        return ["set sysroot /", f"file {COWBIRD}", f"target extended-remote {self.socket}"]

    def gdb(self, *commands):
        self.serve()
        return batch(*self.symbols(), *commands)

    def attached(self, *options):
        """A gdb that is spoken to, attached."""
        self.serve()
        gdb = Mi(*options)
        try:
            for command in self.symbols():
                gdb.run(command)
            if "non-stop on" not in " ".join(options):
                gdb.stopped()
        except BaseException:
            gdb.close()
            raise
        return gdb

    def is_free(self):
        """Nobody traces it, and it runs."""
        status = open(f"/proc/{self.process.pid}/status", encoding="ascii").read()
        contains(status, "TracerPid:\t0", "the state of the kernel's process")
        self.grow()


def thread_of(gdb):
    return gdb.run("print $_thread").split()[-1]


def current(gdb):
    """The line of the current thread, with its name."""
    return re.search(r"^\* .*$", gdb.run("info threads"), re.M).group()


@test
def threads_have_names_states_and_stacks(scratch):
    with Guest(scratch, "sleep 1000; true") as guest:
        sleeper = r'"sleep/\d+" \(sleeping in \w+, system call clock_nanosleep\)'
        end = time.monotonic() + LIMIT
        text = ""
        while not re.search(sleeper, text):  # it has to come that far
            check(time.monotonic() < end, f"the guest's program does not sleep: {text}")
            text = guest.gdb("info threads", "thread apply all backtrace")
        check(re.search(r'Thread [0-9.]+ "sh/1" \(.*wait4\)', text), text)
        check(re.search(IDLE, text), text)
        contains(text, '"irq (host)"')
        contains(text, "sys_wait4")
        contains(text, "sys_clock_nanosleep")
        contains(text, "cowbird_thread_entry")


def breaks_and_steps(scratch, *options):
    with Guest(scratch, TICKER, *options) as guest, guest.attached() as gdb:
        stop = go_to(gdb, "sys_clock_nanosleep")
        contains(stop, "sys_clock_nanosleep")
        contains(current(gdb), "sleep/")
        mine = thread_of(gdb)
        for command in ("next", "next", "step", "stepi", "next"):
            gdb.run(command)
            gdb.stopped()
            equal(thread_of(gdb), mine, f"the thread after {command}")
        go_to(gdb, "cowbird::sleep_until")
        gdb.run("finish")
        contains(gdb.stopped(), "sys_time.cpp")
        contains(current(gdb), "sleep/")
        gdb.run("until")
        gdb.stopped()
        gdb.run("detach")
        guest.is_free()


@test
def breakpoints_and_steps(scratch):
    breaks_and_steps(scratch)


@test
def breakpoints_and_steps_with_two_vcpus(scratch):
    breaks_and_steps(scratch, "--vcpus", "2")


def crosses_a_switch(scratch, locking):
    with Guest(scratch) as guest, guest.attached() as gdb:
        go_to(gdb, "sys_clock_nanosleep")
        gdb.run(f"set scheduler-locking {locking}")
        mine = thread_of(gdb)
        gdb.run("tbreak cowbird_switch_context thread " + mine)
        gdb.run("continue")
        gdb.stopped()
        equal(thread_of(gdb), mine, "the thread before the switch")
        before = gdb.run("print $sp").split()[-1]
        # 11 instructions to the change of stacks, 9 from it to the return.
        gdb.run("stepi 22")
        stop = gdb.stopped()
        equal(thread_of(gdb), mine, "the thread behind the switch")
        contains(stop, "vcpu.cpp")
        check(int(gdb.run("print (long)$sp").split()[-1]) > int(before, 16), "not back on its stack")
        gdb.run("finish")
        gdb.stopped()
        equal(thread_of(gdb), mine, "the thread after finish")
        gdb.run("set scheduler-locking off")
        gdb.run("detach")
        guest.is_free()


@test
def stepping_over_a_switch_lands_in_the_same_thread(scratch):
    crosses_a_switch(scratch, "off")


@test
def a_thread_that_runs_alone_may_sleep(scratch):
    crosses_a_switch(scratch, "on")


@test
def a_sleeping_thread_is_stepped_when_it_wakes(scratch):
    with Guest(scratch) as guest, guest.attached() as gdb:
        go_to(gdb, "sys_clock_nanosleep")
        sleeper = thread_of(gdb)
        go_to(gdb, "cowbird::Vcpu::park")
        gdb.run(f"thread {sleeper}")
        contains(gdb.run("backtrace"), "sys_clock_nanosleep")
        gdb.run("finish")  # out of cowbird_switch_context, which it is in
        gdb.stopped()
        equal(thread_of(gdb), sleeper, "the thread")
        gdb.run("detach")
        guest.is_free()


@test
def the_clock_can_be_stepped_through(scratch):
    with Guest(scratch) as guest, guest.attached() as gdb:
        go_to(gdb, "cowbird::clock::monotonic_ns")
        outside = int(gdb.run("print (long)$sp").split()[-1])
        # The clock is put back at each stop: whoever reads it then must not have to begin anew for ever.
        for _ in range(120):
            gdb.run("nexti")
            gdb.stopped()
            if int(gdb.run("print (long)$sp").split()[-1]) > outside:
                break
        else:
            check(False, f"still in {gdb.run('backtrace 2')}")
        gdb.run("detach")
        guest.is_free()


@test
def conditions_that_are_false_cost_no_stop(scratch):
    with Guest(scratch) as guest, guest.attached() as gdb:
        gdb.run("break cowbird::leave_vcpu if (int)how == 77")
        gdb.run("continue &")
        for _ in range(5):
            guest.grow()
        gdb.run("interrupt")
        contains(gdb.stopped(), "SIGINT")
        contains(gdb.run("info breakpoints"), "target evals")
        check("already hit" not in gdb.run("info breakpoints"), "a hit of a false condition was reported")
        gdb.run("delete")
        gdb.run("break cowbird::sys_exit_group if args.value[0] == 0")
        gdb.run("continue")
        contains(gdb.stopped(), "sys_exit_group")
        gdb.run("detach")
        guest.is_free()


@test
def hardware_watches_and_breaks(scratch):
    with Guest(scratch) as guest, guest.attached() as gdb:
        go_to(gdb, "cowbird::leave_vcpu")
        gdb.run("next")
        gdb.stopped()
        contains(gdb.run("watch -l core.running_count"), "Hardware watchpoint")
        for _ in range(2):
            gdb.run("continue")
            contains(gdb.stopped(), "watchpoint-trigger")
        gdb.run("delete")
        gdb.run("hbreak cowbird::sys_wait4")
        gdb.run("continue")
        contains(gdb.stopped(), "sys_wait4")
        gdb.run("delete")
        for _ in range(4):
            gdb.run("hbreak cowbird::sys_wait4")
        gdb.run("watch -l *(long *)$sp")
        gdb.run("watch -l *((long *)$sp + 1)")
        gdb.run("watch -l *((long *)$sp + 2)")
        gdb.run("watch -l *((long *)$sp + 3)")
        try:
            gdb.run("continue")
            gdb.stopped()
        except GdbError:
            pass
        contains("\n".join(gdb.log), "Could not insert hardware")
        gdb.run("delete")
        gdb.run("detach")
        guest.is_free()


@test
def functions_are_called_on_a_thread_that_runs(scratch):
    with Guest(scratch) as guest, guest.attached() as gdb:
        go_to(gdb, "sys_clock_nanosleep")
        first, second = (int(gdb.run("print cowbird::clock::monotonic_ns()").split()[-1]) for _ in range(2))
        check(0 < first <= second, f"the guest's time was {first}, then {second}")
        gdb.run("next")
        contains(gdb.stopped(), "sys_clock_nanosleep")
        gdb.run("detach")
        guest.is_free()


@test
def non_stop_stops_one_thread(scratch):
    with Guest(scratch, TICKER, "--vcpus", "2") as guest, guest.attached("-iex", "set non-stop on") as gdb:
        until(lambda: "(running)" not in gdb.run("info threads"), "the stops of all threads")
        gdb.run("continue -a &")
        guest.grow()
        gdb.records.clear()
        shell = re.search(r'^\*?\s*(\d+)\s+Thread \S+ "sh/1"', gdb.run("info threads"), re.M).group(1)
        gdb.run(f"thread {shell}")
        gdb.run("interrupt")
        gdb.stopped()
        text = gdb.run("info threads")
        equal(text.count("(running)"), len(re.findall(r"^\*?\s*\d+ ", text, re.M)) - 1, "threads that run")
        contains(gdb.run("backtrace"), "cowbird::task_main")  # wherever it was
        gdb.run("continue &")
        gdb.run("tbreak cowbird::sys_exit_group")
        contains(gdb.stopped(), "sys_exit_group")
        contains(gdb.run("info threads"), "(running)")
        gdb.run("continue -a &")
        guest.grow()
        gdb.run("detach")
        guest.is_free()


@test
def gdb_may_die_and_come_back(scratch):
    with Guest(scratch) as guest:
        gdb = guest.attached()
        go_to(gdb, "sys_clock_nanosleep")
        gdb.run("break sys_exit_group")
        gdb.kill()
        until(lambda: "TracerPid:\t0" in open(f"/proc/{guest.process.pid}/status", encoding="ascii").read(),
                    "the end of tracing")
        guest.is_free()
        contains(guest.gdb("info threads"), '"sh/1"')
        guest.is_free()


@test
def the_server_may_be_killed(scratch):
    """What it has left in the kernel's code is taken out by the kernel, or by the next server."""
    with Guest(scratch) as guest:
        for condition in ("", " if $rdi == 1", " if $rdi == 1"):
            with guest.attached() as gdb:
                go_to(gdb, "sys_clock_nanosleep")
                gdb.run("break sys_write" + condition)
                gdb.run("break sys_exit_group" + condition)
                if condition:
                    gdb.run("continue &")
                    guest.grow()
                else:
                    gdb.run("continue")
                    gdb.stopped()
                guest.servers[-1].kill()
                guest.servers[-1].wait()
            guest.is_free()
            guest.grow()
        text = guest.gdb("x/16xb sys_write", "disassemble sys_exit_group")
        check("0xcc" not in text and "int3" not in text, text)
        guest.is_free()


@test
def guest_time_stands_still(scratch):
    with Guest(scratch) as guest, guest.attached() as gdb:
        go_to(gdb, "sys_clock_nanosleep")
        time.sleep(5)
        gdb.run("detach")
        for _ in range(3):
            guest.grow()
        times = [float(line.split()[0]) for line in guest.output.read_text(encoding="ascii").splitlines()[:-1]]
        gap = max(after - before for before, after in zip(times, times[1:]))
        check(gap < 4, f"the guest saw {gap} s of a stop of 5 s")


@test
def a_panic_stops_in_gdb(scratch):
    with Guest(scratch, "read word; echo c > /proc/sysrq-trigger") as guest:
        with guest.attached() as gdb:
            gdb.run("continue &")
            guest.process.stdin.write(b"\n")
            guest.process.stdin.flush()
            contains(gdb.stopped(), "SIGABRT")
            contains(gdb.console, "guest kernel panic: ")
            contains(gdb.run("backtrace"), "sysrq")
            gdb.run("continue")
            contains(gdb.record("=thread-group-exited"), 'exit-code="03"')
        equal(guest.process.wait(LIMIT), 3, "the exit status")


@test
def the_end_of_the_guest_is_told(scratch):
    with Guest(scratch, "read word; exit 7") as guest:
        with guest.attached() as gdb:
            gdb.run("continue &")
            guest.process.stdin.write(b"\n")
            guest.process.stdin.flush()
            contains(gdb.record("=thread-group-exited"), 'exit-code="07"')
        equal(guest.process.wait(LIMIT), 7, "the exit status")


if __name__ == "__main__":
    main()
