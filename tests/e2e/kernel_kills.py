#!/usr/bin/env python3
"""Why the kernel itself ended a process: the log always says so, in a line of its own."""
import os
import re
import signal
import time
from pathlib import Path

from harness import check, contains, cowbird, equal, main, run, test
from managed_guest import Guest, wait_until


def stubs(guest):
    """The host processes behind the guest's programs, oldest first."""
    children = []
    for task in Path(f"/proc/{guest.process.pid}/task").iterdir():
        children += map(int, (task / "children").read_text().split())
    return sorted(children)


def log(guest):
    return guest.ask("proc", "kmsg")


@test
def a_host_process_is_killed(scratch):
    script = "for i in 1 2 3 4 5 6; do sh -c 'while :; do sleep 0.05; done' & done; echo ready; while :; do wait; done"
    with Guest(scratch, script, expect="ready") as guest:
        line = re.compile(r"Process \d+ \(\w+\) dies, as the host process behind it is gone: "
                          r"it was ended by signal 9\.")
        # Some are warm and stand for no program, and one is init's, with which the guest ends.
        for victim in stubs(guest):
            if line.search(guest.text()) or guest.process.poll() is not None:
                break
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it was recycled away
            time.sleep(0.1)
        wait_until(lambda: line.search(guest.text()), "the line in the log")


@test
def the_host_process_of_init_is_killed(scratch):
    with Guest(scratch, "while :; do sleep 0.05; done", log="warning") as guest:
        for victim in stubs(guest):
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        guest.process.wait(60)
        equal(guest.process.returncode, 3, "exit status")
        contains(guest.text(),
                 "Process 1 (init) dies, as the host process behind it is gone: it was ended by signal 9.")
        contains(guest.text(), "Process 1 (init) was killed by signal 9; a guest cannot go on without it.")


GROW = "x=0123456789abcdef; while :; do x=$x$x; done"


@test
def init_is_not_killed_for_memory(scratch):
    """Init eats, and everybody else is small: those die first, and then the guest is told to be stuck."""
    with Guest(scratch, f"sleep 1000 & echo ready; {GROW}", config='memory = "16M"', log="warning", expect="") as guest:
        guest.process.wait(60)
        equal(guest.process.returncode, 3, "exit status")
        contains(guest.text(),
                 "Out of memory: process 1 (init) needs more, and there is no process that could be killed.")
        check("killed by signal" not in guest.text(), guest.text())


@test
def the_one_program_of_a_guest_is_killed_for_memory(scratch):
    result = run("/bin/sh", "-c", GROW, options=("--memory", "16M"))
    equal(result.returncode, 128 + 9, "exit status")
    contains(result.stderr, "Out of memory: process 1 (sh) is killed, as there is no other one that could be.")


@test
def memory_for_others_while_somebody_eats(scratch):
    """Programs are killed for memory again and again while memory comes and goes; init lives."""
    script = (f"eater() {{ while [ ! -e /dev/ttyS20 ]; do sh -c '{GROW}' 2> /dev/null; done; }}\n"
              "eater & eater & echo ready; wait; echo ended; while :; do sleep 1; done")
    with Guest(scratch, script, config='memory = "32M"\nvcpus = 2', log="warning", expect="ready") as guest:
        for turn in range(40):
            words = ("mem-=8M", "mem=32M", "mem-=30M", "mem+=1M", "mem=32M")[turn % 5]
            result = cowbird("mconsole", guest.name, "config", words)
            check(result.returncode in (0, 1) and result.stdout.strip(), f"{words}: {result}")
            check(guest.process.poll() is None, f"the guest ended after {words}: {guest.text()[-2000:]}")
        equal(guest.ask("config", "mem=32M"), "OK\n")
        guest.ask("config", "ssl20=null")
        wait_until(lambda: "ended" in guest.text(), "the end of the eaters")
        equal(guest.ask("halt"), "OK\n")
        guest.ended(0)


@test
def memory_is_taken_from_busy_programs(scratch):
    """As much as there is, and a word about the rest; nobody is killed for it."""
    script = ("for i in 1 2 3 4; do (while :; do sleep 0.02; done) & done\n"
              "echo ready; wait; echo ended")
    with Guest(scratch, script, config='memory = "64M"\nvcpus = 2', log="warning", expect="ready") as guest:
        for _ in range(10):
            contains(guest.ask("config", "mem-=63M", status=1), "of 63M could be taken; the guest has ")
            contains(guest.ask("config", "mem-=63M", status=1), "63M cannot be taken from it.")
            equal(guest.ask("config", "mem+=4M"), "OK\n")
            equal(guest.ask("config", "mem=64M"), "OK\n")
            equal(guest.ask("config", "mem=20M"), "OK\n")
            equal(guest.ask("config", "mem=64M"), "OK\n")
        check("Out of memory" not in guest.text() and "ended" not in guest.text(), guest.text())


@test
def the_limit_of_processor_time(scratch):
    script = "(ulimit -t 1; trap '' XCPU; while :; do :; done); echo ended $?; sleep 1000"
    with Guest(scratch, script, expect="ended") as guest:
        contains(guest.text(), "ended 137")
        contains(log(guest), "(init) is killed: it used more processor time than RLIMIT_CPU allows.")


if __name__ == "__main__":
    main()
