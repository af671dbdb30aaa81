"""A program on a pseudo-terminal, and what its screen shows. For tests; needs only python3.

    with Terminal(["cowbird", "boot", "hello.toml"]) as terminal:
        terminal.expect("# ")
        terminal.type("echo hi\\n")
        terminal.expect("hi")
        terminal.wait()
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

LIMIT = 30.0  # seconds that an expectation may take


class Unexpected(AssertionError):
    """What was waited for did not come; the text shows what came instead."""


class Screen:
    """What a terminal shows: enough of VT100 for full-screen busybox programs."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.row = self.column = 0
        self.cells = [[" "] * columns for _ in range(rows)]
        self.pending = ""

    def lines(self):
        return ["".join(row).rstrip() for row in self.cells]

    def text(self):
        return "\n".join(self.lines())

    ESCAPE = re.compile(r"\x1b(?:\[([?>=]?[\d;]*)([@-~])|[()][0-9A-Za-z]|[78=>McDEH]|\][^\x07]*\x07)")

    def feed(self, text):
        text = self.pending + text
        self.pending = ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                match = self.ESCAPE.match(text, at)
                if match:
                    self.control(match)
                    at = match.end()
                    continue
                if len(text) - at < 24:  # the rest of it comes later
                    self.pending = text[at:]
                    return
            else:
                self.put(text[at])
            at += 1

    def put(self, letter):
        if letter == "\n":
            self.next_line()
        elif letter == "\r":
            self.column = 0
        elif letter == "\b":
            self.column = max(0, self.column - 1)
        elif letter == "\t":
            self.column = min(self.columns - 1, (self.column // 8 + 1) * 8)
        elif letter >= " ":
            if self.column >= self.columns:
                self.column = 0
                self.next_line()
            self.cells[self.row][self.column] = letter
            self.column += 1

    def next_line(self):
        if self.row == self.rows - 1:
            self.cells.pop(0)
            self.cells.append([" "] * self.columns)
        else:
            self.row += 1

    def control(self, match):
        letter = match.group(2)
        if letter is None:
            return
        numbers = [int(part) if part.isdigit() else 0 for part in match.group(1).lstrip("?>=").split(";")]
        first = max(1, numbers[0])
        if letter in "Hf":
            second = numbers[1] if len(numbers) > 1 else 1
            self.row = min(self.rows, first) - 1
            self.column = min(self.columns, max(1, second)) - 1
        elif letter == "A":
            self.row = max(0, self.row - first)
        elif letter == "B":
            self.row = min(self.rows - 1, self.row + first)
        elif letter == "C":
            self.column = min(self.columns - 1, self.column + first)
        elif letter == "D":
            self.column = max(0, self.column - first)
        elif letter == "G":
            self.column = min(self.columns, first) - 1
        elif letter == "J":
            self.erase_line(numbers[0])
            below = range(self.row + 1, self.rows) if numbers[0] == 0 else range(self.row)
            for row in range(self.rows) if numbers[0] == 2 else below:
                self.cells[row] = [" "] * self.columns
        elif letter == "K":
            self.erase_line(numbers[0])

    def erase_line(self, how):
        column = min(self.column, self.columns)
        blank = {0: range(column, self.columns), 1: range(min(column + 1, self.columns))}.get(how, range(self.columns))
        for at in blank:
            self.cells[self.row][at] = " "


class Terminal:
    """A child on a terminal of its own. Everything that it writes is in `output` and on `screen`."""

    def __init__(self, command, rows=24, columns=80, environment=None, directory=None):
        self.output = ""
        self.at = 0  # what is before it was expected already
        self.screen = Screen(rows, columns)
        self.status = None
        self.process, self.master = pty.fork()
        if self.process == 0:
            try:
                os.chdir(directory or ".")
                os.environ["TERM"] = "vt100"
                os.execvpe(command[0], [str(word) for word in command], dict(os.environ, **(environment or {})))
            except OSError as error:
                os.write(2, f"cannot start {command[0]}: {error}\n".encode())
            os._exit(127)
        self.resize(rows, columns)
        self.modes = termios.tcgetattr(self.master)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen = Screen(rows, columns)

    def type(self, text):
        data = text.encode("latin-1")
        while data:
            data = data[os.write(self.master, data):]

    def pump(self, seconds):
        """Takes in what comes within `seconds`; False at the end of the output."""
        ready, _, _ = select.select([self.master], [], [], max(0, seconds))
        if not ready:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            data = b""
        if not data:
            return False
        text = data.decode("latin-1")
        self.output += text
        self.screen.feed(text)
        if "\x1b[6n" in text:  # where is the cursor? A terminal answers that.
            self.type(f"\x1b[{self.screen.row + 1};{self.screen.column + 1}R")
        return True

    def expect(self, pattern, seconds=LIMIT, literal=True):
        """Waits until the new output has `pattern`; the match. What is up to its end is then old."""
        wanted = re.compile(re.escape(pattern) if literal else pattern, re.S)
        until = time.monotonic() + seconds
        open_ = True
        start = self.at
        while True:
            match = wanted.search(self.output, start)
            if match:
                self.at = match.end()
                return match
            left = until - time.monotonic()
            if left <= 0 or not open_:
                why = f"within {seconds} s" if open_ else "before the end"
                raise Unexpected(f"{pattern!r} did not come {why}; the last output was:\n{self.output[self.at:][-1500:]}")
            if literal:  # what was looked through once is not again: outputs may be long
                start = max(self.at, len(self.output) - len(pattern))
            open_ = self.pump(min(left, 0.5))

    def press(self, key, pattern, seconds=LIMIT):
        """Types a key that makes a signal until `pattern` comes. One that arrives while the shell's line editor still
        has the terminal, which on a busy host it may for long after the line was entered, is a mere character."""
        until = time.monotonic() + seconds
        while True:
            self.type(key)
            try:
                return self.expect(pattern, min(5, seconds))
            except Unexpected:
                if time.monotonic() >= until:
                    raise

    def expect_screen(self, condition, what, seconds=LIMIT):
        """Waits until `condition(screen)` holds."""
        until = time.monotonic() + seconds
        while not condition(self.screen):
            if time.monotonic() >= until or not self.pump(0.2):
                raise Unexpected(f"{what} did not show; the screen was:\n{self.screen.text()}")

    def settle(self, quiet=0.3, seconds=5.0):
        """Takes in output until none came for `quiet` seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            before = len(self.output)
            if not self.pump(quiet) or len(self.output) == before:
                return

    def wait(self, seconds=LIMIT):
        """The exit status of the program as a shell gives it (128 + n for a signal)."""
        until = time.monotonic() + seconds
        while self.status is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.status = os.waitstatus_to_exitcode(status)
                self.status = 128 - self.status if self.status < 0 else self.status
                while self.pump(0.05) and select.select([self.master], [], [], 0)[0]:
                    pass
                break
            if time.monotonic() >= until:
                raise Unexpected(f"the program did not end within {seconds} s; its last output was:\n{self.output[-1500:]}")
            if not self.pump(0.1):
                time.sleep(0.02)
        return self.status

    def running(self):
        if self.status is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is None

    def close(self):
        if self.running():
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
            self.status = 128 + signal.SIGKILL
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
