#!/usr/bin/env python3
"""A thousand random hot-plug actions under load: nothing leaks, nothing crashes.

COWBIRD_SEED is another game (0: a random one), COWBIRD_ACTIONS makes it longer.
"""
import collections
import os
import random
import re
import select
import socket
import struct
import threading
import time
from pathlib import Path

from harness import COWBIRD, LIMIT, check, descriptors, equal, main, test
from managed_guest import Guest, wait_until

MAGIC = 0xCAFEBABE
SEED = int(os.environ.get("COWBIRD_SEED", "1")) or random.SystemRandom().randrange(1, 1 << 32)
ACTIONS = int(os.environ.get("COWBIRD_ACTIONS", "1000"))
WARM_UP = 250

# The load reads these disks and writes to these serial lines as long as they are there. /dev/ttyS21 is the sign to
# begin, /dev/ttyS20 the one to end. (microcom, as a redirection would make a file where a device is gone.)
READ_DISKS = "bc"
WRITTEN_LINES = "012"
SCRIPT = """
disk() { while [ ! -e /dev/ttyS20 ]; do dd if=$1 of=/dev/null bs=64k 2> /dev/null || sleep 0.02; done; }
line() {
  while [ ! -e /dev/ttyS20 ]; do
    { echo to $1; seq 1 50; } | microcom -X -t 20 $1 > /dev/null 2>&1 || sleep 0.02
  done
}
round=0
while :; do
  echo "round $round: $(ls /dev | tr '\\n' ' ')"
  while [ ! -e /dev/ttyS21 ]; do sleep 0.02; done
  for i in b c; do disk /dev/ubd$i & done
  for i in 0 1 2; do line /dev/ttyS$i & done
  wait
  echo "load $round ended"
  while [ -e /dev/ttyS20 ]; do sleep 0.02; done
  round=$((round + 1))
done
"""


class Console:
    """The management console, packet by packet: faster than a client program for each request."""

    def __init__(self, guest):
        self.path = str(guest.directory / "mconsole")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("")
        self.socket.settimeout(LIMIT)

    def ask(self, command):
        """(whether it was done, text)."""
        data = command.encode()
        self.socket.sendto(struct.pack("=III", MAGIC, 2, len(data)) + data.ljust(512, b"\0"), self.path)
        text, more, failed = b"", 1, False
        while more:
            packet = self.socket.recv(4096)
            error, more, _ = struct.unpack("=III", packet[:12])
            failed = failed or error != 0
            text += packet[12:-1]
        return not failed, text.decode("utf-8", "replace")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


class Player:
    """Makes up actions and knows what must come of those on devices that the load leaves alone."""

    def __init__(self, scratch, console, seed):
        self.scratch, self.console, self.random = scratch, console, random.Random(seed)
        self.port = free_port()
        self.known = {}  # quiet device: its setting
        self.history = []
        self.counts = {"done": 0, "refused": 0}
        for unit in "bcdefg":
            with open(scratch / f"{unit}.img", "wb") as image:
                image.truncate(1 << 20)

    def ask(self, command):
        self.history = self.history[-20:] + [command]
        done, text = self.console.ask(command)
        self.counts["done" if done else "refused"] += 1
        check(done or text.strip(), f"{command!r} is refused without a word")
        return done, text

    def channel(self, device):
        return self.random.choice([
            "null", "pts", "pts", "pty", f"port:{self.port}", f"file:{self.scratch}/{device}.log",
            f"unix:{self.scratch}/{device}.sock", "null,pts", f"pts,file:{self.scratch}/{device}.log",
            f"{{ plugin = \"port\", port = {self.port}, protocol = \"raw\" }}", "{ plugin = \"pts\" }"])

    def wrong(self):
        command = self.random.choice([
            "config con1=nothing", "config con1=port:x", "config con1=tty:/nowhere/at/all/\x01", "config con-1=pts",
            "config ssl99999999999=pts", "config ubdd=/nowhere", f"config ubdd={self.scratch}", "config ubddx=/nowhere",
            "config con1=pts,pts,pts", "config ssl3={plugin=", "config con1=fd:77777", "config ubd=", "config",
            "config nothing=1", "remove nothing", "remove con77", "remove ubdz", "remove ssl", "remove ubd",
            "remove mem", "config mem=-1", "config mem-=999G", "config con1=unix:/nowhere/x/y,unix:"])
        before = [self.console.ask(f"config {device}") for device in ("con1", "ssl3", "ubdd")]
        done, text = self.ask(command)
        # Some are refused only when the guest opens the device.
        if not done:
            after = [self.console.ask(f"config {device}") for device in ("con1", "ssl3", "ubdd")]
            equal(after, before, f"devices after the refused {command!r}: {text!r}")
        elif command.startswith("config con1="):
            self.known["con1"] = None

    def quiet_line(self):
        device = self.random.choice([f"con{n}" for n in range(1, 6)] + [f"ssl{n}" for n in range(3, 8)])
        action = self.random.choice(["config", "config", "remove", "query"])
        there = device in self.known
        if action == "config":
            setting = self.channel(device)
            equal(self.ask(f"config {device}={setting}"), (True, ""), f"config of {device} to {setting}")
            self.known[device] = setting
        elif action == "remove":
            done, text = self.ask(f"remove {device}")
            equal(done, there, f"remove of {device}, which {'is' if there else 'is not'} there: {text}")
            self.known.pop(device, None)
        else:
            done, text = self.ask(f"config {device}")
            setting = self.known.get(device)
            if not there:
                equal((done, text), (True, "none"), f"{device}, which is not there")
            elif setting and not setting.startswith("{"):
                equal((done, text), (True, setting), f"what {device} is")

    def quiet_disk(self):
        unit = self.random.choice("defg")
        device = f"ubd{unit}"
        action = self.random.choice(["config", "config", "remove", "query"])
        there = device in self.known
        if action == "config":
            image, flags = f"{self.scratch}/{unit}.img", self.random.choice(["", "r", "s", "rt", "cd", "rsct"])
            equal(self.ask(f"config {device}{flags}={image}"), (True, ""), f"config of {device}")
            self.known[device] = image
        elif action == "remove":
            equal(self.ask(f"remove {device}")[0], there, f"remove of {device}")
            self.known.pop(device, None)
        else:
            done, text = self.ask(f"config {device}")
            equal((done, text if done else None), (there, self.known.get(device)), f"what {device} is")

    def busy_device(self):
        """What the load uses: refused while it is open, done between."""
        device = self.random.choice([f"ubd{unit}" for unit in READ_DISKS] + [f"ssl{n}" for n in WRITTEN_LINES])
        if self.random.random() < 0.25:
            done, text = self.ask(f"remove {device}")
        else:
            setting = f"{self.scratch}/{device[-1]}.img" if device.startswith("ubd") else self.channel(device)
            done, text = self.ask(f"config {device}={setting}")
        check(done or text in ("Device is currently open", f"There is no {device}."), f"{device}: {text!r}")

    def peer(self):
        """Somebody of the host comes to a line, reads and writes a little, and goes."""
        device = self.random.choice([f"ssl{n}" for n in WRITTEN_LINES])
        _, text = self.ask(f"config {device}")
        fd = None
        try:
            if found := re.search(r"pts:(/dev/pts/\d+)", text):
                fd = os.open(found[1], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            elif text.startswith("unix:"):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                client.connect(text.removeprefix("unix:"))
                fd = client.detach()
            elif "port" in text:
                client = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)
                client.setblocking(False)
                fd = client.detach()
            if fd is not None:
                os.write(fd, b"hello\n")
                if select.select([fd], [], [], 0.02)[0]:
                    os.read(fd, 4096)
        except OSError:
            pass  # it went away in the meantime
        finally:
            if fd is not None:
                os.close(fd)

    def play(self, actions):
        equal(self.ask("config ssl21=null"), (True, ""), "the sign to begin")
        for _ in range(actions):
            self.random.choices([self.quiet_line, self.quiet_disk, self.busy_device, self.peer, self.wrong],
                                [30, 20, 35, 8, 7])[0]()
            time.sleep(self.random.uniform(0, 0.006))  # the load has to get its turns

    def clean_up(self, guest, number):
        """Ends the load, and takes all devices away."""
        equal(self.ask("config ssl20=null"), (True, ""), "the sign to end")
        wait_until(lambda: f"load {number} ended" in guest.text(), f"the end of load {number}")
        names = [f"con{n}" for n in range(1, 6)] + [f"ssl{n}" for n in range(8)]
        # The sign goes last: then the guest looks what it has.
        for device in names + [f"ubd{unit}" for unit in "bcdefg"] + ["ssl21", "ssl20"]:
            done, text = self.ask(f"remove {device}")
            check(done or text == f"There is no {device}.", f"remove of {device}: {text!r}")
        self.known.clear()


def anonymous_memory(pid):
    """KiB of the kernel's own memory."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def memory_file(pid):
    """Bytes of the guest's memory that the host has given."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(entry).startswith("/memfd:cowbird-memory"):
            return entry.stat().st_blocks * 512
    raise AssertionError("the guest has no file of memory")


def free_memory(console):
    """KiB that no page of the guest holds for good."""
    text = console.ask("proc meminfo")[1]
    return sum(int(re.search(rf"^{key}:\s+(\d+)", text, re.M)[1]) for key in ("MemFree", "Cached"))


def devices_in(guest, number):
    wait_until(lambda: re.search(rf"round {number}: .*\n", guest.text()), f"round {number}")
    return re.search(rf"round {number}: (.*)\n", guest.text())[1].split()


def same(count, wanted, what):
    """Waits, as what ends may end a moment later."""
    end = time.monotonic() + LIMIT
    while count() != wanted and time.monotonic() < end:
        time.sleep(0.05)
    if isinstance(wanted, collections.Counter):
        equal((count() - wanted, wanted - count()), (collections.Counter(),) * 2, f"{what}, more and less")
    equal(count(), wanted, what)


@test
def a_thousand_actions_under_load(scratch):
    print(f"# COWBIRD_SEED={SEED}", flush=True)
    with Guest(scratch, SCRIPT, config='memory = "64M"\nvcpus = 2', log="warning", expect="round 0") as guest:
        pid = guest.process.pid
        console = Console(guest)
        player = Player(scratch, console, SEED)
        try:
            # What is made once and kept (tables, caches, threads) is made before the first count.
            wanted = devices_in(guest, 0)
            player.play(WARM_UP)
            player.clean_up(guest, 0)
            equal(devices_in(guest, 1), wanted, "devices of the guest after the warm-up")
            before = descriptors(pid)
            memory, blocks, free = anonymous_memory(pid), memory_file(pid), free_memory(console)
            threads = len(os.listdir(f"/proc/{pid}/task"))
            start = time.monotonic()
            player.play(ACTIONS)
            seconds = time.monotonic() - start
            player.clean_up(guest, 1)
            equal(devices_in(guest, 2), wanted, "devices of the guest")
            equal(console.ask("devices")[1].count("\n"), 2, "what the kernel lists: con0 and mem")
            # The end of a connection is noticed by another thread.
            same(lambda: descriptors(pid), before, "descriptors of the program")
            same(lambda: len(os.listdir(f"/proc/{pid}/task")), threads, "threads of the program")
            grown = (anonymous_memory(pid) - memory, (memory_file(pid) - blocks) >> 10, free - free_memory(console))
            print(f"# {ACTIONS} actions in {seconds:.1f} s, {player.counts}; {before.total()} descriptors; KiB more: "
                  f"kernel {grown[0]}, guest's file {grown[1]}, guest's memory in use {grown[2]}", flush=True)
            # Some is the allocators' and the kernel log's; the sanitizer keeps what was freed.
            if b"__asan_init" not in COWBIRD.read_bytes():
                check(grown[0] < max(2 * ACTIONS, 2048), f"the kernel has {grown[0]} KiB more than before")
            check(grown[2] < 2048, f"the guest has {grown[2]} KiB less than before")
            check(memory_file(pid) <= 64 << 20, "the guest has more than its memory")
            equal(console.ask("halt"), (True, ""))
            guest.ended(0)
            equal(list(scratch.glob("*.sock")), [], "sockets that are left")
        except BaseException as failure:
            raise AssertionError(f"COWBIRD_SEED={SEED}: {failure}\nThe last requests: {player.history}\n"
                                 f"The guest: {guest.process.poll()}, {guest.text()[-2000:]}") from failure


@test
def the_same_devices_from_several_sides(scratch):
    """Operators who change the same devices at the same moment get an answer each, and the last one holds."""
    images = [scratch / f"same{n}.img" for n in range(2)]
    for image in images:
        with open(image, "wb") as file:
            file.truncate(1 << 20)
    requests = ["config con1=pts", "config con1=null", "remove con1", "config con1", "config con1=nothing",
                f"config ubdd={images[0]}", f"config ubddr={images[1]}", "remove ubdd", "config ubdd",
                "config mem-=4M", "config mem=32M", "config mem=28M", "config mem", "devices",
                "config ssl=pts", "config ssl3=null,pts", "remove ssl3", f"config ssl3=unix:{scratch}/same.sock"]
    script = "while :; do for i in /dev/ubdd /dev/tty1 /dev/ttyS3; do true < $i; done 2> /dev/null; done"
    with Guest(scratch, script, config='memory = "32M"\nvcpus = 2', log="warning") as guest:
        first = Console(guest)
        # A default cannot be taken away again, so it is there before the count.
        equal(first.ask("config ssl=null"), (True, ""))
        before = descriptors(guest.process.pid)
        failures = []

        def operate(seed):
            try:
                console, chosen = Console(guest), random.Random(seed)
                for _ in range(200):
                    done, text = console.ask(chosen.choice(requests))
                    check(done or text.strip(), "refused without a word")
            except BaseException as failure:
                failures.append(f"{type(failure).__name__}: {failure}")

        threads = [threading.Thread(target=operate, args=(SEED * 100 + n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(not failures, failures)
        for request, there in ((f"config ubdd={images[0]}", str(images[0])), ("config con1=null", "null"),
                               ("config ssl3=null", "null"), ("config mem=32M", "32M")):
            wait_until(lambda: first.ask(request)[0], request)  # the guest may have it open  # noqa: B023
            equal(first.ask(request.split("=")[0]), (True, there), request)
        for device in ("ubdd", "con1", "ssl3"):
            wait_until(lambda: first.ask(f"remove {device}")[0], f"remove {device}")  # noqa: B023
        equal(first.ask("config ssl=null"), (True, ""))
        same(lambda: descriptors(guest.process.pid), before, "descriptors of the program")
        equal(guest.text(), "up\n", "what the guest says")
        equal(first.ask("halt"), (True, ""))
        guest.ended(0)


if __name__ == "__main__":
    main()
