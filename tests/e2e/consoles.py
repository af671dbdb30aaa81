#!/usr/bin/env python3
"""The guest's consoles on every channel, with the real programs that people sit at them with."""
import os
import re
import shutil
import socket
import subprocess
import time

from harness import Skip, Terminal, boot_terminal, check, contains, equal, main, prompt_of, test

LIMIT = 60.0
# A shell on a terminal of its own, again and again, as a getty does it.
SHELL_ON = "while true; do setsid sh -c 'exec sh -i </dev/{0} >/dev/{0} 2>&1'; done &"


class Guest:
    """A booted guest with a shell on con0, and more consoles: the words of [[console]] tables."""

    def __init__(self, directory, *consoles, **more):
        directory.mkdir(exist_ok=True)
        file = directory / "machine.toml"
        text = f'[machine]\nname = "{directory.name[-12:]}"\nquiet = true\n[[console]]\nname = "con0"\nplugin = "fd"\n'
        for number, words in enumerate(consoles, 1):
            text += f'[[console]]\nname = "con{number}"\n' + "".join(f"{line}\n" for line in words)
        file.write_text(text)
        self.terminal = boot_terminal(file, **more)
        self.number = 0
        prompt_of(self.terminal)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.terminal.close()

    def begin(self, script):
        """Types a line, without waiting for what it does."""
        self.terminal.type(script + "\n")

    def run(self, script):
        """What a command prints."""
        self.number += 1
        mark = f"end-of-{self.number}"
        # The mark as it is typed is not the mark as it is printed.
        self.terminal.type(f"{script}\necho end-of\"-\"{self.number}\n")
        before = self.terminal.at
        self.terminal.expect(mark, LIMIT)
        return self.terminal.output[before:self.terminal.at - len(mark)]

    def shell_on(self, console):
        self.run(SHELL_ON.format(console))

    def wait_for(self, script, pattern):
        """Runs a command until what it prints has the pattern; the match."""
        until = time.monotonic() + LIMIT
        while True:
            text = self.run(script)
            match = re.search(pattern, text)
            if match:
                return match
            check(time.monotonic() < until, f"{script} never printed {pattern!r}, but at last:\n{text}")
            time.sleep(0.1)

    def pts_of(self, console):
        return self.wait_for("dmesg | grep attached", rf"{console}: attached to (/dev/pts/\d+)").group(1)


def need(program):
    path = shutil.which(program)
    if not path:
        raise Skip(f"{program} is not installed")
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def talk(terminal, line, wanted):
    terminal.type(line)
    return terminal.expect(wanted)


def talk_pid(terminal):
    terminal.type("echo pid=$$.\r")
    return terminal.expect(r"pid=(\d+)\.", literal=False).group(1)


def telnet(port, **more):
    return Terminal([need("telnet"), "127.0.0.1", port], **more)


def port_console(port, *more):
    return ['plugin = "port"', f"port = {port}", *more]


@test
def none_is_no_device_and_null_swallows(scratch):
    with Guest(scratch, ['plugin = "none"'], ['plugin = "null"']) as guest:
        contains(guest.run("cat /dev/tty1"), "No such device")
        contains(guest.run("echo swallowed > /dev/tty2 && echo status $?"), "status 0")
        equal(guest.run("dmesg | grep con1").count("cannot"), 0, "complaints about a console that is not there")


@test
def telnet_reaches_a_console(scratch):
    port = free_port()
    with Guest(scratch, port_console(port)) as guest:
        check(not connects(port), "the port answers before the guest has opened the console")
        guest.shell_on("tty1")
        guest.wait_for("cat /proc/*/cmdline | tr '\\0' ' '", r"sh -i")
        with telnet(port, rows=40, columns=100) as client:
            client.expect("# ")
            talk(client, "echo $((40 + 2))a\r", "42a")
            talk(client, "stty size\r", "40 100")
            client.resize(30, 90)
            talk(client, "sleep 1; stty size\r", "30 90")
            client.type("sleep 1000\r")
            client.settle()
            client.type("\x03")
            client.expect("# ")
            talk(client, "echo $?st\r", "130st")
            # Escaped and doubled on the way, whole at the end.
            talk(client, "printf '\\377\\r\\n' | od -An -tx1; tty\r", "ff 0d 0a")
            client.expect("/dev/tty1")
            first = talk_pid(client)
        # Hung up: the shell has gone, the next client gets a new one.
        with telnet(port) as client:
            client.expect("# ")
            check(talk_pid(client) != first, "the shell has outlived its terminal")


@test
def nc_reaches_a_console(scratch):
    port = free_port()
    for words, greeting in ((port_console(port), b"\xff\xfb\x01"),
                            (port_console(port, 'protocol = "raw"'), b"")):
        with Guest(scratch, words) as guest:
            guest.shell_on("tty1")
            guest.wait_for("ps | grep -c '[s]h -i'", r"\b1\b")
            # Its end of input would be the end of the connection, so that stays open.
            with subprocess.Popen([need("nc"), "127.0.0.1", str(port)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE) as client:
                client.stdin.write(b"echo $((40+2))x\n")
                client.stdin.flush()
                got = b""
                while b"42x" not in got:
                    part = os.read(client.stdout.fileno(), 1000)
                    check(part, f"nc ended; it got {got}")
                    got += part
                client.kill()
            check(got.startswith(greeting), f"the greeting is {got[:20]}")


@test
def consoles_share_a_port(scratch):
    port = free_port()
    with Guest(scratch, port_console(port), port_console(port), port_console(port)) as guest:
        for number in (1, 2, 3):
            guest.shell_on(f"tty{number}")
        guest.wait_for("ps | grep -c '[s]h -i'", r"\b3\b")
        clients = [telnet(port) for _ in range(3)]
        try:
            seen = set()
            for client in clients:
                client.type("\r")
                client.expect("# ")
                seen.add(talk(client, "tty\r", "/dev/tty") and client.expect("# ") and
                         re.findall(r"/dev/tty\d", client.output)[-1])
            equal(seen, {"/dev/tty1", "/dev/tty2", "/dev/tty3"}, "terminals")
            with telnet(port) as fourth:
                fourth.expect("You are number 1 in line")
                clients[1].close()
                talk(fourth, "\r", "# ")
                talk(fourth, "tty\r", "/dev/tty")
        finally:
            for client in clients:
                client.close()


@test
def unix_socket(scratch):
    path = scratch / "con1.sock"
    with Guest(scratch, ['plugin = "unix"', f'path = "{path}"']) as guest:
        check(not path.exists(), "the socket is there before the guest has opened the console")
        guest.shell_on("tty1")
        with Terminal([need("nc"), "-U", path]) as client:
            client.type("\n")
            client.expect("# ")
            talk(client, "echo $((40+2))x\n", "42x")


@test
def log_file(scratch):
    log = scratch / "con1.log"
    with Guest(scratch, ['plugin = "file"', f'path = "{log}"', 'max_size = "10K"', "keep = 20"]) as guest:
        guest.run("seq 1 10000 > /dev/tty1")
        guest.run("stty raw < /dev/tty1; seq 1 10 > /dev/tty1")
    logs = sorted(scratch.glob("con1.log.*"), key=lambda file: -int(file.suffix[1:]))
    check(len(logs) >= 4, "no rotation")
    whole = b"".join(file.read_bytes() for file in [*logs, log])
    check(whole.startswith(b"".join(b"%d\r\n" % i for i in range(1, 10001))), "the log is not what was written")


@test
def separate_input_and_output(scratch):
    from_us, to_guest = os.pipe()
    from_guest, to_us = os.pipe()
    for fd in (from_us, to_us):
        os.set_inheritable(fd, True)
    with Guest(scratch, ['plugin = "fd"', f"input = {from_us}", f"output = {to_us}"]) as guest:
        guest.begin("head -n 1 < /dev/tty1 > /tmp/line; echo answer > /dev/tty1")
        os.write(to_guest, b"question\n")
        contains(guest.run("cat /tmp/line"), "question")
        got = b""
        while b"answer\r\n" not in got:
            got += os.read(from_guest, 1000)
    for fd in (from_us, to_guest, from_guest, to_us):
        os.close(fd)


@test
def a_stuck_terminal_holds_up_only_its_writer(scratch):
    path = scratch / "con1.sock"
    with Guest(scratch, ['plugin = "unix"', f'path = "{path}"']) as guest:
        guest.shell_on("tty1")
        with Terminal([need("nc"), "-U", path]) as client:
            client.type("\n")
            client.expect("# ")
            before = len(guest.terminal.output)
            guest.begin("seq 1 200000; echo all-of-\"it\"")  # nobody reads con0 from here
            time.sleep(1)
            talk(client, "echo $((40+2))x\n", "42x")
            guest.terminal.expect("all-of-it", LIMIT)
            text = guest.terminal.output[before:].replace("\r", "")
            check("".join(f"{i}\n" for i in range(1, 200001)) in text, "lines are missing")


def send(guest, size, name):
    """Makes random bytes in the guest; their hash."""
    return re.search(r"[0-9a-f]{64}", guest.run(f"head -c {size} /dev/urandom > {name}; sha256sum {name}")).group(0)


@test
def serial_line_between_two_guests(scratch):
    size = 10_000_000
    with Guest(scratch / "a", ['plugin = "pts"']) as a:
        a.run("exec 3<>/dev/tty1")
        with Guest(scratch / "b", ['plugin = "tty"', f'device = "{a.pts_of("con1")}"']) as b:
            b.run("exec 3<>/dev/tty1")
            # A session on the other guest.
            b.run("stty raw -echo <&3")
            a.shell_on("tty1")
            b.begin("cat <&3 & printf 'echo from-$(tty)-$((40 + 2))\\r' >&3")
            b.terminal.expect("from-/dev/tty1-42", LIMIT)
            b.run("kill %1; true")
            a.run("kill %1; for p in $(ps | grep '[s]h -i' | awk '{print $1}'); do kill -9 $p; done; sleep 1")
            # Any bytes, both ways.
            for guest in (a, b):
                guest.run("stty raw -echo <&3")
            b.run("timeout 1 cat <&3 > /dev/null; true")
            a.run("timeout 1 cat <&3 > /dev/null; true")
            for sender, receiver in ((a, b), (b, a)):
                wanted = send(sender, size, "/tmp/there")
                receiver.begin(f"head -c {size} <&3 > /tmp/here; sha256sum /tmp/here")
                sender.begin("cat /tmp/there >&3")
                got = receiver.terminal.expect(r"([0-9a-f]{64})  /tmp/here", LIMIT, literal=False).group(1)
                equal(got, wanted, "hash of what came over the line")
                sender.run("true")
                receiver.run("rm /tmp/here; true")


def x_server():
    read, write = os.pipe()
    os.set_inheritable(write, True)
    server = subprocess.Popen([need("Xvfb"), "-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
                              pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    with open(read, encoding="ascii") as answer:
        number = answer.readline().strip()  # written in pieces
    if not number:
        raise Skip("Xvfb does not start here")
    return server, f":{number}"


@test
def a_window_of_its_own(scratch):
    need("xterm")
    need("xdotool")
    server, display = x_server()
    try:
        with Guest(scratch, ['plugin = "xterm"'], environment={"DISPLAY": display}) as guest:
            def x(*words):
                done = subprocess.run(["xdotool", *words], capture_output=True, timeout=LIMIT, check=False,
                                      env=dict(os.environ, DISPLAY=display))
                return done.stdout.decode().strip() if done.returncode == 0 else ""

            guest.begin("(setsid sh -c 'exec sh -i </dev/tty1 >/dev/tty1 2>&1'; echo window-\"gone\") &")
            until = time.monotonic() + LIMIT
            while not (window := x("search", "--name", "^con1$")):
                check(time.monotonic() < until, "no window of the name con1 came")
                time.sleep(0.1)
            # No window manager gives it the focus; what is typed goes where the pointer is.
            x("mousemove", "--window", window, "50", "50")
            time.sleep(1)
            x("type", "stty size > /tmp/before\n")
            x("windowsize", "--sync", window, "600", "300")
            time.sleep(1)
            x("type", "stty size > /tmp/after; cat /tmp/before /tmp/after > /dev/tty0\n")
            sizes = guest.terminal.expect(r"(\d+ \d+)\s+(\d+ \d+)", LIMIT, literal=False)
            equal(sizes.group(1), "24 80", "size of the window at first")
            check(sizes.group(2) not in ("24 80", "0 0"), f"the window's new size is {sizes.group(2)}")
            x("windowclose", window)
            guest.terminal.expect("window-gone", LIMIT)
            contains(guest.run("echo still here"), "still here")
    finally:
        server.kill()
        server.wait()


@test
def a_window_without_a_display(scratch):
    environment = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
    with Guest(scratch, ['plugin = "xterm"'], environment=environment) as guest:
        contains(guest.run("cat /dev/tty1"), "No such device or address")
        contains(guest.run("dmesg | grep con1"), "DISPLAY is not set")


if __name__ == "__main__":
    main()
