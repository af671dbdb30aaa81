#!/usr/bin/env python3
"""The gdb server's protocol with a real gdb, on a small machine instead of a guest (tests/unit/debug)."""
import os
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from harness import BUILD, Skip, check, contains, equal, main, test
import gdb as gdb_support
from gdb import GdbError, Mi, batch

TOOLS = BUILD / "tests" / "unit" / "debug"
PROGRAM = TOOLS / "debug-fake-program"
KERNEL = 1000000


class Server:
    """debug-fake-server, until the block ends. `address` is what gdb's `target remote` takes."""

    def __init__(self, listen=None, sleeping=2):
        if gdb_support.GDB is None:
            raise Skip("there is no gdb")
        self.folder = tempfile.TemporaryDirectory()
        self.path = f"{self.folder.name}/socket"
        self.trace = Path(self.folder.name) / "trace"
        self.process = subprocess.Popen(
            [str(TOOLS / "debug-fake-server"), listen or f"unix:{self.path}", str(PROGRAM), str(sleeping),
             str(self.trace)], stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        check(line.startswith("listening on "), line)
        self.listening = line.removeprefix("listening on ").strip()
        self.address = self.path if listen is None else self.listening.removeprefix("tcp:")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.folder.cleanup()

    def packets(self, start):
        """What gdb has sent that begins so."""
        return [line[2:] for line in self.trace.read_text(errors="replace").splitlines() if line.startswith("< " + start)]

    def ended(self):
        """Waits for the server's end; what it said."""
        return self.process.communicate(timeout=30)[1]


def remote(server, *commands, options=()):
    return batch(f"target remote {server.address}", *commands, options=options)


@test
def attach_finds_the_program_and_its_symbols():
    with Server() as server:
        output = remote(server, "info symbol $pc", "bt")
        contains(output, "_start in section .text")
        contains(output, "#0  _start () at")


@test
def threads_have_names_and_states():
    with Server() as server:
        output = remote(server, "info threads", "thread apply all bt 1", "thread name", "p $_thread", "p $_inferior")
        contains(output, f'* 1    Thread {KERNEL}.1 "worker/0" (ready)')
        contains(output, f'4    Thread {KERNEL}.4 "sleeper/1" (sleeping in fake_wait)')
        contains(output, f'Thread 3 (Thread {KERNEL}.3 "sleeper/0"')
        equal(len(server.packets("qThreadExtraInfo")), 0, "one document has all")


@test
def a_thousand_threads_come_in_one_round():
    with Server(sleeping=1000) as server:
        output = remote(server, "info threads")
        equal(len(re.findall(r'"sleeper/\d+" \(sleeping in fake_wait\)', output)), 1000)
        first = [p for p in server.packets("qXfer:threads:read") if p.endswith(":0,1000")]
        equal(len(server.packets("g")), 1001, "one `g` a thread but for the first")
        check(0 < len(first) < 10, first)


@test
def registers_are_read_and_written():
    with Server() as server:
        output = remote(server, "p $rip == &_start", "set $rax = 5", "p $rax", "set $xmm3.uint128 = 9", "p $xmm3.uint128",
                        "p $curtask", "p $mxcsr", "p $fctrl", "p/x $ftag", "p $orig_rax", "set $st0 = 1.5", "p $st0",
                        "p/x $ftag & 3")
        for line in ("$1 = 1", "$2 = 5", "$3 = 9", "$4 = 1", "$8 = -1", "$9 = 1.5"):
            contains(output, line + "\n")


@test
def a_sleeping_thread_has_its_saved_registers_only():
    with Server() as server:
        output = remote(server, "thread 3", "p $rax", "p $rbx", "set $rbx = 77", "p $rbx", "set $rax = 1")
        contains(output, "$1 = <unavailable>")
        contains(output, "$3 = 77")
        contains(output, 'Could not write register "rax"')


@test
def memory_is_read_written_and_searched():
    with Server() as server:
        output = remote(server, "x/s &words", "find &words, +18, 'n', 'e', 'e', 'd'", "p *(long*)0",
                        "set var *(long*)&counter = 77", "p *(long*)&counter", "compare-sections .text",
                        "dump memory /dev/null &_start &ends", "restore /dev/null binary &counter")
        contains(output, '"a needle in memory"')
        contains(output, "1 pattern found")
        contains(output, "Cannot access memory at address 0x0")
        contains(output, "= 77")
        contains(output, "matched.")


@test
def breakpoints_steps_and_finish():
    with Server() as server:
        output = remote(server, "break leaf", "continue", "bt", "finish", "next", "next", "next", "stepi",
                        "until leaf", "info breakpoints")
        contains(output, 'Thread 1 "worker/0" hit Breakpoint 1, leaf ()')
        contains(output, "#1  0x")
        contains(output, "#2  0x")
        contains(output, "breakpoint already hit 2 times")
        contains(output, "work () at")
        contains(output, "incq rounds")
        check(server.packets("vCont;r"), "gdb steps by ranges")


@test
def a_breakpoint_shows_the_instruction_under_it():
    with Server() as server:
        output = remote(server, "set breakpoint always-inserted on", "break leaf", "x/1xb &leaf", "continue",
                        "x/1xb &leaf")
        equal(output.count("0x90"), 2, output)


@test
def conditions_are_evaluated_by_the_server():
    with Server() as server:
        output = remote(server, "break again if $rcx == 2 && *(long*)0x%x > 400" % symbol("counter"), "continue", "p $rcx",
                        "p *(long*)&counter", "info breakpoints")
        contains(output, "$1 = 2\n")
        contains(output, "(target evals)")
        stops = [line for line in server.packets("vCont;c")]
        equal(len(stops), 1, "resumed once: false conditions cost no packet")


def symbol(name):
    out = subprocess.run(["nm", str(PROGRAM)], capture_output=True, text=True, check=True).stdout
    return int(re.search(rf"^([0-9a-f]+) \w {name}$", out, re.M).group(1), 16)


@test
def watchpoints_say_what_they_saw():
    with Server() as server:
        output = remote(server, "watch *(long*)&rounds", "continue", "delete", "rwatch *(long*)&rounds",
                        "awatch *(long*)&counter", "continue", "delete", "hbreak leaf", "continue")
        contains(output, "hit Hardware watchpoint 1")
        contains(output, "New value = 1")
        contains(output, "hit Hardware access (read/write) watchpoint 3")
        contains(output, "hit Breakpoint 4")


@test
def too_many_watchpoints_are_refused():
    with Server() as server:
        words = [f"watch *(char*){symbol('words') + i}" for i in range(5)]
        output = remote(server, *words, "continue")
        contains(output, "Could not insert hardware watchpoint")


@test
def system_calls_are_caught_by_name():
    with Server() as server:
        output = remote(server, "catch syscall getpid", "continue", "continue")
        contains(output, "(call to syscall getpid)")
        contains(output, "(returned from syscall getpid)")


@test
def scheduler_locking_runs_one_thread():
    with Server() as server:
        output = remote(server, "set scheduler-locking on", "thread 2", "break leaf", "continue", "thread 1", "p $pc == &_start",
                        "set scheduler-locking off", "continue")
        contains(output, 'Thread 2 "worker/1" hit Breakpoint 1')
        contains(output, "$1 = 1")
        contains(output, 'Thread 1 "worker/0" hit Breakpoint 1')


@test
def monitor_commands_stream_their_output():
    with Server() as server:
        output = remote(server, "monitor help", "thread 2", "monitor whoami", "monitor nothing", "monitor flood")
        contains(output, "help    this text")
        contains(output, f"{KERNEL}.2\n")
        contains(output, 'There is no monitor command "nothing"; "monitor help" lists them.')
        equal(len(re.findall(r"^line \d+$", output, re.M)), 1 << 14, "lines of `monitor flood`")


@test
def info_os_shows_tables():
    with Server() as server:
        output = remote(server, "info os", "info os tasks", "info os nothing")
        contains(output, "The threads of the machine")
        contains(output, "sleeper/0")


@test
def calls_of_functions_work():
    with Server() as server:
        output = remote(server, "p ((long(*)(void))&leaf)()", "p $pc == &_start")
        contains(output, f"$1 = {KERNEL}")
        contains(output, "$2 = 1")


@test
def the_end_of_the_guest_ends_session_and_server():
    with Server() as server:
        output = remote(server, "set $pc = &ends", "continue")
        contains(output, "exited with code 07")
        contains(server.ended(), "ended: 0")


@test
def killing_the_guest_ends_the_server():
    with Server() as server:
        remote(server, "kill")
        contains(server.ended(), "ended: 0")


@test
def detach_and_attach_again():
    with Server() as server:
        for _ in range(3):
            contains(remote(server, "break leaf", "continue", "detach"), "hit Breakpoint 1")


@test
def extended_remote_attaches_again_and_to_processes():
    with Server() as server:
        output = batch(f"target extended-remote {server.address}", "detach", f"attach {KERNEL}", "stepi 0", "add-inferior",
                       "inferior 2", "attach 1", "info inferiors", "info threads", "bt", "break leaf", "continue",
                       "detach inferior 2", "info threads")
        contains(output, 'Thread 1.1 "init"')
        contains(output, "Reading /bin/init from remote target")
        contains(output, "[Inferior 2 (process 1) detached]")
        contains(output, 'Thread 2.1 "init" hit Breakpoint')


@test
def attaching_to_nothing_fails():
    with Server() as server:
        contains(batch(f"target extended-remote {server.address}", "add-inferior", "inferior 2", "attach 99"),
                 "Attaching to process 99 failed")


@test
def forks_are_followed_or_left():
    attached = ("stepi 0", "add-inferior", "inferior 2", "attach 1")
    with Server() as server:
        output = batch(f"target extended-remote {server.address}", *attached, "set detach-on-fork off", "set $pc = &forks",
                       "catch fork", "continue", "next", "info inferiors")
        contains(output, "hit Catchpoint 1 (forked process")
        contains(output, "process 1000 ")
        check("too long" not in output, output)
    with Server() as server:
        output = batch(f"target extended-remote {server.address}", *attached, "set follow-fork-mode child",
                       "set $pc = &forks", "break leaf", "continue", "p $_inferior")
        contains(output, "[Attaching after")
        contains(output, "hit Breakpoint 1")


@test
def exec_is_caught():
    with Server() as server:
        output = batch(f"target extended-remote {server.address}", "stepi 0", "add-inferior", "inferior 2", "attach 1", "catch exec",
                       "set $pc = &execs", "continue")
        contains(output, "Catchpoint 1 (exec'd /bin/init)")


@test
def interrupt_stops_what_runs():
    with Server() as server, Mi() as gdb:
        gdb.run(f"target remote {server.address}")
        gdb.stopped()
        gdb.run("continue&")
        gdb.record("*running")
        gdb.run("interrupt")
        contains(gdb.stopped(), "SIGINT")
        gdb.run("-exec-continue")
        contains(gdb.interrupt_until_stopped(), "SIGINT")
        contains(gdb.run("info threads"), "sleeper/1")


@test
def non_stop_stops_one_thread():
    with Server() as server, Mi("-iex", "set non-stop on", "-iex", "set mi-async on") as gdb:
        gdb.run(f"target extended-remote {server.address}")
        for _ in range(4):
            gdb.stopped()
        gdb.run("break leaf thread 2")
        gdb.run("-exec-continue --all")
        stop = gdb.stopped()
        contains(stop, 'thread-id="2"')
        output = gdb.run("info threads")
        contains(output, '(ready)                  (running)')
        contains(output, "leaf ()")
        gdb.run("thread 1")
        gdb.run("-exec-interrupt --thread 1")
        contains(gdb.stopped(), 'thread-id="1"')
        gdb.run("-exec-interrupt --thread 3")
        contains(gdb.stopped(), 'thread-id="3"')
        gdb.run("thread 1")
        gdb.run("-exec-step-instruction --thread 1")
        contains(gdb.stopped(), "end-stepping-range")
        gdb.run("delete")
        gdb.run("-exec-continue --all")
        gdb.run("detach")
    with Server() as server:
        contains(remote(server, "info threads"), "worker/1")


@test
def a_gdb_that_dies_frees_the_guest():
    with Server() as server:
        gdb = Mi()
        gdb.run(f"target remote {server.address}")
        gdb.run("break leaf")
        gdb.run("-exec-continue")
        gdb.stopped()
        gdb.kill()
        gdb.close()
        contains(remote(server, "info threads"), "worker/0")


@test
def a_second_gdb_is_refused_in_words():
    with Server() as server, Mi() as gdb:
        gdb.run(f"target remote {server.address}")
        output = remote(server)
        contains(output, "This guest has a debugger already: another gdb is connected. Detach that one first.")
        contains(gdb.run("info threads"), "worker/0")


@test
def a_connection_cut_in_a_packet_frees_the_guest():
    with Server() as server:
        for data in (b"+$qSupported:multiprocess+#c6$Hg0#df$m4010", b"\x03\x03\x03", b"", b"$" * 1000, b"+" * 5000,
                     b"+$?#3f$vCont;c#a8", b"%Stop:garbage", bytes(range(256)) * 40):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(server.path)
                raw.sendall(data)
        contains(remote(server, "info threads"), "worker/0")


@test
def tcp_listens_on_the_loopback_and_on_ipv6():
    for listen in ("tcp::0", "tcp:127.0.0.1:0", "tcp:[::1]:0"):
        try:
            server = Server(listen)
        except AssertionError:
            if "::1" in listen:
                raise Skip("this host has no IPv6")
            raise
        with server:
            check(not server.listening.endswith(":0"), server.listening)
            contains(remote(server, "info threads"), "worker/0")


@test
def gdb_talks_to_it_through_a_pipe():
    if gdb_support.GDB is None:
        raise Skip("there is no gdb")
    output = batch(f"target remote | {TOOLS}/debug-fake-server stdio {PROGRAM} 2>/dev/null", "break leaf", "continue", "bt")
    contains(output, "hit Breakpoint 1, leaf")


@test
def addresses_that_cannot_be_used_are_refused():
    def words(listen):
        done = subprocess.run([str(TOOLS / "debug-fake-server"), listen, str(PROGRAM)], capture_output=True, text=True,
                              timeout=30, check=False)
        equal(done.returncode, 1, listen)
        return done.stderr
    contains(words("udp:1"), '"udp:1" is no address for gdb. Write "tcp:HOST:PORT", "unix:/PATH" or "stdio".')
    contains(words("tcp:localhost:70000"), '"70000" is no port number')
    contains(words("tcp:::1:5"), "brackets")
    contains(words("unix:"), "has no path")
    contains(words("unix:/" + "x" * 200), "too long")
    with tempfile.NamedTemporaryFile() as file:
        contains(words(f"unix:{file.name}"), "is no socket")
    with Server() as server:
        contains(words(f"unix:{server.path}"), "in use by another server")
        equal(os.stat(server.path).st_mode & 0o777, 0o600, "mode of the socket")
    with tempfile.TemporaryDirectory() as folder:  # what a server that was killed has left
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(f"{folder}/s")
        with Server(f"unix:{folder}/s") as server:
            time.sleep(0)
            contains(batch(f"target remote {folder}/s", "info threads"), "worker/0")


if __name__ == "__main__":
    main()
