#!/usr/bin/env python3
"""Devices of a running guest: `cowbird ls`, and hot-plug through the management console under load."""
import json
import os
import signal
import socket
import struct

from harness import LIMIT, Skip, check, contains, cowbird, equal, main, test  # noqa: F401
from managed_guest import Guest, wait_until


def disk(scratch, name="disk.img", size=1 << 20):
    path = scratch / name
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def listed():
    """What `cowbird ls --json` says, by name."""
    result = cowbird("ls", "--json")
    equal(result.returncode, 0, f"exit status of ls: {result.stderr!r}")
    return {guest["name"]: guest for guest in json.loads(result.stdout)}


# --- cowbird ls

@test
def ls_shows_devices(scratch):
    image, other = disk(scratch), disk(scratch, "odd name,here.img")
    result = cowbird("ls")
    equal((result.returncode, result.stdout), (0, b""), "ls without a guest")
    contains(result.stderr, "No guest runs in")
    config = f'[[block]]\nname = "ubda"\nplugin = "file"\npath = "{image}"\n'
    with Guest(scratch, "exec 3< /dev/ubda; echo open; sleep 1000", machine=config, expect="open") as guest, \
            Guest(scratch, name="second"):
        guest.ask("config", f"ubdb={{plugin='file', path='{other}'}}")
        guest.ask("config", "ssl3=pts")
        guests = listed()
        equal(sorted(guests), ["demo", "second"], "guests")
        demo = guests["demo"]
        equal(demo["disks"], [{"name": "ubda", "setting": str(image), "open": True},
                              {"name": "ubdb", "setting": f'{{ plugin = "file", path = "{other}" }}', "open": False}])
        equal(demo["interfaces"], [], "interfaces")
        consoles = {device["name"]: device for device in demo["consoles"]}
        equal(sorted(consoles), ["con0", "ssl3"], "consoles")
        equal((consoles["con0"]["open"], consoles["ssl3"]["open"]), (True, False), "open consoles")
        contains(consoles["ssl3"]["setting"], "pts")
        equal(guests["second"]["disks"], [], "disks of the other guest")
        table = cowbird("ls").stdout.decode().splitlines()
        row = next(line for line in table if line.startswith("demo"))
        for part in (f"ubda={image}", "ubdb={ plugin", "con0=fd:0,fd:1", "ssl3=pts"):
            contains(row, part)
        # They are what they are now.
        guest.ask("remove", "ubdb")
        guest.ask("remove", "ssl3")
        demo = listed()["demo"]
        equal([device["name"] for device in demo["disks"] + demo["consoles"]], ["ubda", "con0"])
        # A guest that was told to stand still answers as ever.
        guest.ask("stop")
        equal([device["name"] for device in listed()["demo"]["disks"]], ["ubda"])
        guest.ask("go")


@test
def ls_of_a_guest_that_does_not_answer(scratch):
    image = disk(scratch)
    config = f'[[block]]\nname = "ubda"\nplugin = "file"\npath = "{image}"\n'
    with Guest(scratch, machine=config) as guest, Guest(scratch, name="second"):
        os.kill(guest.process.pid, signal.SIGSTOP)
        guests = listed()
        # What the host knows of it, and all of the other one.
        equal(guests["demo"]["disks"], [{"name": None, "setting": str(image), "open": None}])
        check(guests["demo"]["memory_used"] > 0, "memory")
        equal([device["name"] for device in guests["second"]["consoles"]], ["con0"])
        os.kill(guest.process.pid, signal.SIGCONT)
        equal([device["name"] for device in listed()["demo"]["disks"]], ["ubda"])
        # Its directory stays, without it.
        guest.process.kill()
        guest.process.wait()
        check((guest.directory / "pid").exists(), "the directory went with SIGKILL")
        equal(list(listed()), ["second"], "guests")


@test
def ls_of_a_console_that_is_not_ours(scratch):
    # As UML, which does not know the command; and one whose answer is nonsense.
    for answer in (struct.pack("=III", 1, 0, 16) + b"Unknown command\0", b"nonsense"):
        with Guest(scratch) as guest:
            path = guest.directory / "mconsole"
            path.unlink()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
                server.bind(str(path))
                server.settimeout(LIMIT)
                child = os.fork()
                if child == 0:
                    _, client = server.recvfrom(4096)
                    server.sendto(answer, client)
                    os._exit(0)
                demo = listed()["demo"]
                os.waitpid(child, 0)
            check(all(device["name"] is None for device in demo["consoles"]), "named consoles")


if __name__ == "__main__":
    main()
