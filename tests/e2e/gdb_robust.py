#!/usr/bin/env python3
"""What the real server of a running guest does with packets that no gdb sends, and with connections that end anywhere:
the guest goes on, and the next gdb works. No gdb is needed for most of it."""
import random
import socket
import time

from harness import LIMIT, alive, check, contains, main, test
from debugged import Guest, until

PROLOGUE = [b"qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+", b"?"]


def packet(data):
    """As it goes over the wire, with its checksum."""
    return b"$" + data + b"#%02x" % (sum(data) & 0xff)


class Wire:
    """A connection to the server, on which packets are answered within a limit."""

    def __init__(self, path):
        self.data = b""
        until(lambda: self.connects(path), "a connection")

    def connects(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        try:
            self.socket.connect(str(path))
            return True
        except (BlockingIOError, ConnectionRefusedError):  # too many are in line; it does not listen yet
            self.socket.close()
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:  # it has had enough of us
            pass

    def answer(self):
        """The next packet's payload; None: the connection is closed."""
        end = time.monotonic() + LIMIT
        while True:
            start = self.data.find(b"$")
            stop = self.data.find(b"#", start + 1)
            if start >= 0 and stop >= 0 and len(self.data) >= stop + 3:
                payload, self.data = self.data[start + 1:stop], self.data[stop + 3:]
                self.send(b"+")
                return payload
            check(time.monotonic() < end, f"no answer, but {self.data[-200:]!r}")
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                return None
            self.data += more

    def ask(self, data):
        self.send(packet(data))
        return self.answer()

    def start(self):
        for data in PROLOGUE:
            check(self.ask(data) is not None, f"an answer to {data!r}")


def goes_on(guest):
    guest.goes_on()
    check(alive(guest.process.pid), "the guest lives")


# Wrong numbers, far too long, wrong forms, what is not known, and orders about threads that are not there.
BAD = [b"", b"m", b"m,", b"mffffffffffffffff,ffffffff", b"m0,0", b"m-1,4", b"Mzz,1:00", b"M0,2:0", b"X0,8:\x7d", b"p", b"pffff",
       b"P0", b"P0=", b"P10=zz", b"G00", b"g1", b"Hg", b"Hgp1.zz", b"Hcp7fffffff.7fffffff", b"T", b"Tp1.999999", b"Z", b"Z0",
       b"Z0,", b"Z9,0,1", b"Z0,0,1", b"Z0,0,1;X5,00", b"Z0,401000,1;Xffffffff,00", b"Z2,401000,0", b"Z2,1,ffffffff", b"z0,1234,1",
       b"vCont", b"vCont;", b"vCont;x", b"vCont;c:p1.", b"vCont;r1,2,3:p1.1", b"vCont;s:pf4240.7777777", b"vAttach", b"vAttach;zz",
       b"vAttach;7fffffff", b"vKill;7fffffff", b"vFile:open:zz", b"vFile:pread:99,1,1", b"vFile:close:-7", b"vFile:setfs:zz",
       b"vFile:nonsense", b"qXfer:threads:read::", b"qXfer:threads:read::fffffffff,1", b"qXfer:features:read:../../etc/passwd:0,fff",
       b"qXfer:libraries-svr4:read::zz,1", b"qXfer:siginfo:write::0:", b"qXfer:osdata:read:nothing:0,1000", b"qRcmd,", b"qRcmd,7",
       b"qRcmd,zz", b"qSearch:memory:0;ffffffff;", b"qSearch:memory:zz", b"qCRC:0,ffffffff", b"qGetTLSAddr:", b"qThreadExtraInfo,p1.zz",
       b"QCatchSyscalls:2", b"QPassSignals:zz;;", b"QNonStop:7", b"D;zz", b"D;1", b"\xff\xfe\x00", b"q" * 1000, b"A" * 20000]


@test
def bad_packets_are_answered(scratch):
    with Guest(scratch, vcpus=2) as guest:
        path = guest.serve()
        with Wire(path) as wire:
            wire.start()
            for data in BAD:
                got = wire.ask(data.replace(b"}", b"}]"))
                check(got is not None, f"the server has closed the connection after {data[:40]!r}")
            # Some have more than one answer.
            wire.send(packet(b"qfThreadInfo"))
            while not wire.answer().startswith(b"mpf4240."):
                pass
        goes_on(guest)
        with Wire(path) as wire:
            # Longer than any packet that the server takes, and what never ends.
            wire.start()
            wire.send(b"$" + b"m" * 3_000_000)
            wire.send(b"#00")
        goes_on(guest)
        with Wire(path) as wire:
            wire.start()
            for data in (b"$m0,4#ff", b"+++---", b"$m0,4", b"\x03\x03", b"$#00", b"#00", b"$" * 500, b"%stop", b"\x00" * 5000):
                wire.send(data)
        goes_on(guest)
        contains(guest.batch("info threads", at=path), '"sh/1"')
        goes_on(guest)


@test
def connections_end_anywhere(scratch):
    whole = b"".join(packet(p) for p in [*PROLOGUE, b"Hgp0.0", b"qXfer:threads:read::0,fff", b"g", b"vCont;c", b"Z0,0,1"])
    with Guest(scratch) as guest:
        path = guest.serve()
        for at in range(0, len(whole), 13):
            with Wire(path) as wire:
                wire.send(whole[:at])
        goes_on(guest)
        contains(guest.batch("info threads", at=path), '"sh/1"')


@test
def noise_is_survived(scratch):
    """Packets that were good, with a few bytes changed; the seed says which."""
    seed = 20261
    chance = random.Random(seed)
    good = [b"vCont;c", b"vCont;t", b"vCont;s:pf4240.3;c", b"m400000,40", b"g", b"Hgpf4240.3", b"Z0,400000,1", b"z0,400000,1", b"Z2,400000,8",
            b"qXfer:threads:read::0,800", b"qRcmd,7073", b"D;f4240", b"?", b"QNonStop:1", b"vStopped", b"vFile:setfs:0",
            b"vFile:open:2f6574632f686f7374732c302c30", b"qSearch:memory:400000;1000;abc", b"vAttach;1", b"D;1", b"\x03"]
    with Guest(scratch) as guest:
        path = guest.serve()
        for number in range(12):
            with Wire(path) as wire:
                wire.send(b"".join(packet(p) for p in PROLOGUE))
                for _ in range(60):
                    data = bytearray(chance.choice(good))
                    for _ in range(chance.randrange(3)):
                        data[chance.randrange(len(data))] = chance.randrange(256)
                    if bytes(data[:1]) in (b"k", b"R") or data.startswith(b"vKill"):
                        continue  # these are for ending the guest
                    wire.send(packet(bytes(data)) if chance.random() < 0.9 else b"$" + bytes(data))
            check(alive(guest.process.pid), f"the guest has ended; seed {seed}, connection {number}")
        goes_on(guest)
        # Processes that were attached are free again.
        until(lambda: "sh/1" in guest.batch("info threads", at=path), "a server that works")
        goes_on(guest)


@test
def the_words_of_a_second_server_are_read(scratch):
    with Guest(scratch) as guest, Wire(guest.serve()) as first:
        first.start()
        with Wire(guest.serve()) as second:
            second.send(packet(b"qSupported"))
            got = b""
            while True:
                more = second.socket.recv(4096)
                if not more:
                    break
                got += more
            contains(got, "only one can", "the refusal")
            # gdb acknowledges before it shows what it has read, and shows nothing when that fails.
            second.socket.sendall(b"+")
        check(first.ask(b"qC"), "the first one is served")

if __name__ == "__main__":
    main()
