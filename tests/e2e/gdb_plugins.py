#!/usr/bin/env python3
"""Plugins under gdb: the symbols of those that are loaded, and of those that come while the guest runs, where
breakpoints wait for them."""
import re
import subprocess

from harness import COWBIRD, LIMIT, check, contains, main, test
from debugged import Guest, in_order

# Opens the line, or the disk, as soon as it is there.
SERIAL = "echo up; while :; do [ -c /dev/ttyS3 ] && echo line > /dev/ttyS3; echo tick; sleep 0.1; done"
DISK = "echo up; while :; do [ -b /dev/ubda ] && dd if=/dev/ubda of=/dev/null bs=512 count=1; echo tick; sleep 0.1; done"


def loaded(gdb):
    return set(re.findall(r"^0x\S+ +0x\S+ +Yes +\S*/(\w+)\.so$", gdb.run("info sharedlibrary"), re.M))


def a_breakpoint_waits_for_its_plugin(scratch, script, plugin, places, device, vcpus):
    with Guest(scratch, script, vcpus=vcpus, more='[[console]]\nname = "con0"\nplugin = "fd"\ninput = 0\noutput = 1') \
            as guest, guest.gdb() as gdb:
        check("fd" in loaded(gdb), f"the console's plugin has symbols: {loaded(gdb)}")
        check(plugin not in loaded(gdb), f"{plugin} is not there yet: {loaded(gdb)}")
        contains(gdb.run("info line FdChannel::read"), "plugins/channels/fd/")
        gdb.run("set breakpoint pending on")
        for place in places:
            contains(gdb.run(f"break {place}"), "pending")
        gdb.run("continue &")
        guest.grow()
        # It is answered when the device is there: the guest stops on the way.
        asking = subprocess.Popen([COWBIRD, "mconsole", guest.name, "config", device], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for place in places:
            contains(gdb.stopped(), place)
            check(plugin in loaded(gdb), f"the symbols of {plugin} have come: {loaded(gdb)}")
            in_order(gdb.run("backtrace"), place, "cowbird_thread_entry")
            gdb.run("continue &")
        gdb.run("interrupt")
        gdb.stopped()
        contains(gdb.run("info os plugins"), f"{plugin}.so")
        gdb.run("delete")
        gdb.run("detach")
        guest.goes_on()
        asking.wait(LIMIT)
        # Whoever comes now has all symbols at once.
        contains(guest.mconsole("config", device.split("=")[0]), device.rsplit("/", 1)[1])
        text = guest.batch(f"info line {places[0]}", f"break {places[-1]}", "continue", "bt 1")
        in_order(text, r"Line \d+ of ", f"hit Breakpoint 1, .*{re.escape(places[-1].split(':')[-1])}")
        guest.goes_on()


@test
def a_serial_lines_plugin_comes_while_the_guest_runs(scratch):
    a_breakpoint_waits_for_its_plugin(scratch, SERIAL, "file", ("FileChannel::open_file", "FileChannel::write"),
                                      f"ssl3=file:{scratch}/line.log", 1)
    contains((scratch / "line.log").read_text(), "line")


@test
def a_disks_plugin_comes_while_the_guest_runs(scratch):
    (scratch / "disk").write_bytes(b"disk" * 16384)
    a_breakpoint_waits_for_its_plugin(scratch, DISK, "file", ("FileBackend::info", "FileBackend::submit"),
                                      f"ubd0={scratch}/disk", 2)


if __name__ == "__main__":
    main()
