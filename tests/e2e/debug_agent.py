#!/usr/bin/env python3
"""The debug agent in the kernel, spoken to directly: what it promises to a debugger's server."""
import contextlib
import os
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from agent_client import EXEC_EVENTS, FORK_EVENTS, THREAD_EVENTS, Agent, Refused
from harness import BUILD, COWBIRD, check, contains, equal, main, test

PROGRAMS = BUILD / "tests" / "e2e"
LIMIT = 60


class Guest:
    """`cowbird run` of one mode of the debuggee, which is process 1 of the guest."""

    def __init__(self, mode, vcpus=1, static=True):
        self.place = tempfile.TemporaryDirectory(prefix="cb-agent-")
        program = PROGRAMS / ("debuggee-static" if static else "debuggee")
        where = ["--mount", f"{PROGRAMS}:/mnt:ro"] if static else ["--root", "/", "--read-only"]
        name = f"/mnt/{program.name}" if static else str(program)
        self.symbols = self.read_symbols(program)
        self.process = subprocess.Popen(
            [COWBIRD, "run", "--vcpus", str(vcpus), *where, "--", name, mode], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ, COWBIRD_DIR=self.place.name))
        line = self.process.stdout.readline()
        if not line.startswith(b"ready"):
            raise AssertionError(f"the guest did not start: {line!r} {self.process.stderr.read()[-2000:]!r}")

    @staticmethod
    def read_symbols(program):
        listing = subprocess.run(["nm", program], capture_output=True, check=True, text=True).stdout
        return {line.split()[2]: int(line.split()[0], 16) for line in listing.splitlines() if len(line.split()) == 3}

    def agent(self, **more):
        return Agent(self.socket(), timeout=LIMIT, **more)

    def socket(self):
        found = list(Path(self.place.name).glob("*/debug"))
        equal(len(found), 1, "sockets of the debug agent")
        return found[0]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()
        self.place.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@contextlib.contextmanager
def attached(mode, vcpus=1, options=0, pid=1):
    with Guest(mode, vcpus) as guest:
        agent = guest.agent()
        agent.call("set_options", flags=options)
        agent.call("freeze")
        agent.call("attach", pid=pid)
        agent.call("pass_signals", address=1 << (17 - 1))
        yield guest, agent, guest.symbols
        agent.close()


def long_at(agent, pid, address):
    return struct.unpack("<q", agent.read(pid, address, 8))[0]


def on_both(function):
    """Makes two tests of a function of the number of vCPUs."""
    def one():
        function(1)

    def two():
        function(2)
    one.__name__ = function.__name__
    two.__name__ = function.__name__ + "_on_two_vcpus"
    test(one)
    test(two)
    return function


@test
def says_what_there_is():
    with Guest("threads", vcpus=2) as guest:
        agent = guest.agent()
        check(1 in agent.processes(), "process 1 is listed")
        names = {thread.name for thread in agent.threads(1)}
        check({"first", "second", "third"} <= names, f"threads are listed by name: {names}")
        contains(agent.call("executable", pid=1), "/mnt/debuggee-static")
        auxv = agent.call("auxv", pid=1)
        values = dict(struct.iter_unpack("<QQ", auxv))
        equal(values[6], 4096, "AT_PAGESZ")
        maps, _ = agent.read_file(1, "/proc/self/maps")
        contains(maps, "debuggee-static")
        status, _ = agent.read_file(1, "/proc/1/status")
        contains(status, "Threads:\t4")
        content, stat = agent.read_file(1, "/mnt/debuggee-static")
        equal(content, (PROGRAMS / "debuggee-static").read_bytes(), "a file through the agent")
        equal(stat[2], len(content), "its size")
        equal(agent.call("read_link", pid=1, data=b"/proc/1/exe"), b"/mnt/debuggee-static", "exe")
        for path in (b"/nowhere", b"/dev", b"/dev/null"):
            try:
                agent.call("open_file", pid=1, data=path)
                raise AssertionError(f"{path} was opened")
            except Refused:
                pass


@on_both
def frozen_guest_stands_still(vcpus):
    with attached("spin", vcpus) as (_, agent, symbols):
        before = long_at(agent, 1, symbols["counter"])
        time.sleep(0.1)
        equal(long_at(agent, 1, symbols["counter"]), before, "the counter of a frozen program")
        agent.resume()
        time.sleep(0.05)
        agent.call("freeze")
        check(long_at(agent, 1, symbols["counter"]) > before, "it went on")


@on_both
def breakpoint_and_steps(vcpus):
    with attached("loop", vcpus) as (_, agent, symbols):
        agent.call("insert_breakpoint", pid=1, address=symbols["add"])
        agent.resume()
        for _ in range(5):
            stop = agent.stop()
            equal((stop.kind, stop.address, stop.frozen), ("breakpoint", symbols["add"], True))
            equal(agent.registers(1)["rip"], symbols["add"], "rip")
            agent.resume((-1, -1, "continue", {"step_over": 1}))
        stop = agent.stop()
        code = agent.read(1, symbols["add"], 4)
        check(code[0] != 0xcc, "the breakpoint is not seen in the memory")
        agent.call("remove_breakpoint", pid=1, address=symbols["add"])
        equal(agent.read(1, symbols["add"], 4), code, "code without a breakpoint")
        last = symbols["add"]
        for _ in range(20):
            agent.resume((1, 1, "step"))
            stop = agent.stop()
            equal(stop.kind, "step")
            rip = agent.registers(1)["rip"]
            check(rip != last, "the step went on")
            check(agent.registers(1)["eflags"] & 0x100 == 0, "TF is not shown")
            last = rip
        # Up to a system call and over it.
        calls = 0
        for _ in range(400):
            at_call = agent.read(1, agent.registers(1)["rip"], 2) == b"\x0f\x05"
            rip = agent.registers(1)["rip"]
            agent.resume((1, 1, "step"))
            equal(agent.stop().kind, "step")
            if at_call:
                equal(agent.registers(1)["rip"], rip + 2, "rip after the system call")
                calls += 1
        check(calls > 0, "a system call was stepped over")


@test
def range_step():
    with attached("loop") as (_, agent, symbols):
        agent.call("insert_breakpoint", pid=1, address=symbols["add"])
        agent.resume()
        agent.stop()
        agent.call("remove_breakpoint", pid=1, address=symbols["add"])
        agent.resume((1, 1, "step", {"low": symbols["add"], "high": symbols["work"]}))
        stop = agent.stop()
        equal(stop.kind, "step")
        rip = agent.registers(1)["rip"]
        check(not symbols["add"] <= rip < symbols["work"], "the range was left")


@on_both
def registers_and_memory_can_be_changed(vcpus):
    with attached("loop", vcpus) as (guest, agent, symbols):
        agent.call("insert_breakpoint", pid=1, address=symbols["add"])
        agent.resume()
        agent.stop()
        registers = agent.registers(1)
        registers["rdi"] = 1000
        agent.set_registers(1, registers)
        equal(agent.registers(1)["rdi"], 1000, "rdi")
        equal(agent.write(1, symbols["stop_asked"], struct.pack("<i", 1)), 4)
        agent.call("remove_breakpoint", pid=1, address=symbols["add"])
        agent.resume()
        stop = agent.stop()
        equal((stop.kind, stop.number), ("process_exited", 5 << 8))
        agent.resume()
        equal(guest.process.wait(LIMIT), 5, "exit status")


@test
def code_is_copied_before_it_is_changed():
    with attached("loop") as (_, agent, symbols):
        agent.write(1, symbols["vector_work"], b"\xc3")
        content, _ = agent.read_file(1, "/mnt/debuggee-static")
        equal(content, (PROGRAMS / "debuggee-static").read_bytes(), "the file")
        equal(agent.read(1, symbols["vector_work"], 1), b"\xc3")
        try:
            agent.read(1, 0x1000, 8)
            raise AssertionError("memory that is not there was read")
        except Refused as refused:
            equal(refused.error, 14, "EFAULT")


@test
def vector_registers():
    with attached("vectors") as (_, agent, symbols):
        agent.call("insert_breakpoint", pid=1, address=symbols["vectors_loaded"])
        agent.resume()
        agent.stop()
        registers = agent.registers(1)
        low = struct.unpack("<32f", registers["xstate"][160:160 + 128])
        # v and d are in some of xmm0-7; the lower half of v is 1, 2, 3, 4.
        found = [i for i in range(8) if low[4 * i:4 * i + 4] == (1.0, 2.0, 3.0, 4.0)]
        check(found, f"the vector is in a register: {low}")
        before = long_at(agent, 1, symbols["counter"])
        xstate = bytearray(registers["xstate"])
        at = 576 + 16 * found[0]  # the upper halves (AVX state)
        struct.pack_into("<4f", xstate, at, 5.0, 6.0, 7.0, 100.0)
        registers["xstate"] = bytes(xstate)
        agent.set_registers(1, registers)
        agent.call("remove_breakpoint", pid=1, address=symbols["vectors_loaded"])
        agent.call("insert_breakpoint", pid=1, address=symbols["vector_work"])
        agent.resume()
        agent.stop()
        equal(long_at(agent, 1, symbols["counter"]) - before, 100, "what the program made of the changed register")


@on_both
def signals_stop_and_are_passed(vcpus):
    with attached("signals", vcpus) as (_, agent, symbols):
        agent.resume()
        stop = agent.stop()
        equal((stop.kind, stop.signal), ("signal", 10))
        info = agent.call("get_signal_info", tid=1)
        equal(struct.unpack("<i", info[:4])[0], 10, "si_signo")
        handled = struct.unpack("<i", agent.read(1, symbols["handled"], 4))[0]
        agent.resume()  # without the signal
        agent.stop()
        equal(struct.unpack("<i", agent.read(1, symbols["handled"], 4))[0], handled, "signals handled")
        agent.resume((1, 1, "continue", {"signal": 10}))
        agent.stop()
        equal(struct.unpack("<i", agent.read(1, symbols["handled"], 4))[0], handled + 10, "signals handled")
        # A step with a signal ends at the handler's first instruction.
        agent.resume((1, 1, "step", {"signal": 10}))
        equal(agent.stop().kind, "step")
        equal(agent.registers(1)["rip"], symbols["on_signal"], "rip")
        agent.call("pass_signals", address=1 << 9)
        agent.call("insert_breakpoint", pid=1, address=symbols["on_signal"])
        agent.resume()
        equal(agent.stop().kind, "breakpoint")


@on_both
def a_crash_is_seen_before_the_end(vcpus):
    with attached("crash", vcpus) as (guest, agent, symbols):
        agent.write(1, symbols["stop_asked"], struct.pack("<i", 1))
        agent.resume()
        stop = agent.stop()
        equal((stop.kind, stop.signal), ("signal", 11))
        info = agent.call("get_signal_info", tid=1)
        equal(struct.unpack("<Q", info[16:24])[0], 8, "si_addr")
        agent.resume((1, 1, "continue", {"signal": 11}))
        stop = agent.stop()
        equal((stop.kind, stop.number & 0x7f), ("process_exited", 11))
        agent.resume()
        equal(guest.process.wait(LIMIT), 128 + 11, "exit status")


@on_both
def system_calls_are_caught(vcpus):
    with attached("loop", vcpus) as (_, agent, _symbols):
        agent.call("catch_syscalls", pid=1, flags=1, numbers=[230])  # clock_nanosleep
        for _ in range(3):
            agent.resume()
            stop = agent.stop()
            equal((stop.kind, stop.number), ("syscall_entry", 230))
            equal(agent.registers(1)["orig_rax"], 230, "orig_rax")
            agent.resume()
            stop = agent.stop()
            equal((stop.kind, stop.number), ("syscall_return", 230))
            equal(agent.registers(1)["rax"], 0, "result")
        # A call that is taken away is not made.
        agent.resume()
        agent.stop()
        registers = agent.registers(1)
        registers["orig_rax"] = (1 << 64) - 1
        registers["rax"] = 77
        agent.set_registers(1, registers)
        agent.resume()
        equal(agent.stop().kind, "syscall_return")
        equal(agent.registers(1)["rax"], 77, "rax")


@on_both
def forks_are_followed(vcpus):
    with attached("forks", vcpus, options=FORK_EVENTS) as (_, agent, symbols):
        agent.call("insert_breakpoint", pid=1, address=symbols["work"])
        agent.resume()
        stop = agent.stop()
        equal(stop.kind, "fork")
        child = stop.child
        equal({thread.pid for thread in agent.threads()}, {1, child}, "traced processes")
        agent.resume((child, -1, "continue"))
        stop = agent.stop()
        equal((stop.kind, stop.pid), ("breakpoint", child))
        agent.call("remove_breakpoint", pid=child, address=symbols["work"])
        agent.resume()
        stop = agent.stop()
        equal((stop.kind, stop.pid, stop.number), ("process_exited", child, 6 << 8))
        # The next child is let go, and the breakpoint is not in its way.
        agent.resume()
        stop = agent.stop()
        equal(stop.kind, "fork")
        agent.call("detach", pid=stop.child)
        agent.resume()
        stop = agent.stop()
        equal(stop.kind, "fork")
        # Without fork events no child has breakpoints.
        agent.call("detach", pid=stop.child)
        agent.call("set_options", flags=0)
        agent.resume()
        time.sleep(0.1)
        agent.call("freeze")
        check(not agent.stops, f"nothing stopped: {agent.stops}")
        check(1 in agent.processes(), "the program goes on")


@on_both
def vfork_and_exec(vcpus):
    with attached("vforks", vcpus, options=FORK_EVENTS | EXEC_EVENTS) as (_, agent, symbols):
        agent.call("insert_breakpoint", pid=1, address=symbols["work"])
        agent.resume()
        stop = agent.stop()
        while stop.kind in ("breakpoint", "vfork_done"):  # it waited for an earlier child, who was not traced
            agent.resume((-1, -1, "continue", {"step_over": 1} if stop.kind == "breakpoint" else {}))
            stop = agent.stop()
        equal(stop.kind, "vfork")
        child = stop.child
        seen = set()
        for _ in range(3):  # the parent goes on as soon as the child has its new program
            agent.resume()
            stop = agent.stop()
            seen.add((stop.kind, stop.pid))
            if stop.kind == "exec":
                agent.call("insert_breakpoint", pid=child, address=symbols["add"])
        check({("exec", child), ("vfork_done", 1)} <= seen, f"stops after vfork: {seen}")
        check(("breakpoint", child) in seen or ("breakpoint", 1) in seen, f"stops after vfork: {seen}")
        agent.call("detach", pid=child)
        agent.resume((-1, -1, "continue", {"step_over": 1}))
        stop = agent.stop()
        equal((stop.kind, stop.pid), ("breakpoint", 1))
        # Not followed: the child runs in memory without breakpoints.
        agent.call("set_options", flags=0)
        for _ in range(3):
            agent.resume((-1, -1, "continue", {"step_over": 1}))
            stop = agent.stop()
            equal((stop.kind, stop.pid), ("breakpoint", 1))


@on_both
def exec_forgets_breakpoints(vcpus):
    with attached("execs", vcpus, options=EXEC_EVENTS) as (_, agent, symbols):
        agent.call("insert_breakpoint", pid=1, address=symbols["loop"] if "loop" in symbols else symbols["work"])
        agent.write(1, symbols["stop_asked"], struct.pack("<i", 1))
        agent.call("remove_breakpoint", pid=1, address=symbols["loop"] if "loop" in symbols else symbols["work"])
        agent.call("insert_breakpoint", pid=1, address=symbols["vector_work"])
        agent.resume()
        equal(agent.stop().kind, "exec")
        agent.call("insert_breakpoint", pid=1, address=symbols["work"])
        agent.resume()
        equal(agent.stop().kind, "breakpoint")


@on_both
def one_thread_steps_while_others_stand(vcpus):
    with attached("threads", vcpus, options=THREAD_EVENTS) as (_, agent, symbols):
        agent.call("insert_breakpoint", pid=1, address=symbols["add"])
        agent.resume()
        tid = agent.stop().tid
        agent.call("remove_breakpoint", pid=1, address=symbols["add"])
        others = {t.tid: agent.registers(t.tid)["rip"] for t in agent.threads() if t.tid != tid}
        equal(len(others), 3, "other threads")
        for _ in range(10):
            agent.resume((1, tid, "step"))
            stop = agent.stop()
            if stop.tid != tid:  # it had met the breakpoint before
                continue
            equal(stop.kind, "step")
        counter = long_at(agent, 1, symbols["counter"])
        agent.resume((1, tid, "hold"))
        time.sleep(0.05)
        agent.call("freeze")
        equal(long_at(agent, 1, symbols["counter"]), counter, "what held threads do")
        agent.resume()
        time.sleep(0.05)
        agent.call("freeze")
        check(long_at(agent, 1, symbols["counter"]) > counter, "they go on")


@on_both
def many_threads_over_one_breakpoint(vcpus):
    with attached("threads", vcpus) as (_, agent, symbols):
        agent.call("insert_breakpoint", pid=1, address=symbols["add"])
        seen = set()
        first = long_at(agent, 1, symbols["counter"])
        for number in range(1, 61):
            agent.resume((-1, -1, "continue", {"step_over": 1}))
            stop = agent.stop()
            equal(stop.kind, "breakpoint")
            seen.add(stop.tid)
            # Nobody passes the breakpoint unseen, but who was behind it at the start.
            passed = long_at(agent, 1, symbols["counter"]) - first
            check(passed <= number + 3, f"{passed} have passed in {number} stops")
        check(len(seen) >= 3, f"threads that stopped: {seen}")


@test
def registers_of_a_sleeper_in_a_system_call():
    with attached("waits") as (_, agent, symbols):
        thread = agent.threads()[0]
        check(thread.flags & 4, f"it is in a system call: {thread}")
        registers = agent.registers(1)
        equal(registers["orig_rax"], 0, "read")
        rip = registers["rip"]
        agent.set_registers(1, registers)
        after = agent.registers(1)
        equal(after["rip"], rip, "rip")
        agent.resume()
        time.sleep(0.05)
        agent.call("freeze")
        thread = agent.threads()[0]
        check(thread.flags & 4, f"the call goes on: {thread}")
        equal(struct.unpack("<i", agent.read(1, symbols["handled"], 4))[0], 0, "interruptions that the program saw")


@on_both
def non_stop(vcpus):
    with attached("threads", vcpus) as (_, agent, symbols):
        agent.call("set_non_stop", flags=1)
        agent.resume()
        tid = [t.tid for t in agent.threads() if t.name == "second"][0]
        agent.call("request_stop", tid=tid)
        stop = agent.stop()
        equal((stop.kind, stop.tid, stop.frozen), ("requested", tid, False))
        registers = agent.registers(tid)
        before = long_at(agent, 1, symbols["counter"])
        time.sleep(0.05)
        check(long_at(agent, 1, symbols["counter"]) > before, "the others go on")
        equal(agent.registers(tid), registers, "registers of the stopped thread")
        agent.resume((1, tid, "continue"))
        agent.call("request_stop", tid=tid)
        agent.stop()


def stopped_ones(agent):
    return {thread.tid for thread in agent.threads() if thread.flags & 1}


def two_stops(agent):
    """Two threads that have stopped in non-stop mode. The stop of the first was seen, that of the second was not."""
    agent.call("set_non_stop", flags=1)
    agent.resume()
    first, second = [t.tid for t in agent.threads() if t.name in ("first", "second")]
    agent.call("request_stop", tid=first)
    equal(agent.stop().tid, first, "the stop that is seen")
    agent.call("request_stop", tid=second)
    while stopped_ones(agent) != {first, second}:
        pass
    return first, second


@on_both
def non_stop_does_not_send_on_what_has_just_stopped(vcpus):
    """A resume of all that crosses a stop: the server could not mean that thread."""
    with attached("threads", vcpus) as (_, agent, _):
        first, second = two_stops(agent)
        agent.resume()
        equal(stopped_ones(agent), {second}, "threads that stand")
        stop = agent.stop()
        equal((stop.kind, stop.tid), ("requested", second), "the stop that was on its way")
        agent.resume()
        equal(stopped_ones(agent), set(), "threads that stand at last")


@on_both
def nothing_runs_before_all_stops_are_seen(vcpus):
    """All-stop; and the signal of a thread that was sent on meanwhile is not lost."""
    with attached("threads", vcpus) as (_, agent, symbols):
        first, second = two_stops(agent)
        agent.call("set_non_stop", flags=0)
        agent.call("freeze")
        before = long_at(agent, 1, symbols["counter"])
        agent.resume((1, first, "continue", {"signal": 15}), (-1, -1, "continue"))
        equal(stopped_ones(agent), {second}, "threads that stand")
        time.sleep(0.05)
        equal(long_at(agent, 1, symbols["counter"]), before, "the counter of a program that stands")
        equal(agent.stop().tid, second, "the stop that was on its way")
        agent.resume()
        stop = agent.stop()
        while stop.kind != "process_exited":
            agent.resume((-1, -1, "continue", {"signal": stop.signal}))
            stop = agent.stop()
        equal(stop.number, 15, "what the program has died of")


@on_both
def a_client_that_dies_leaves_nothing(vcpus):
    with Guest("threads", vcpus) as guest:
        for action in ("breakpoint", "step", "freeze", "held"):
            agent = guest.agent()
            agent.call("freeze")
            agent.call("attach", pid=1)
            if action == "breakpoint":
                agent.call("insert_breakpoint", pid=1, address=guest.symbols["add"])
                agent.resume()
                agent.stop()
                agent.resume((-1, -1, "continue", {"step_over": 1}))
            elif action == "step":
                agent.resume((1, -1, "step", {"low": 0x1000, "high": (1 << 47) - 1}))
            elif action == "held":
                agent.resume((1, 1, "hold"))
            agent.close()
            # The next one may come when the first is quite gone.
            deadline = time.monotonic() + LIMIT
            while True:
                try:
                    agent = guest.agent()
                    break
                except (Refused, EOFError, ConnectionResetError):
                    check(time.monotonic() < deadline, "the agent is free again")
                    time.sleep(0.01)
            before = long_at(agent, 1, guest.symbols["counter"])
            while long_at(agent, 1, guest.symbols["counter"]) == before:
                check(time.monotonic() < deadline, f"the program goes on after {action}")
            agent.close()
            time.sleep(0.05)


@test
def a_second_debugger_is_refused_in_words():
    with Guest("loop") as guest:
        agent = guest.agent()
        try:
            guest.agent()
            raise AssertionError("a second client was served")
        except Refused as refused:
            contains(str(refused), "Another debugger")
        agent.call("processes")


@test
def nonsense_costs_the_connection_only():
    with Guest("loop") as guest:
        for junk in (b"\0" * 64, b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100,
                     struct.pack("<IIHHI", 0x47424443, 0x7fffffff, 1, 0, 1)):
            raw = socket.socket(socket.AF_UNIX)
            raw.settimeout(LIMIT)
            raw.connect(str(guest.socket()))
            raw.sendall(junk)
            equal(raw.recv(100), b"", "the answer to nonsense")
            raw.close()
        agent = guest.agent()
        for wrong in ("attach", "detach", "kill", "get_registers", "insert_breakpoint", "executable"):
            try:
                agent.call(wrong, pid=4711, tid=4711)
                raise AssertionError(f"{wrong} of nothing succeeded")
            except Refused as refused:
                check(refused.error in (3, 22), f"{wrong}: {refused}")
        agent.call("processes")


@test
def kill_ends_the_program():
    with attached("spin") as (guest, agent, _symbols):
        agent.call("kill", pid=1)
        agent.call("thaw")
        equal(guest.process.wait(LIMIT), 128 + 9, "exit status")


if __name__ == "__main__":
    main()
