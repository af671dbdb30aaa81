#!/usr/bin/env python3
"""While gdb has stopped the guest nothing of it goes on, and when it runs again it has not noticed: its clock and
timers, traffic between its programs, the watchdog, guest code that needs no kernel.

COWBIRD_STOP is how many seconds gdb keeps it; without it 6."""
import os
import re
import time

from harness import check, contains, equal, main, test
from debugged import PROGRAMS, Guest, go_to, until

STOP = float(os.environ.get("COWBIRD_STOP", "6"))
LINE = re.compile(r"ms=(\d+) alarms=(\d+) received=(\d+) wrong=(\d+) gap=(\d+)")


def lines(guest):
    return [tuple(int(n) for n in match) for match in LINE.findall(guest.text())]


def a_stop_is_not_noticed(scratch, vcpus):
    with Guest(scratch, "echo up; exec /t/debuggee-static clocks", "watchdog = 4", vcpus=vcpus, wait="ready") as guest:
        with guest.gdb() as gdb:
            before = go_to(gdb, "cowbird::sys_clock_nanosleep")
            contains(before, "sys_clock_nanosleep")
            seen = len(lines(guest))
            time.sleep(STOP)
            equal(len(lines(guest)), seen, "lines that the guest has written while it stood still")
            gdb.run("detach")
        until(lambda: len(lines(guest)) >= seen + 4 or guest.process.poll() is not None, "the guest's lines")
        equal(guest.process.poll(), None, f"the guest's end, which says {guest.text()[-500:]}")
        for ms, alarms, received, wrong, gap in lines(guest)[seen:]:
            print(f"# {ms} ms, {alarms} alarms, {received} bytes, longest gap {gap} ms")
            check(ms < 1000 * STOP and gap < 1000 * STOP, f"the guest's clock went on: {ms} ms, a gap of {gap} ms")
            check(alarms <= ms // 20 + 3, f"{alarms} alarms in {ms} ms, at one each 20 ms")
            check(received <= ms + 3 and wrong == 0, f"{received} bytes in {ms} ms, {wrong} of them wrong")
        check(sum(line[1] for line in lines(guest)[seen:]) > 0, "no alarm came any more")
        check(sum(line[2] for line in lines(guest)[seen:]) > 0, "no byte came any more")


@test
def sleep_timers_sockets_and_watchdog_do_not_notice(scratch):
    a_stop_is_not_noticed(scratch, 1)


@test
def nor_with_two_vcpus(scratch):
    a_stop_is_not_noticed(scratch, 2)


def counter(gdb):
    return int(gdb.run("print counter").split()[-1])


def goes_on(gdb, before):
    """Lets the guest run to the next nanosleep. Its program's counter, if the host has let that run too."""
    gdb.run("inferior 1")
    go_to(gdb, "cowbird::sys_clock_nanosleep")
    gdb.run("inferior 2")
    now = counter(gdb)
    return now if now > before else None


def guest_code_stands_still(scratch, vcpus):
    """A program that makes no system call, while the kernel is stopped for another one."""
    script = "/t/debuggee-static spin & echo up; while :; do cat /proc/uptime; sleep 0.05; done"
    with Guest(scratch, script, vcpus=vcpus, wait="ready") as guest, guest.gdb() as gdb:
        gdb.run("add-inferior")
        gdb.run("inferior 2")
        gdb.run(f"file {PROGRAMS}/debuggee-static")
        spinner = re.search(r"^(\d+) .*debuggee-stati", gdb.run("monitor ps"), re.M).group(1)
        gdb.run(f"attach {spinner}")
        gdb.stopped()
        first = counter(gdb)
        check(first > 0, "the program counts")
        for _ in range(3):
            now = until(lambda: goes_on(gdb, first), f"the program's counter to pass {first}")
            for _ in range(3):
                time.sleep(0.1)
                equal(counter(gdb), now, "the program's counter while the guest is stopped")
            first = now
        gdb.run("detach inferior 2")
        gdb.run("inferior 1")
        gdb.run("detach")
        guest.goes_on()


@test
def guest_code_stands_still_while_the_kernel_does(scratch):
    guest_code_stands_still(scratch, 2)


@test
def and_with_four_vcpus(scratch):
    guest_code_stands_still(scratch, 4)


if __name__ == "__main__":
    main()
