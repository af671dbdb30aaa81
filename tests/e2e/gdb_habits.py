#!/usr/bin/env python3
"""What people type into gdb by habit, also where it makes little sense: nothing of it kills or hangs the guest, leaves gdb
with something that is not there, or shows what is not so."""
import re

from harness import check, contains, main, test
from debugged import Guest, in_order, until
from gdb import GdbError

WITH_LOOP = "echo up; /t/debuggee-static threads > /dev/null & while :; do cat /proc/uptime; sleep 0.05; done"


def refused(gdb, command, words):
    try:
        gdb.run(command)
    except GdbError as error:
        contains(str(error), words, command)
    else:
        check(False, f"{command} was not refused")


@test
def a_function_is_called_and_gdb_detaches(scratch):
    """The call's end is a fault, which is not for the kernel."""
    with Guest(scratch) as guest:
        with guest.gdb() as gdb:
            thread = re.search(r'^\*? +(\d+) .*"irq \(host\)"', gdb.run("info threads"), re.M).group(1)
            gdb.run(f"thread {thread}")
            contains(gdb.run("print (int)getpid()"), f"= {guest.process.pid}")
            # A thread that sleeps has nowhere to run it; gdb says why, and knows its registers as before.
            thread = re.search(r'^\*? +(\d+) .*"sh/1" \(sleeping', gdb.run("info threads"), re.M).group(1)
            gdb.run(f"thread {thread}")
            before = gdb.run("info registers rsp rip")
            refused(gdb, "print (int)getpid()", "no function can be called there. Choose a thread that runs.")
            contains(gdb.run("info registers rsp rip"), before)
            gdb.run("detach")
            guest.goes_on()


@test
def a_process_is_attached_once(scratch):
    with Guest(scratch) as guest, guest.gdb() as gdb:
        gdb.run("add-inferior")
        gdb.run("inferior 2")
        refused(gdb, "attach 1000000", "Attaching to process 1000000 failed")
        gdb.run("attach 1")
        gdb.stopped()
        gdb.run("add-inferior")
        gdb.run("inferior 3")
        refused(gdb, "attach 1", "Attaching to process 1 failed")
        gdb.run("detach inferior 2")
        gdb.run("inferior 1")
        in_order(gdb.run("info threads"), '"sh/1"')
        gdb.run("detach")
        guest.goes_on()


@test
def run_starts_no_guest(scratch):
    """gdb kills first, and asks before that."""
    with Guest(scratch) as guest, guest.gdb() as gdb:
        refused(gdb, "run", "failed")
        contains(gdb.run("info inferiors"), "<null>")
        refused(gdb, "continue", "not being run")
        guest.process.wait(60)


def threads_of(gdb, inferior):
    """Lines of `info threads` for one inferior."""
    return [line for line in gdb.run("info threads").splitlines() if re.match(rf"\*? +{inferior}\.\d+ ", line)]


@test
def non_stop_with_a_guest_process(scratch):
    with Guest(scratch, WITH_LOOP, vcpus=2) as guest, guest.gdb("-iex", "set non-stop on", stop=False) as gdb:
        until(lambda: "(running)" not in gdb.run("info threads"), "the stops of all threads")
        gdb.run("add-inferior")
        gdb.run("inferior 2")
        refused(gdb, "attach 3", "Attaching to process 3 failed")  # the kernel stands still
        gdb.run("inferior 1")
        gdb.run("continue -a &")
        guest.grow()
        gdb.run("inferior 2")
        gdb.run(f"file {guest.program.parent}/tests/e2e/debuggee-static")
        gdb.run("attach 3")
        until(lambda: len(threads_of(gdb, 2)) == 4 and not any("(running)" in t for t in threads_of(gdb, 2)),
              "the stops of the program's threads")
        guest.grow()
        # Once on their way they go on, and a condition can be changed under way.
        gdb.run("break debuggee.c:add if a == 1000")
        gdb.run("continue -a &")
        gdb.records.clear()
        guest.grow()
        until(lambda: all("(running)" in t for t in threads_of(gdb, 2)), "the program on its way")
        check(not [r for r in gdb.records if r.startswith("*stopped")], f"stops: {gdb.records}")
        gdb.run("condition 1 b == 1")
        # The three that call it stop there, each once: one that stands is not sent on for another one's condition.
        until(lambda: sum("(running)" not in t for t in threads_of(gdb, 2)) == 3, "the stops of all three")
        guest.grow()
        hits = re.findall(r'breakpoint-hit.*thread-id="(\d+)"', "\n".join(gdb.records))
        check(len(hits) == len(set(hits)) == 3, f"stops: {hits}")
        gdb.kill()
        guest.goes_on()


@test
def a_system_call_is_caught_after_an_exec_too(scratch):
    """gdb asks for it anew then, and does not say in which process."""
    with Guest(scratch, "echo up; read line; exec sleep 1000") as guest, guest.gdb() as gdb:
        gdb.run("add-inferior")
        gdb.run("inferior 2")
        gdb.run("attach 1")
        gdb.stopped()
        gdb.run("catch syscall clock_nanosleep")
        gdb.run("continue")
        guest.type()
        gdb.stopped()
        contains(gdb.console, "is executing new program")
        contains(gdb.console, "(call to syscall clock_nanosleep)")
        check("Error inserting" not in "".join(gdb.log), "gdb's complaint")


@test
def a_reboot_ends_the_guests_programs(scratch):
    """gdb knows process 1 of the first boot no more, and can attach that of the second."""
    server = scratch / "gdb"
    with Guest(scratch, "echo up; read line; reboot -f", debug=f'gdb = "unix:{server}"') as guest:
        with guest.gdb(at=server) as gdb:
            gdb.run("add-inferior")
            gdb.run("inferior 2")
            gdb.run("attach 1")
            gdb.stopped()
            gdb.run("set schedule-multiple on")
            gdb.run("continue")
            guest.type()
            gdb.stopped()
            contains(gdb.console, "Program terminated with signal SIGKILL")
            check("process 1 " not in gdb.run("info inferiors"), "process 1 of the first boot is gone")
            gdb.run("inferior 1")
            gdb.run("continue")
            guest.says("up", 2)
            gdb.interrupt_until_stopped()
            gdb.run("inferior 2")
            gdb.run("attach 1")
            gdb.stopped()
            contains(gdb.run("info inferiors"), "process 1 ")


WITH_WORK = "echo up; /t/debuggee-static threads > /dev/null & while :; do cat /proc/3/stat; sleep 0.05; done"


def works(guest):
    """The program, which nobody holds, uses the processor."""
    def used():
        lines = [line.split() for line in guest.text().splitlines()[:-1] if line.startswith("3 (debuggee")]
        return int(lines[-1][13]) + int(lines[-1][14]) if lines else -1
    until(lambda: used() >= 0, "the program")
    before = used()
    until(lambda: used() > before, "work of the program")


@test
def gdb_leaves_in_the_middle_of_a_step(scratch):
    """Non-stop, where gdb lets it: threads that step, stand and run go on as if nothing had been."""
    with Guest(scratch, WITH_WORK, vcpus=2) as guest:
        with guest.gdb("-iex", "set non-stop on", stop=False) as gdb:
            until(lambda: "(running)" not in gdb.run("info threads"), "the stops of all threads")
            gdb.run("continue -a &")
            works(guest)
            gdb.run("add-inferior")
            gdb.run("inferior 2")
            gdb.run(f"file {guest.program.parent}/tests/e2e/debuggee-static")
            for leave in (lambda: gdb.run("detach"), gdb.kill):
                gdb.records.clear()
                gdb.run("attach 3")
                until(lambda: not any("(running)" in t for t in threads_of(gdb, 2)), "the stops of the program")
                gdb.run("tbreak debuggee.c:add")
                gdb.run("continue -a &")
                stop = gdb.stopped()
                while "breakpoint-hit" not in stop:
                    stop = gdb.stopped()
                gdb.run("-thread-select " + re.search(r'thread-id="(\d+)"', stop).group(1))
                gdb.run("stepi 1000000 &")
                leave()
                works(guest)
        guest.goes_on()


if __name__ == "__main__":
    main()
