#!/usr/bin/env python3
"""Consoles and serial lines of a running guest: settings for all, pseudoterminals nobody reads, terminal logs."""
import contextlib
import json
import os
import re
import select
import subprocess
import termios
import time
import tty

from harness import COWBIRD, boot_terminal, check, contains, equal, main, prompt_of, test


def machine(scratch, text):
    file = scratch / "machine.toml"
    file.write_text('[machine]\nname = "lines"\nlog_level = "err"\n' + text)
    return file


def ask(terminal, command):
    """What a command prints in the guest's shell."""
    start = terminal.at
    terminal.type(f"{command}; echo e''nd-of-answer\n")
    terminal.expect("end-of-answer")
    text = terminal.output[start:terminal.at]
    prompt_of(terminal)
    return text.replace("\r", "").partition("''nd-of-answer\n")[2].removesuffix("end-of-answer")


def pts_of(terminal, line):
    """The host's terminal that a line got, by the kernel log."""
    for _ in range(100):
        found = re.findall(line + r": .*(/dev/pts/\d+)", ask(terminal, f"dmesg | grep {line}:"))
        if found:
            return found[-1]
        time.sleep(0.1)
    raise AssertionError(f"the kernel log does not say what {line} got")


def open_raw(path):
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd, termios.TCSANOW)
    return fd


def read_all(fd, size):
    data = b""
    while len(data) < size:
        check(select.select([fd], [], [], 60)[0], f"only {len(data)} of {size} bytes have come")
        data += os.read(fd, 65536)
    return data


@test
def settings_for_all_lines_and_for_one(scratch):
    file = machine(scratch, """
[[console]]
name = "con0"
plugin = "fd"
[[console]]
name = "con3"
plugin = "none"
[[serial]]
name = "ssl2"
plugin = "null"
[[serial]]
name = "ssl*"
plugin = "none"
""")
    with boot_terminal(file, columns=250) as terminal:
        prompt_of(terminal)
        nodes = ask(terminal, "ls /dev")
        check("ttyS63" in nodes and "tty3" in nodes, f"nodes are missing: {nodes}")
        check("tty4" not in nodes.split(), "a console that nobody has named has a node")
        contains(ask(terminal, "cat /dev/tty3"), "No such device")
        contains(ask(terminal, "cat /dev/ttyS9"), "No such device")
        equal(ask(terminal, "echo dropped > /dev/ttyS2; echo $?"), "0\n")
        terminal.type("poweroff\n")
        equal(terminal.wait(60), 0, "exit status")


@test
def nobody_reads_and_the_guest_goes_on(scratch):
    file = machine(scratch, """
[[console]]
name = "con0"
plugin = "fd"
[[serial]]
name = "ssl0"
plugin = "pts"
""")
    with boot_terminal(file, columns=250) as terminal:
        prompt_of(terminal)
        ask(terminal, "{ (stty raw -echo; sleep 100) <> /dev/ttyS0 >&0 & }")
        fd = open_raw(pts_of(terminal, "ssl0"))
        # Attached, but nobody reads: the writer sleeps, the rest of the guest does not.
        ask(terminal, "{ seq 1 20000 > /dev/ttyS0 & }")
        equal(ask(terminal, "seq 1 3 | tail -1"), "3\n")
        contains(ask(terminal, "ps"), "{seq}")
        wanted = "".join(f"{n}\n" for n in range(1, 20001)).encode()
        got = read_all(fd, len(wanted))
        check(got == wanted, "what was read is not what the guest wrote")
        os.close(fd)
        terminal.type("poweroff\n")
        equal(terminal.wait(60), 0, "exit status")


@test
def last_words_are_read(scratch):
    file = machine(scratch, """
[[console]]
name = "con0"
plugin = "fd"
[[serial]]
name = "ssl*"
plugin = "pts"
""")
    lines = "".join(f"line {n}\n" for n in range(1, 701)).encode()
    with boot_terminal(file, columns=250) as terminal:
        prompt_of(terminal)
        ask(terminal, "seq 1 700 | sed 's/^/line /' > /tmp/lines")
        peers = {}
        for line in ("ssl0", "ssl1"):
            device = line.replace("ssl", "/dev/ttyS")
            ask(terminal, f"{{ (stty raw -echo; echo ready; read -r line; cat /tmp/lines) <> {device} >&0 & }}")
            peers[line] = open_raw(pts_of(terminal, line))
            equal(read_all(peers[line], 6), b"ready\n", "the first words")

        def last_words(fd, pause):
            got = b""
            with contextlib.suppress(OSError):  # hung up
                while select.select([fd], [], [], 60)[0]:
                    part = os.read(fd, 500)
                    if not part:
                        break
                    got += part
                    time.sleep(pause)
            return got
        # The writer ends, and with it the line's last user; it is read slowly, so that they have long gone.
        os.write(peers["ssl0"], b"go\n")
        equal(last_words(peers["ssl0"], 0.01), lines, "what was read of a writer that has gone")
        # The guest ends.
        os.write(peers["ssl1"], b"go\n")
        check(os.read(peers["ssl1"], 1) == lines[:1], "the first byte")
        terminal.type("poweroff -f\n")
        equal(last_words(peers["ssl1"], 0), lines[1:], "what was read of a guest that has gone")
        equal(terminal.wait(60), 0, "exit status")
        for fd in peers.values():
            os.close(fd)


def events_of(text):
    return [json.loads(line) for line in text.splitlines()]


@test
def terminals_are_logged_to_a_directory(scratch):
    logs = scratch / "logs"
    logs.mkdir()
    file = machine(scratch, f'tty_log_dir = "{logs}"\n')
    with boot_terminal(file, columns=250) as terminal:
        prompt_of(terminal)
        terminal.type("printf 'b\\303\\244r \\377!\\n'; poweroff\n")
        equal(terminal.wait(60), 0, "exit status")
    names = [path.name for path in sorted(logs.iterdir())]
    check(names and all(re.fullmatch(r"\d+\.\d{6}-[\w-]+\.cast", name) for name in names), f"names: {names}")
    first = next(path for path in sorted(logs.iterdir()) if path.name.endswith("-tty0.cast"))
    header, *events = events_of(first.read_text())
    equal((header["version"], header["title"]), (2, "tty0"), "header")
    equal(events[0][1:], ["m", "open"], "first event")
    output = "".join(e[2] for e in events if e[1] == "o").encode("utf-8", "surrogateescape")
    check("bär ".encode() + b"\xff!\r\n" in output, f"the output lacks it: {output[-300:]}")
    typed = "".join(e[2] for e in events if e[1] == "i")
    contains(typed, "poweroff")
    check(all(a[0] <= b[0] for a, b in zip(events, events[1:])), "times do not grow")


@test
def terminals_are_logged_to_a_descriptor(scratch):
    log = scratch / "log"
    file = machine(scratch, "tty_log_fd = 9\n[[console]]\nname = 'con0'\nplugin = 'null'\n")
    with open(log, "wb") as out:
        os.dup2(out.fileno(), 9)
        try:
            process = subprocess.run([COWBIRD, "boot", file, "--set", "machine.init=/bin/sh", "--set",
                                      'machine.args=["-c", "echo to the log; poweroff -f"]'],
                                     pass_fds=[9], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                                     check=False)
        finally:
            os.close(9)
    equal(process.returncode, 0, f"exit status ({process.stderr})")
    events = events_of(log.read_text())
    check(all(e[3] == "tty0" for e in events), "events of another terminal")
    contains("".join(e[2] for e in events if e[1] == "o"), "to the log")
    now = time.time()
    check(now - 300 < events[0][0] <= now + 1, f"no time of day: {events[0][0]}")


if __name__ == "__main__":
    main()
