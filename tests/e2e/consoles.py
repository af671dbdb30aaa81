#!/usr/bin/env python3
"""The guest's consoles on every channel, with the real programs that people sit at them with."""
import os
import re
import select
import socket
import subprocess
import time

from console_guest import (LIMIT, Guest, connects, free_port, need, port_console, talk, talk_pid, telnet,
                           telnet_when_open, until_seen, window_named, x, x_server)
from harness import Terminal, check, contains, equal, main, test


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
        with telnet(port, rows=40, columns=100) as client:
            client.expect("# ")
            talk(client, "echo $((40 + 2))a\r", "42a")
            talk(client, "stty size\r", "40 100")
            client.resize(30, 90)
            until_seen(client, "30 90", lambda: client.type("stty size\r"))
            client.expect("# ")
            # What prints has the terminal already.
            talk(client, "(echo runs-\"now\"; exec sleep 1000)\r", "runs-now")
            client.type("\x03")
            client.expect("# ")
            talk(client, "echo $?st\r", "130st")
            # Escaped and doubled on the way, whole at the end.
            talk(client, "printf '\\377\\r\\n' | od -An -tx1; tty\r", "ff 0d 0a")
            client.expect("/dev/tty1")
            first = talk_pid(client)
        # Hung up: the shell has gone, the next client gets a new one, once it has opened the console.
        with telnet_when_open(port) as client:
            client.expect("# ")
            check(talk_pid(client) != first, "the shell has outlived its terminal")


@test
def nc_reaches_a_console(scratch):
    port = free_port()
    for words, greeting in ((port_console(port), b"\xff\xfb\x01"),
                            (port_console(port, 'protocol = "raw"'), b"")):
        with Guest(scratch, words) as guest:
            guest.shell_on("tty1")
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
        check(path.exists(), "the socket is not there, and the console is open")
        with Terminal([need("nc"), "-U", path]) as client:
            client.type("\n")
            client.expect("# ")
            talk(client, "echo $((40+2))x\n", "42x")


@test
def log_file(scratch):
    log = scratch / "con 1,2.log"
    with Guest(scratch, ['plugin = "file"', f'path = "{log}"', 'max_size = "10K"', "keep = 20"]) as guest:
        guest.run("seq 1 10000 > /dev/tty1")
        guest.run("stty raw < /dev/tty1; seq 1 10 > /dev/tty1")
        setting = guest.ask("config", "con1")
        contains(setting, str(log))
        guest.run("exec 4> /dev/tty1")
        equal(guest.ask("config", "con1"), setting, "the setting while it is open")
    logs = sorted(scratch.glob("con 1,2.log.*"), key=lambda file: -int(file.suffix[1:]))
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
        # One descriptor for both, as a line that nobody has open keeps nothing.
        guest.begin("exec 4<>/dev/tty1; head -n 1 <&4 > /tmp/line; echo answer >&4")
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
            # The shell asks where the cursor is; an answer that comes late is echoed like a key.
            text = re.sub(r"\^\[\[\d+;\d+R", "", text)
            wanted = "".join(f"{i}\n" for i in range(1, 200001))
            start = text.find("\n1\n2\n3\n") + 1
            same = len(os.path.commonprefix([text[start:], wanted]))
            check(same == len(wanted), f"after {same} characters comes {text[start + same - 50:start + same + 150]!r}")


@test
def peers_that_are_not_there_and_peers_that_do_not_read(scratch):
    port, path = free_port(), scratch / "con2.sock"
    channels = (port_console(port, 'protocol = "raw"'), ['plugin = "unix"', f'path = "{path}"'], ['plugin = "pts"'])
    lines = "".join(f"{n}\r\n" for n in range(1, 100001)).encode()
    with Guest(scratch, *channels) as guest:
        guest.run("exec 4<>/dev/tty1 5<>/dev/tty2 6<>/dev/tty3; seq 1 100000 > /tmp/lines")

        def connect(fd):
            if fd == 6:
                return os.open(guest.pts_of("con3"), os.O_RDWR | os.O_NOCTTY)
            client = socket.create_connection(("127.0.0.1", port)) if fd == 4 else socket.socket(socket.AF_UNIX)
            if fd == 5:
                client.connect(str(path))
            return client.detach()

        def read_lines(client):
            got = bytearray()
            while not got.endswith(b"\n100000\r\n"):
                check(select.select([client], [], [], LIMIT)[0], f"after {len(got)} bytes nothing has come")
                got += os.read(client, 65536)
            return bytes(got)
        for fd in (4, 5, 6):
            # Nobody there: all is taken, and the end of it is kept.
            contains(guest.run(f"cat /tmp/lines >&{fd}; echo status=$?"), "status=0")
            client = connect(fd)
            kept = read_lines(client)
            check(lines.endswith(kept) and 16000 < len(kept) <= 16384, f"kept are {len(kept)} bytes: {kept[:40]} to {kept[-40:]}")
            # Somebody there who does not read: who writes waits, and nothing else; then all of it comes.
            guest.run(f"cat /tmp/lines >&{fd} & echo")
            said = guest.run("seq 1 1000 | tail -n 1; ps")
            check(fd == 4 or "cat /tmp/lines" in said, f"nobody waits: {said}")  # the host's TCP may take all of it
            check(read_lines(client) == lines, "what was read is not what was written")
            os.close(client)
            guest.run(f"wait; exec {fd}<>/dev/tty{fd - 3}")  # hung up


def send(guest, size, name):
    """Makes random bytes in the guest; their hash."""
    return re.search(r"[0-9a-f]{64}", guest.run(f"head -c {size} /dev/urandom > {name}; sha256sum {name}")).group(0)


@test
def serial_line_between_two_guests(scratch):
    size = 10_000_000
    with Guest(scratch / "a", ['plugin = "pts"'], ['plugin = "pts"']) as a:
        a.run("exec 3<>/dev/tty1; stty raw -echo <&3; exec 4<>/dev/tty2")
        ends = [['plugin = "tty"', f'device = "{a.pts_of(name)}"'] for name in ("con1", "con2")]
        with Guest(scratch / "b", *ends) as b:
            # Before anything comes: two terminals that echo would talk to each other for ever.
            b.run("exec 3<>/dev/tty1; stty raw -echo <&3; exec 4<>/dev/tty2; stty raw -echo <&4")
            # A session on the other guest.
            a.shell_on("tty2")
            b.begin("cat <&4 & printf 'echo from-$(tty)-$((40 + 2))\\r' >&4")
            b.terminal.expect("from-/dev/tty2-42", LIMIT)
            b.run("kill %1; wait")
            # Any bytes, both ways.
            for sender, receiver in ((a, b), (b, a)):
                wanted = send(sender, size, "/tmp/there")
                receiver.begin(f"head -c {size} <&3 > /tmp/here; sha256sum /tmp/here")
                sender.begin("cat /tmp/there >&3")
                got = receiver.terminal.expect(r"([0-9a-f]{64})  /tmp/here", LIMIT, literal=False).group(1)
                equal(got, wanted, "hash of what came over the line")
                sender.run("true")
                receiver.run("rm /tmp/here; true")


@test
def a_window_of_its_own(scratch):
    need("xterm")
    need("xdotool")
    with x_server() as display, Guest(scratch, ['plugin = "xterm"'], environment={"DISPLAY": display}) as guest:
        guest.begin("(setsid sh -c 'exec sh -i </dev/tty1 >/dev/tty1 2>&1'; echo window-\"gone\") &")
        window = window_named(display, "con1", guest)

        def size(pattern):
            return until_seen(guest.terminal, pattern, lambda: x(display, "type", "stty size > /dev/tty0\n")).group(0)
        equal(size(r"\d+ \d+\s"), "24 80\r", "size of the window at first")
        x(display, "windowsize", window, "600", "300")
        size(r"\b(?!24 80|0 0)\d+ \d+\s")
        x(display, "windowclose", window)
        guest.terminal.expect("window-gone", LIMIT)
        contains(guest.run("echo still here"), "still here")


@test
def a_window_without_a_display(scratch):
    environment = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
    with Guest(scratch, ['plugin = "xterm"'], environment=environment) as guest:
        contains(guest.run("cat /dev/tty1"), "No such device or address")
        contains(guest.run("dmesg | grep con1"), "DISPLAY is not set")


if __name__ == "__main__":
    main()
