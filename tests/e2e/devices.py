#!/usr/bin/env python3
"""Devices of a running guest: `cowbird ls`, and hot-plug through the management console under load."""
import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from agent_client import Agent
from console_guest import x_server
from harness import COWBIRD, LIMIT, Skip, Terminal, alive, check, contains, cowbird, equal, main, processes_of, test
from managed_guest import Guest, wait_until

MIB = 1 << 20


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
        contains(guest.ask("config", "ubdbr", status=1), "here the name is ubdb.")
        contains(guest.ask("config", f"ubdc={image},,serial", status=1), "serial number")
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
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            # Its socket takes nothing more.
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.sendto(b"version", str(guest.directory / "mconsole"))
            late = cowbird("mconsole", "--timeout", "1", "demo", "version")
        equal(late.returncode, 4, f"exit status without an answer: {late.stderr!r}")
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


@test
def ls_of_an_answer_without_end(scratch):
    with Guest(scratch) as guest, Guest(scratch, name="second"):
        path = guest.directory / "mconsole"
        path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(path))
            child = os.fork()
            if child == 0:
                _, client = server.recvfrom(4096)
                with contextlib.suppress(OSError):  # until it has gone
                    while True:
                        server.sendto(struct.pack("=III", 0, 1, 10) + b"con0=null\0", client)
                        time.sleep(0.1)
                os._exit(0)
            guests = listed()
            os.waitpid(child, 0)
        check(all(device["name"] is None for device in guests["demo"]["consoles"]), "named consoles")
        equal([device["name"] for device in guests["second"]["consoles"]], ["con0"])


# --- memory

def blocks(guest):
    """Bytes that the host has given for the guest's memory."""
    return memory_status(guest).st_blocks * 512


def memory_status(guest):
    """The status of the guest's memory file."""
    for entry in Path(f"/proc/{guest.process.pid}/fd").iterdir():
        if os.readlink(entry).startswith("/memfd:cowbird-memory"):
            return entry.stat()
    raise AssertionError("the guest has no file of memory")


def meminfo(guest, key):
    """Bytes, as the guest says."""
    _, text = guest.uml_mconsole("proc", "meminfo")
    return int(re.search(rf"^{key}:\s+(\d+) kB", text, re.M)[1]) << 10


@test
def memory_goes_to_the_host_and_comes_back(scratch):
    # Nearly all of it is touched, and given up.
    fill = "dd if=/dev/zero of=/tmp/fill bs=1M count=72 2> /dev/null; rm /tmp/fill; echo filled; "
    script = (f"mount -t tmpfs -o size=80M none /tmp; {fill}\n"
              f"while [ ! -e /dev/ttyS9 ]; do sleep 0.05; done\n{fill} sleep 1000")
    with Guest(scratch, script, config='memory = "96M"', expect="filled") as guest:
        def config(setting, wanted=(0, "OK")):
            status, text = guest.uml_mconsole("config", setting)
            equal((status, text.strip()), wanted, f"config {setting}")

        config("mem", (0, "OK 96M"))
        total, free, full = (meminfo(guest, "MemTotal"), meminfo(guest, "MemFree"), blocks(guest))
        check(full >= 72 * MIB, f"only {full} bytes have been touched")
        equal(memory_status(guest).st_size, 96 * MIB, "size of the file")
        equal(memory_status(guest).st_nlink, 0, "names of the file")
        equal(listed()["demo"]["memory_size"], 96 * MIB, "memory of the guest")
        used = listed()["demo"]["memory_used"]
        config("mem-=64M")
        config("mem", (0, "OK 32M"))
        equal(listed()["demo"]["memory_size"], 32 * MIB, "memory of the guest")
        check(listed()["demo"]["memory_used"] < used - 60 * MIB, "memory that is used of the host's")
        # What the file has is what the guest has.
        check(blocks(guest) <= 32 * MIB, f"the file still has {blocks(guest)} bytes")
        equal(meminfo(guest, "MemTotal"), total, "MemTotal, which UML leaves as it is as well")
        less = free - meminfo(guest, "MemFree")
        check(60 * MIB <= less <= 68 * MIB, f"MemFree has gone down by {less} bytes")
        config("mem+=16M")
        config("mem", (0, "OK 48M"))
        more = meminfo(guest, "MemFree") - (free - less)
        check(12 * MIB <= more <= 20 * MIB, f"MemFree has come up by {more} bytes")
        check(blocks(guest) <= 48 * MIB, "memory that nobody has touched is there")
        # In words: more than there ever was, more than can go, nonsense.
        for setting, words in (("mem+=49M", "was started with 96M and cannot have more; it has 48M now"),
                               ("mem=97M", "was started with 96M and cannot have more"),
                               ("mem-=48M", "The guest has 48M; 48M cannot be taken from it"),
                               ("mem-=1000G", "cannot be taken from it"), ("mem=0", "The size is 0"),
                               ("mem=1", "whole number of pages"), ("mem+=", "is no size"), ("mem-=-1M", "is no size"),
                               ("mem=99999999999999999999999M", "is no size")):
            status, text = guest.uml_mconsole("config", setting)
            check(status != 0 and text.startswith("ERR "), f"config {setting}: {status} {text!r}")
            contains(text, words, f"config {setting}")
        status, text = guest.uml_mconsole("remove", "mem")
        check(status != 0, "memory is removed")
        contains(text, "ERR Memory cannot be removed")
        config("mem", (0, "OK 48M"))
        config("mem=96M")
        config("mem", (0, "OK 96M"))
        check(abs(meminfo(guest, "MemFree") - free) < 4 * MIB, "MemFree is not what it was")
        # And it is memory: the guest fills it once more.
        guest.ask("config", "ssl9=null")
        wait_until(lambda: guest.text().count("filled") == 2, "filling again")
        check(blocks(guest) >= 72 * MIB, "the file has not grown again")
        config("mem=32M")
        check(blocks(guest) <= 32 * MIB, f"the file still has {blocks(guest)} bytes")


# --- a backup

@test
def a_disk_is_copied_while_the_guest_stands_still(scratch):
    # Numbered blocks, each synced before it is told; the copy has all that were told of by then.
    image, copy = disk(scratch, size=8 * MIB), scratch / "copy.img"
    script = ("i=1; while :; do printf '%-511d\\n' $i > /block; "
              "dd if=/block of=/dev/ubda bs=512 seek=$i conv=notrunc 2> /dev/null; sync; echo synced $i; "
              "i=$((i+1)); done")
    machine = f'[[block]]\nname = "ubda"\nplugin = "file"\npath = "{image}"\n'

    def told(guest):
        numbers = re.findall(r"synced (\d+)\r?\n", guest.text())
        return int(numbers[-1]) if numbers else 0

    script = f"mount -t tmpfs none /tmp; {script.replace('/block', '/tmp/block')}"
    with Guest(scratch, script, machine=machine) as guest:
        wait_until(lambda: told(guest) >= 20, "the first blocks")
        equal(guest.ask("stop"), "OK stopped\n")
        contains(guest.ask("sysrq", "s"), "Emergency Sync complete")
        by_now = told(guest)
        shutil.copy(image, copy)
        equal(guest.ask("go"), "OK\n")
        with open(copy, "rb") as file:
            for number in range(1, by_now + 1):
                file.seek(512 * number)
                equal(file.read(512), b"%-511d\n" % number, f"block {number} of {by_now}")
        wait_until(lambda: told(guest) >= by_now + 20, "more blocks")


# --- the gdb server

@functools.cache
def stripped_program():
    """The program without debug information, which takes gdb long to read and is not needed here."""
    file = tempfile.NamedTemporaryFile(prefix="cowbird-stripped-")
    subprocess.run(["strip", "-o", file.name, str(COWBIRD)], check=True)
    return file


def gdb_words(address, *commands):
    if shutil.which("gdb") is None:
        raise Skip("gdb is not installed (Debian: gdb)")
    words = ["gdb", "-nx", "-batch", "-ex", "set pagination off", "-ex", "set confirm off", "-ex", "set sysroot /",
             "-ex", f"file {stripped_program().name}", "-ex", f"target extended-remote {address}"]
    for command in commands:
        words += ["-ex", command]
    return words


def gdb(address, *commands):
    words = gdb_words(address, *commands)
    result = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            timeout=2 * LIMIT, check=False)
    return result.stdout.decode("utf-8", "replace")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@test
def gdb_server_comes_and_goes(scratch):
    with Guest(scratch) as guest:
        def ask(*words, status=0):
            result, text = guest.uml_mconsole(*words)
            equal(result, status, f"status of {words}: {text}")
            return text.strip()

        equal(ask("config", "gdb"), "OK none")
        contains(ask("remove", "gdb", status=1), "ERR There is no gdb server")
        contains(ask("config", "gdb=nonsense", status=1), "write gdb=tcp:127.0.0.1:1234")
        contains(ask("config", "gdb=tcp:127.0.0.1:99999", status=1), "ERR ")
        contains(ask("config", "gdb1=tcp:127.0.0.1:0", status=1), "its name is gdb")
        port = free_port()
        equal(ask("config", f"gdb=tcp:{port}"), "OK")  # UML's: the port alone is one of this host
        address = ask("config", "gdb").removeprefix("OK tcp:")
        equal((guest.directory / "gdb").read_text(), f"tcp:{address}\n", "the file gdb")
        text = gdb(address, "info threads", "detach")
        contains(text, "init")
        contains(text, "mconsole")
        contains(guest.ask("version"), "OK Linux demo")
        # Another one in its place; a second on a port that is taken is refused, and the first goes on.
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            contains(ask("config", f"gdb=tcp:127.0.0.1:{taken.getsockname()[1]}", status=1), "ERR ")
        equal(ask("config", "gdb"), f"OK tcp:{address}")
        path = scratch / "gdb.sock"
        equal(ask("config", f"gdb=unix:{path}"), "OK")
        contains(gdb(path, "info threads", "detach"), "init")
        equal(ask("remove", "gdb"), "OK")
        equal(ask("config", "gdb"), "OK none")
        check(not (guest.directory / "gdb").exists(), "the file gdb is left")
        check(not path.exists(), "the socket is left")
        contains(ask("remove", "gdb", status=1), "ERR There is no gdb server")
        # Removed while gdb is attached and the kernel runs: gdb is told, the guest goes on.
        ask("config", f"gdb=tcp:127.0.0.1:{port}")
        if shutil.which("gdb"):
            words = gdb_words(f"127.0.0.1:{port}", "echo attached\\n", "continue")
            with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT) as debugger:
                text = b""
                while b"attached\n" not in text:
                    line = debugger.stdout.readline()
                    check(line, f"gdb has ended: {text!r}")
                    text += line
                equal(ask("remove", "gdb"), "OK")
                debugger.wait(LIMIT)
        contains(guest.ask("version"), "OK Linux demo")
        contains(guest.ask("proc", "uptime"), "OK")


# --- stop and go

@test
def everybody_answers_while_the_guest_is_stopped(scratch):
    seconds = float(os.environ.get("COWBIRD_STOP", "4"))
    script = ("while read line && [ $line = begin ]; do before=$(cut -d' ' -f1 /proc/uptime); echo sleeping; sleep 3; "
              "echo awake $before $(cut -d' ' -f1 /proc/uptime); done; echo heard $line; sleep 1000")
    config = '[[console]]\nname = "con0"\nplugin = "null"\n[[console]]\nname = "con1"\nplugin = "null"\n'
    port = free_port()
    with Guest(scratch, script, name="standing", machine=config, expect=None) as guest:
        wait_until(lambda: (guest.directory / "console").exists(), "the consoles")
        with Terminal([COWBIRD, "console", guest.name]) as terminal:
            terminal.expect("up")
            for _ in range(20):
                terminal.type("begin\n")
                terminal.expect("sleeping")
                equal(guest.ask("stop"), "OK stopped\n")
                start = time.monotonic()
                terminal.settle(0.1, 1.0)
                if "awake" not in terminal.output[terminal.output.rindex("sleeping"):]:
                    break
                equal(guest.ask("go"), "OK\n")  # it was over before; once more
            seen = terminal.at
            uptime = guest.ask("proc", "uptime").split()[1]
            # Devices come and go meanwhile, and gdb looks.
            equal(guest.ask("config", "ssl3=pts"), "OK\n")
            equal(guest.ask("config", "con1"), "OK null\n")
            equal(guest.ask("remove", "con1"), "OK\n")
            equal(guest.ask("config", "mem-=8M"), "OK\n")
            equal(guest.ask("config", "mem+=8M"), "OK\n")
            equal(guest.ask("config", f"gdb=tcp:127.0.0.1:{port}"), "OK\n")
            if shutil.which("gdb"):
                contains(gdb(f"127.0.0.1:{port}", "info threads", "detach"), "init")
            equal(guest.ask("remove", "gdb"), "OK\n")
            # Another one comes to the console, and what is typed is shown.
            with Terminal([COWBIRD, "console", guest.name]) as other:
                other.expect("sleeping")
                terminal.type("typed while it stands still\n")
                other.expect("typed while it stands still")
            terminal.expect("typed while it stands still")
            # Longer than the sleep in progress.
            time.sleep(max(0.0, start + seconds - time.monotonic()))
            check("awake" not in terminal.output[seen:], "the guest goes on while it is stopped")
            equal(guest.ask("proc", "uptime").split()[1], uptime, "the guest's clock")
            equal(guest.ask("go"), "OK\n")
            terminal.expect("awake ")
            terminal.expect("heard typed while it stands still")
            before, after = map(float, re.search(r"awake (\S+) (\S+)", terminal.output[seen:]).groups())
            stood = time.monotonic() - start
            print(f"# stopped for {stood:.1f} s; the sleep of 3 s took {after - before:.2f} s", flush=True)
            check(3.0 <= after - before < stood, f"the sleep took {after - before} s of the guest's time")


@test
def the_watchdog_waits_for_guests_that_are_held(scratch):
    """By `stop`, by a debugger of guest programs, by gdb on the kernel: three guests, each longer than its watchdog's time."""
    script = "exec 3> /dev/watchdog; echo -n x >&3; echo armed; while :; do echo -n x >&3; sleep 0.2; done"
    with contextlib.ExitStack() as stack:
        def guest_of(name):
            place = scratch / name
            place.mkdir()
            return stack.enter_context(Guest(place, script, name=name, config="watchdog = 5", expect="armed"))

        stopped, held, halted = (guest_of(name) for name in ("stopped", "held", "halted"))
        equal(stopped.ask("stop"), "OK stopped\n")
        agents = []
        for guest in (held, halted):
            agents.append(Agent(guest.directory / "debug", timeout=LIMIT))
            agents[-1].call("freeze")
            equal(guest.ask("stop"), "OK stopped\n")
            contains(guest.ask("go"), "a debugger still holds the guest")
            contains(guest.ask("proc", "uptime"), "OK")
        traced = None
        if shutil.which("gdb"):
            traced = guest_of("traced")
            traced.ask("config", f"gdb=unix:{scratch}/gdb.sock")
            contains(gdb(scratch / "gdb.sock", "shell sleep 6.5", "echo looked on\\n", "detach"), "looked on")
            contains(traced.ask("version"), "OK Linux traced")
        else:
            time.sleep(6.5)
        for guest in (stopped, held, halted):
            check(guest.process.poll() is None, f"the watchdog bites a guest that is {guest.name}")
        equal(stopped.ask("go"), "OK\n")
        # They are not stuck: each can be ended.
        for guest, command in ((stopped, "halt"), (held, "sysrq o"), (halted, "halt"), (traced, "halt")):
            if guest is not None:
                contains(guest.ask(*command.split()), "OK")
                guest.ended(0)
        for agent in agents:
            agent.close()


# --- what is left of a guest

def resources(scratch, display):
    """A machine with something of every kind on the host, and its environment."""
    (scratch / "files").mkdir()
    environment = {"DISPLAY": display, "TMPDIR": str(scratch / "files"), "XDG_RUNTIME_DIR": str(scratch / "files")}
    image = disk(scratch)
    port = free_port()
    machine = "".join(f'[[{kind}]]\nname = "{name}"\n{keys}\n' for kind, name, keys in (
        ("block", "ubda", f'plugin = "file"\npath = "{image}"'),
        ("serial", "ssl0", f'plugin = "unix"\npath = "{scratch}/line.sock"'), ("serial", "ssl1", 'plugin = "pts"'),
        ("serial", "ssl2", f'plugin = "port"\nport = {port}'), ("console", "con1", 'plugin = "xterm"'),
        ("console", "con0", 'plugin = "fd"')))
    return environment, machine, port, image


@test
def signals_leave_nothing_behind(scratch):
    for program in ("xterm", "Xvfb"):
        if shutil.which(program) is None:
            raise Skip(f"{program} is not installed")
    script = ("exec 3<>/dev/ttyS0 4<>/dev/ttyS1 5<>/dev/ttyS2 6<>/dev/tty1 7</dev/ubda; exec 8>/dev/watchdog; "
              "echo opened; sleep 1000")
    with x_server() as display:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            place = scratch / str(int(number))
            place.mkdir()
            environment, machine, port, image = resources(place, display)
            before = dict(os.environ)
            os.environ.update(environment)
            try:
                guest = Guest(place, script, name=f"signal{int(number)}", machine=machine, expect="opened")
            finally:
                os.environ.clear()
                os.environ.update(before)
            with guest:
                guest.ask("config", f"gdb=unix:{place}/gdb.sock")

                def words_of(process):
                    try:
                        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                    except OSError:
                        return []

                def names():
                    return [b" ".join(words_of(process)[:2]) for process in processes_of(guest.process.pid)]

                for part in (b"xterm", b"watchdog-process", b"gdbserver", b"cowbird-xterm-helper"):
                    wait_until(lambda part=part: any(part in b" ".join(words_of(process))
                                                     for process in processes_of(guest.process.pid)),
                               f"the process {part!r} among {names()}")
                family = processes_of(guest.process.pid)
                terminal = guest.ask("config", "ssl1").removeprefix("OK pts:").strip()
                check(Path(terminal).exists(), f"the terminal {terminal!r}")
                check((place / "line.sock").exists(), "the socket of the channel unix")
                guest.process.send_signal(number)
                guest.ended(-number)
                wait_until(lambda: not any(alive(process) for process in family), f"the end of {names()}")
                check(not (place / "line.sock").exists(), "the socket of the channel unix is left")
                check(not (place / "gdb.sock").exists(), "the socket of the gdb server is left")
                equal(list((place / "files").rglob("*")), [], "files for a while")
                with socket.socket() as client:
                    check(client.connect_ex(("127.0.0.1", port)) != 0, "somebody listens on the port")
                # The image is free: another guest gets it.
                with open(image, "rb+") as file:
                    fcntl.fcntl(file, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))


if __name__ == "__main__":
    main()
