#!/usr/bin/env python3
"""How gdb comes to a guest and leaves it: the servers of [debug], waiting before the first kernel thread, a second
gdb, a gdb that is killed, detaching and coming back."""
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from harness import BUILD, COWBIRD, LIMIT, check, contains, cowbird, equal, main, test
from debugged import Guest, SCRIPT, batch, go_to, in_order

FIRST = "cowbird::Machine::bring_up"


def only_host_threads(text):
    """No kernel thread has been made yet."""
    names = re.findall(r'Thread \S+ "([^"]*)"', text)
    check(names and all(name.endswith("(host)") for name in names), f"only threads of the host: {names}")


@test
def unix_server_waits_refuses_a_second_and_outlives_a_killed_gdb(scratch):
    server = scratch / "gdb"
    with Guest(scratch, debug=f'gdb = "unix:{server}"\nwait = true', wait="waits for gdb") as guest:
        with guest.gdb(at=server) as first:
            only_host_threads(first.run("info threads"))
            contains(first.run("monitor ps"), "pid")
            stop = go_to(first, FIRST)
            contains(stop, FIRST)
            contains(first.run("info threads"), '"boot" (running on vcpu 0)')
            contains(batch(f"target extended-remote {server}", "info threads"),
                     "This guest has a debugger already: another gdb is connected. Detach that one first.")
            contains(first.run("backtrace 1"), FIRST)
            go_to(first, "cowbird::sys_clock_nanosleep")
            first.run("break cowbird::sys_exit_group")
            first.run("watch -location cowbird::SchedCore::made")
            first.kill()
        guest.goes_on()
        with guest.gdb(at=server) as second:
            contains(second.run("info threads"), '"sh/1"')
            # This server was there before the agent that knows the guest's programs.
            second.run("add-inferior")
            second.run("inferior 2")
            second.run("attach 1")
            second.stopped()
            contains(second.run("info inferiors"), "process 1 ")
            second.run("detach")
            second.run("inferior 1")
            contains(go_to(second, "cowbird::sys_exit_group"), "sys_exit_group")
            second.run("detach")
            guest.goes_on()
            second.run(f"target extended-remote {server}")
            second.stopped()
            contains(second.run("info threads"), '"sh/1"')
            second.run("disconnect")
        guest.goes_on()
        equal(guest.mconsole("config", "gdb").strip(), f"OK unix:{server}", "what the management console says")


@test
def stdio_server_waits_and_ends_with_the_guest(scratch):
    file = scratch / "piped.toml"
    file.write_text('[machine]\nname = "piped"\nmemory = "32M"\ninit = "/bin/sh"\nargs = ["-c", "exit 0"]\n'
                    '[[console]]\nname = "con0"\nplugin = "null"\n[debug]\ngdb = "stdio"\nwait = true\n'
                    'on_panic = "exit"\n')
    text = batch(f"source {SCRIPT}", f"file {COWBIRD}", f"target extended-remote | {COWBIRD} boot {file}", "info threads",
                 f"tbreak {FIRST}", "continue", "tbreak cowbird::sys_exit_group", "continue", "print $current()->comm",
                 "kill", options=("-iex", "set sysroot /", "-iex", "set remotetimeout 60"))
    only_host_threads(text[:text.index("Temporary breakpoint")])
    in_order(text, "hit Temporary breakpoint 1", "hit Temporary breakpoint 2", r'\$1 = "sh"')
    deadline = time.monotonic() + LIMIT
    while subprocess.run([COWBIRD, "ls", "--names"], capture_output=True, text=True, timeout=LIMIT,
                         check=False).stdout.strip():
        check(time.monotonic() < deadline, "the guest lives on after gdb has killed it")
        time.sleep(0.05)


@test
def a_gdb_that_has_nothing_to_do_with_the_machine_file(scratch):
    """`cowbird gdb NAME` on a guest without [debug], twice in a row."""
    with Guest(scratch) as guest:
        for _ in range(2):
            done = subprocess.run([COWBIRD, "gdb", guest.name, "--", "-batch", "-nx", "-iex", "set sysroot /",
                                   "-ex", "info threads", "-ex", "cb-ps", "-ex", "info sharedlibrary"],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
            in_order(done.stdout, r'"sh/1"', r"vcpu0 \(host\)", r"PID +TID", r"Yes .*/fd\.so")
            guest.goes_on()


@test
def a_program_that_was_built_anew(scratch):
    """The file that the guest runs has gone, and another has its name: the host still has the old one."""
    program = scratch / "cowbird"
    shutil.copy(COWBIRD, program)
    with Guest(scratch, program=program, more=f'[plugins]\npath = ["{BUILD}/plugins"]') as guest:
        new = scratch / "new"
        new.write_bytes(Path("/bin/true").read_bytes())
        new.chmod(0o755)
        os.replace(new, program)
        for file in (False, True):
            if file:
                program.unlink()
            done = subprocess.run([COWBIRD, "gdb", guest.name, "--", "-batch", "-nx", "-iex", "set sysroot /",
                                   "-ex", "info threads", "-ex", "print $task(1)->comm", "-ex", "cb-ps",
                                   "-ex", "tbreak cowbird::sys_clock_nanosleep", "-ex", "continue", "-ex", "bt 2"],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
            in_order(done.stdout, r'"sh/1"', r"vcpu0 \(host\)", r'\$1 = "sh"', r"PID +TID",
                     r"hit Temporary breakpoint 1.*sys_clock_nanosleep", "enter_system_call")
            guest.goes_on()
        # Whoever only knows the server gets the right file from it.
        path = guest.serve(program=f"/proc/{guest.process.pid}/exe")
        text = batch(f"target extended-remote {path}", "info line cowbird::sys_read", "info threads")
        in_order(text, r"Line \d+ of .*core/.*sys_read", r'"sh/1"')
        guest.goes_on()


@test
def a_process_may_be_let_trace_the_guest(scratch):
    """Where kernel.yama.ptrace_scope is 1 all tests of this kind need it; where it is not, it does no harm."""
    with Guest(scratch) as guest:
        contains(guest.mconsole("tracer", str(os.getpid())), "OK")
        for wrong, words in (("x", "takes the id"), ("", "takes the id"), ("999999999", "There is no process 999999999")):
            result = cowbird("mconsole", guest.name, f"tracer {wrong}")
            equal(result.returncode, 1, f"exit status of tracer {wrong}")
            contains(result.stdout + result.stderr, words)


if __name__ == "__main__":
    main()
