#!/usr/bin/env python3
"""`cowbird console`: terminals attached to the consoles of a running guest."""
import hashlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

from harness import COWBIRD, Skip, Terminal, alive, check, cowbird, contains, descriptors, equal, main, prompt_of, test

LIMIT = 90  # seconds; a machine may be busy
MAGIC, VERSION = 0x4E4F4357, 1
HELLO, DATA, WINDOW, WELCOME, REFUSED, HANG_UP, DROPPED = range(1, 8)


class Guest:
    """A guest whose con0 has no channel but those who attach."""

    def __init__(self, scratch, name="attached", consoles=1, words=()):
        self.name, self.root = name, scratch / "guests"
        file = scratch / f"{name}.toml"
        file.write_text(f'[machine]\nname = "{name}"\nlog_level = "err"\n' +
                        "".join(f'[[console]]\nname = "con{n}"\nplugin = "null"\n' for n in range(consoles)))
        self.environment = {"COWBIRD_DIR": str(self.root)}
        self.process = subprocess.Popen([COWBIRD, "boot", file, *words], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, env=dict(os.environ, **self.environment))
        self.socket = self.root / name / "console"
        wait_for(self.socket.exists, "the console socket")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def attach(self, *words, **more):
        return Terminal([COWBIRD, "console", self.name, *words], environment=self.environment, **more)

    def shell(self):
        """Attached, with the shell's prompt on the screen."""
        terminal = self.attach()
        terminal.expect("leaves it")
        terminal.type("\n")
        prompt_of(terminal)
        return terminal


class Wire:
    """A client of our own, byte for byte."""

    def __init__(self, guest, device="", version=VERSION, magic=MAGIC, flags=0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(guest.socket))  # with a time limit it would not wait for its turn
        self.socket.settimeout(LIMIT)
        self.buffer = b""
        self.send(HELLO, struct.pack("<IHHHH", magic, version, flags, 0, 0) + device.encode())

    def send(self, kind, payload):
        self.socket.sendall(struct.pack("<BBH", kind, 0, len(payload)) + payload)

    def exactly(self, count):
        while len(self.buffer) < count:
            piece = self.socket.recv(1 << 16)
            if not piece:
                return None
            self.buffer += piece
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def frame(self):
        """The next frame; None at the end."""
        header = self.exactly(4)
        if header is None:
            return None
        kind, zero, length = struct.unpack("<BBH", header)
        equal(zero, 0, "second byte")
        return kind, self.exactly(length)

    def read_until(self, end):
        """All data until it ends so; much faster than frame by frame."""
        raw, text, at = self.buffer, bytearray(), 0
        self.buffer = b""
        while not text.endswith(end):
            piece = self.socket.recv(1 << 18)
            check(piece, f"the connection ended before {end!r}")
            raw = raw[at:] + piece
            at = 0
            while len(raw) - at >= 4:
                kind, _, length = struct.unpack_from("<BBH", raw, at)
                equal(kind, DATA, "frame")
                if len(raw) - at - 4 < length:
                    break
                text += raw[at + 4:at + 4 + length]
                at += 4 + length
        return bytes(text)

    def last(self):
        """All that comes until the server closes: the last frame."""
        last = None
        while (frame := self.frame()) is not None:
            last = frame
        return last


def wait_for(condition, what, limit=LIMIT):
    end = time.monotonic() + limit
    while not condition():
        check(time.monotonic() < end, f"{what} did not come")
        time.sleep(0.02)


def modes(terminal):
    """The local modes of the terminal that the client is on."""
    return termios.tcgetattr(terminal.master)[3]


@test
def a_terminal_talks_to_the_guest_and_leaves(scratch):
    with Guest(scratch) as guest, guest.attach() as terminal:
        terminal.expect("This is con0 of attached; ctrl-] d leaves it")
        terminal.type("\n")
        prompt_of(terminal)
        terminal.type("echo $((40 + 2))a\n")
        terminal.expect("42a")
        terminal.type("\x1dd")
        equal(terminal.wait(), 0, "exit status")
        check(guest.process.poll() is None, "the guest has ended")


@test
def terminal_is_raw_and_put_back(scratch):
    with Guest(scratch) as guest, guest.attach() as terminal:
        terminal.expect("leaves it")
        check(not modes(terminal) & (termios.ICANON | termios.ECHO | termios.ISIG), "the terminal is not raw")
        terminal.type("sleep 1000\n")
        terminal.expect("sleep 1000")
        terminal.settle()
        terminal.type("\x03")  # the guest's, not the client's
        prompt_of(terminal)
        terminal.type("\x1dd")
        equal(terminal.wait(), 0, "exit status")
        check(modes(terminal) & termios.ICANON and modes(terminal) & termios.ECHO, "the modes were not put back")


@test
def a_signal_puts_the_terminal_back(scratch):
    with Guest(scratch) as guest:
        for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMAX):
            with guest.attach() as terminal:
                terminal.expect("leaves it")
                os.kill(terminal.process, number)
                equal(terminal.wait(), 128 + number, "exit status")
                check(modes(terminal) & termios.ICANON, f"the modes were not put back after signal {number}")


@test
def a_terminal_that_takes_nothing_can_be_left(scratch):
    with Guest(scratch) as guest, guest.attach() as terminal:
        terminal.type("\n")
        prompt_of(terminal)
        # More than the host's terminal holds, and then the guest is gone; the client has all of it still to write.
        terminal.type("seq 1 50000; poweroff\n")
        guest.process.wait(LIMIT)
        check(alive(terminal.process), "the client has not waited")
        os.kill(terminal.process, signal.SIGTERM)
        wait_for(lambda: not alive(terminal.process), "the end of the client")
        check(modes(terminal) & termios.ICANON, "the modes were not put back")


@test
def escape_key_types_itself_and_explains(scratch):
    with Guest(scratch) as guest, guest.attach("--escape", "ctrl-a") as terminal:
        terminal.expect("ctrl-a d leaves it")
        terminal.expect("# ")
        terminal.type("sh -c 'echo re\"\"ady; exec cat -v'\n")
        terminal.expect("ready")
        terminal.type("\x01?")
        terminal.expect("ctrl-a ctrl-a types ctrl-a")
        terminal.type("x\x01\x01y\n")
        # The shell's question for the cursor may be answered late, into the line.
        terminal.expect(r"x\^Ay\r\n[^\n]*x\^Ay\r\n", literal=False)
        terminal.type("\x1dd\n")  # not the escape key here
        terminal.expect("d\r\n")
        terminal.type("\x01.")
        equal(terminal.wait(), 0, "exit status")
    result = cowbird("console", "x", "--escape", "control")
    equal(result.returncode, 2, "status of a wrong key")
    contains(result.stderr, "is no key")


@test
def two_watch_and_one_who_comes_later_sees_what_was(scratch):
    with Guest(scratch) as guest, guest.shell() as one, guest.attach("--read-only") as two:
        two.expect("ctrl-c ends it")
        one.type("echo fir''st; seq 1 500\n")
        for terminal in (one, two):
            terminal.expect("first\r\n")
            terminal.expect("\r\n500\r\n")
        two.type("echo nobody''types\n")
        with guest.attach() as three:
            three.expect("first\r\n")
            three.expect("\r\n500\r\n")
            three.type("echo th''ird\n")
            one.expect("third\r\n")
        check("nobodytypes" not in one.output, "a read-only client typed")
        two.type("\x03")
        equal(two.wait(), 0, "exit status of the watcher")


@test
def window_size_reaches_the_guest(scratch):
    with Guest(scratch) as guest, guest.attach(rows=33, columns=101) as terminal:
        terminal.expect("leaves it")
        terminal.type("\nstty size\n")
        terminal.expect("33 101")
        terminal.resize(20, 77)
        terminal.settle()
        terminal.type("stty size\n")
        terminal.expect("20 77")


@test
def the_window_of_those_who_stay_comes_back(scratch):
    file = scratch / "owner.toml"
    file.write_text('[machine]\nname = "owner"\nlog_level = "err"\n')
    environment = {"COWBIRD_DIR": str(scratch / "owners")}
    with Terminal([COWBIRD, "boot", file], rows=24, columns=80, environment=environment) as owner:
        prompt_of(owner)

        def attached(rows, columns):
            terminal = Terminal([COWBIRD, "console", "owner"], rows=rows, columns=columns, environment=environment)
            terminal.expect("leaves it")
            return terminal

        def size_is(size):
            owner.settle()
            owner.type("stty size\n")
            owner.expect(f"\n{size}\r\n")

        size_is("24 80")  # the owner's
        with attached(30, 90) as first:
            size_is("30 90")  # of who attaches
            with attached(31, 91) as second:
                size_is("31 91")  # of who came last
                second.type("\x1dd")
                second.wait()
            size_is("30 90")  # of who stays
            first.close()  # killed
            size_is("24 80")  # the owner's again
        with attached(32, 92) as third:
            owner.resize(20, 70)
            size_is("20 70")  # the owner's new one
            third.type("\x1dd")
            third.wait()
            size_is("20 70")  # which stays


@test
def pipes_carry_every_byte(scratch):
    with Guest(scratch) as guest:
        wire = Wire(guest)
        equal(wire.frame()[0], WELCOME, "answer")
        wire.send(DATA, b"stty raw -echo; echo re''ady; head -c 100000 | md5sum; stty sane\n")
        text = b""
        while b"ready" not in text:
            text += wire.frame()[1]
        data = bytes(n * 7 % 256 for n in range(100000))

        def typed():
            for at in range(0, len(data), 8000):
                wire.send(DATA, data[at:at + 8000])
        sender = threading.Thread(target=typed)
        sender.start()
        wanted = hashlib.md5(data).hexdigest().encode()
        while wanted not in text:
            text += wire.frame()[1]
        sender.join()
        result = cowbird("console", guest.name, stdin=b"echo pi''ped\n", environment=guest.environment)
        equal(result.returncode, 0, "exit status")
        with guest.shell() as terminal:
            terminal.type("\n")
            terminal.expect("piped")


@test
def a_client_that_dies_disturbs_nobody(scratch):
    with Guest(scratch) as guest, guest.shell() as one:
        before = descriptors(guest.process.pid)
        for _ in range(5):
            with guest.attach() as two:
                two.expect("leaves it")
                os.kill(two.process, signal.SIGKILL)
                two.wait()
            one.type("echo al''ive\n")
            one.expect("alive")
        wait_for(lambda: descriptors(guest.process.pid) == before, "the clients' descriptors to be closed")


@test
def a_slow_client_is_let_go_and_the_guest_goes_on(scratch):
    with Guest(scratch) as guest, guest.shell() as fast:
        slow = Wire(guest)
        equal(slow.frame()[0], WELCOME, "answer")
        fast.type("seq 1 300000 | tail -c 1000000; echo en''d\n")
        fast.expect("\r\nend\r\n", LIMIT)
        kind, why = slow.last()
        equal(kind, DROPPED, "last frame")
        contains(why, "too slow")
        fast.type("echo al''ive\n")
        fast.expect("alive")


@test
def output_is_whole_for_those_who_read(scratch):
    with Guest(scratch) as guest:
        clients = [Wire(guest) for _ in range(3)]
        for client in clients:
            equal(client.frame()[0], WELCOME, "answer")
        seen = [b""] * len(clients)

        def read(n):
            seen[n] = clients[n].read_until(b"\nfinished\r\n")
        readers = [threading.Thread(target=read, args=(n,)) for n in range(len(clients))]
        clients[0].send(DATA, b"seq 1 100000 | cat; echo fin''ished; sleep 1000\n")
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(120)
        wanted = b"\r\n".join(str(n).encode() for n in range(1, 100001)) + b"\r\nfinished\r\n"
        for text in seen:
            check(wanted in text, "some output was lost")


@test
def wrong_clients_are_refused(scratch):
    with Guest(scratch, consoles=2) as guest:
        for wire, part in ((Wire(guest, "con7"), "has no console con7; it has con0, con1"),
                           (Wire(guest, version=9), "version 1"), (Wire(guest, magic=1), "not the protocol"),
                           (Wire(guest, "con\n"), "not the protocol")):
            kind, why = wire.last()
            equal(kind, REFUSED, "frame")
            contains(why, part)
        wire = Wire(guest, flags=1)
        wire.send(DATA, b"typed")
        kind, why = wire.last()
        equal(kind, DROPPED, "frame")
        contains(why, "only watches")
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(str(guest.socket))
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        raw.settimeout(LIMIT)
        contains(raw.recv(1000), "not the protocol")
        result = cowbird("console", guest.name, "con9", environment=guest.environment)
        equal(result.returncode, 1, "exit status")
        contains(result.stderr, "attached has no console con9; it has con0, con1.")
        result = cowbird("console", "nobody", environment=guest.environment)
        equal(result.returncode, 1, "exit status")
        contains(result.stderr, "nobody")


@test
def too_many_clients(scratch):
    with Guest(scratch) as guest:
        clients = [Wire(guest) for _ in range(32)]
        for client in clients:
            equal(client.frame()[0], WELCOME, "answer")
        kind, why = Wire(guest).last()
        equal(kind, REFUSED, "frame")
        contains(why, "32 clients")
        # One that is refused before it has said a word, and goes on talking, still learns why.
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(str(guest.socket))
        raw.settimeout(LIMIT)
        check(select.select([raw], [], [], LIMIT)[0], "no answer to a connection too many")
        for _ in range(20):
            raw.sendall(b"x" * 10000)
        said = b""
        while piece := raw.recv(1000):
            said += piece
        contains(said, "32 clients")
        # However many come, those who are attached stay, and so many descriptors are enough.
        refused = [Wire(guest) for _ in range(70)]
        check(descriptors(guest.process.pid).total() < 200, "refused clients pile up")
        equal(refused[-1].last()[0], REFUSED, "frame")
        del refused
        clients[0].send(DATA, b"echo al''ive; sleep 1000\n")
        clients[0].read_until(b"alive\r\n")
        clients.pop().socket.close()
        wait_for(lambda: Wire(guest).frame()[0] == WELCOME, "a free place")


@test
def who_comes_in_a_crowd_is_heard(scratch):
    with Guest(scratch) as guest:
        # All have said who they are before the guest looks at any of them.
        os.kill(guest.process.pid, signal.SIGSTOP)
        clients = [Wire(guest) for _ in range(60)]
        os.kill(guest.process.pid, signal.SIGCONT)
        answers = [client.frame() for client in clients]
        equal([kind for kind, _ in answers], [WELCOME] * 32 + [REFUSED] * 28, "answers")
        for _, why in answers[32:]:
            contains(why, "32 clients")


@test
def socket_is_for_its_owner_alone(scratch):
    with Guest(scratch) as guest:
        equal(guest.socket.stat().st_mode & 0o777, 0o600, "mode of the socket")
        equal(guest.socket.parent.stat().st_mode & 0o777, 0o700, "mode of the directory")


@test
def other_users_are_turned_away(scratch):
    if os.geteuid() != 0:
        raise Skip("only root can try it as somebody else")
    with Guest(scratch) as guest:
        script = ("import os, socket, sys\nos.setgid(65534); os.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n"
                  "s.connect(sys.argv[1])\ns.settimeout(90)\nprint(s.recv(1))\n")

        def attempt():
            return subprocess.run([sys.executable, "-c", script, guest.socket], capture_output=True, timeout=60, check=False)
        contains(attempt().stderr, "PermissionError")
        # Even where somebody has opened the way.
        for path in (scratch, guest.root, guest.socket.parent):
            path.chmod(0o711)
        guest.socket.chmod(0o666)
        result = attempt()
        check(b"ConnectionResetError" in result.stderr or result.stdout == b"b''\n", result)
        equal(Wire(guest).frame()[0], WELCOME, "answer to the owner")


@test
def a_guest_that_does_not_answer_can_be_left(scratch):
    with Guest(scratch) as guest:
        os.kill(guest.process.pid, signal.SIGSTOP)
        with guest.attach() as terminal:
            terminal.expect("attached has not answered yet; ctrl-] d leaves it.")
            terminal.type("\x1dd")
            equal(terminal.wait(), 0, "exit status")
            equal(termios.tcgetattr(terminal.master), terminal.modes, "modes of the terminal")
        with guest.attach("--read-only") as terminal:
            terminal.expect("attached has not answered yet; ctrl-c ends it.")
            terminal.type("\x03")
            equal(terminal.wait(), 0, "exit status")
        with guest.attach() as terminal:
            terminal.expect("has not answered yet")
            # What was typed arrives when the guest goes on.
            terminal.type("echo typed $((40 + 2))\n")
            os.kill(guest.process.pid, signal.SIGCONT)
            terminal.expect("This is con0 of attached")
            terminal.expect("typed 42")


@test
def end_of_the_guest_is_told(scratch):
    with Guest(scratch) as guest, guest.shell() as terminal:
        terminal.type("poweroff\n")
        terminal.expect("The guest has ended")
        equal(terminal.wait(), 0, "exit status")
        equal(guest.process.wait(LIMIT), 0, "exit status of the guest")


@test
def another_console(scratch):
    with Guest(scratch, consoles=2) as guest:
        with guest.attach("con1") as terminal, guest.shell() as first:
            terminal.expect("The guest has not opened it yet")
            # Open before anything else happens: a line that nobody has open loses what is typed.
            first.type("exec 3<>/dev/tty1; cat <&3 &\n")
            first.type("echo on''second > /dev/tty1\n")
            terminal.expect("onsecond")
            terminal.type("from the second\n")
            first.expect("from the second")
            check("onsecond" not in first.output, "output of con1 went to con0")


@test
def a_console_that_the_guest_has_not_opened(scratch):
    # Also one that only the setting for all makes; the guest's first opening comes later.
    file = scratch / "more.toml"
    file.write_text('[machine]\nname = "more"\n[[console]]\nname = "con0"\nplugin = "null"\n'
                    '[[console]]\nname = "con*"\nplugin = "null"\n[[serial]]\nname = "ssl*"\nplugin = "none"\n')
    environment = {"COWBIRD_DIR": str(scratch)}
    equal(cowbird("boot", "--daemon", file, environment=environment).returncode, 0, "exit status")
    with Terminal([COWBIRD, "console", "more", "con0"], environment=environment) as first:
        with Terminal([COWBIRD, "console", "more", "con7"], environment=environment) as late:
            late.expect("This is con7 of more; ctrl-] d leaves it. The guest has not opened it yet.", LIMIT)
            first.type("\necho to the se''venth > /dev/tty7\n")
            late.expect("to the seventh", LIMIT)
        result = cowbird("console", "more", "ssl3", environment=environment)
        equal(result.returncode, 1, "exit status without a channel")
        contains(result.stderr, "more has no console ssl3")
        first.type("poweroff\n")
        first.expect("The guest has ended", LIMIT)


if __name__ == "__main__":
    main()
