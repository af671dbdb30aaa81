"""A booted guest with a shell on con0 and more consoles, and the programs that people sit at them with. For end-to-end
tests."""
import contextlib
import os
import re
import shutil
import socket
import subprocess
import time

from harness import COWBIRD, Skip, Terminal, Unexpected, boot_terminal, check, cowbird, equal

LIMIT = 120.0  # seconds; a machine may be busy
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
        self.start(directory.name[-12:], boot_terminal(file, **more))

    def start(self, name, terminal):
        self.name, self.terminal, self.number = name, terminal, 0
        terminal.expect("# ", LIMIT)
        terminal.settle(0.1, 1.0)

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
        """A shell sits on it when this returns."""
        count = "echo shells=$(ps | grep -c '[s]h -i$')"
        before = int(self.wait_for(count, r"shells=(\d+)").group(1))
        self.run(SHELL_ON.format(console))
        self.wait_for(count, rf"shells={before + 1}\b")

    def ask(self, *words, status=0):
        """What the management console answers."""
        result = cowbird("mconsole", self.name, *words, timeout=LIMIT)
        equal(result.returncode, status, f"exit status of {words}: {result.stdout!r} {result.stderr!r}")
        return result.stdout.decode("utf-8", "replace")

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


class UmlGuest(Guest):
    """The same, started by a command line of UML's."""

    def __init__(self, name, line, **more):
        self.start(name, Terminal([COWBIRD, "boot", "--uml", f"umid={name} quiet {line}"], **more))


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


def talk(terminal, line, wanted, literal=True):
    terminal.type(line)
    return terminal.expect(wanted, LIMIT, literal=literal)


def talk_pid(terminal):
    terminal.type("echo pid=$$.\r")
    return terminal.expect(r"pid=(\d+)\.", literal=False).group(1)


def telnet(port, address="127.0.0.1", **more):
    return Terminal([need("telnet"), address, port], **more)


def telnet_when_open(port, address="127.0.0.1"):
    """A client, as soon as the guest has opened the console. No other connection before: its end would be a hang-up."""
    until = time.monotonic() + LIMIT
    while True:
        client = telnet(port, address)
        try:
            client.expect("Escape character")
            return client
        except Unexpected:
            client.close()
            check(time.monotonic() < until, f"nobody answers on port {port}")


def port_console(port, *more):
    return ['plugin = "port"', f"port = {port}", *more]


@contextlib.contextmanager
def x_server():
    """The name of a display of its own."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    # With -noreset: when its last client leaves it would start anew, and turn away who comes in that moment.
    server = subprocess.Popen([need("Xvfb"), "-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp",
                               "-noreset"],
                              pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with open(read, encoding="ascii") as answer:
            number = answer.readline().strip()  # written in pieces
        if not number:
            raise Skip("Xvfb does not start here")
        yield f":{number}"
    finally:
        server.kill()
        server.wait()


def x(display, *words):
    """What xdotool prints; "" when it fails."""
    done = subprocess.run(["xdotool", *words], capture_output=True, timeout=LIMIT, check=False,
                          env=dict(os.environ, DISPLAY=display))
    return done.stdout.decode().strip() if done.returncode == 0 else ""


def window_named(display, name, guest):
    """The id of a window, when it is there; keys go to it from now on."""
    until = time.monotonic() + LIMIT
    while not (window := x(display, "search", "--name", f"^{name}$")):
        check(time.monotonic() < until, f"no window of the name {name} came; the guest says: {guest.run('dmesg | tail')}")
        time.sleep(0.1)
    # No window manager gives it the focus; what is typed goes where the pointer is.
    x(display, "mousemove", "--window", window, "50", "50")
    return window


def until_seen(terminal, pattern, act):
    """Does something again and again until the terminal shows the pattern; the match. For what may come too early."""
    until = time.monotonic() + LIMIT
    while True:
        act()
        try:
            return terminal.expect(pattern, 3, literal=False)
        except Unexpected:
            check(time.monotonic() < until, f"{pattern} never showed:\n{terminal.output[-1500:]}")
