"""gdb for tests: in batch mode, and over GDB/MI where things happen by themselves.

    output = batch("target remote /tmp/socket", "info threads")

    with Mi("-iex", "set non-stop on") as gdb:
        gdb.run("target extended-remote /tmp/socket")
        gdb.run("continue -a&")
        stop = gdb.stopped()             # the text of the next *stopped record
"""
import os
import re
import select
import shutil
import signal
import subprocess
import time

GDB = shutil.which("gdb")
LIMIT = 60
# Nothing of the caller's habits, nothing asked back.
QUIET = ["-nx", "-q", "-iex", "set pagination off", "-iex", "set confirm off", "-iex", "set width 0",
         "-iex", "set debuginfod enabled off", "-iex", "set style enabled off"]


class GdbError(AssertionError):
    """gdb said ^error, or nothing in time."""


def batch(*commands, options=(), timeout=LIMIT):
    """Runs the commands; what gdb printed, both streams in one."""
    words = [GDB, *QUIET, "-batch", *options]
    for command in commands:
        words += ["-ex", command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout, check=False)
    return done.stdout.decode("utf-8", "replace")


def unquote(text):
    """The text of a C string as MI quotes it, without its quotes."""
    simple = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}

    def one(match):
        found = match.group(1)
        return simple.get(found) or (chr(int(found, 8)) if found[0].isdigit() else found)
    return re.sub(r"\\([0-7]{1,3}|.)", one, text)


class Mi:
    """A gdb that is spoken to in MI. All that it says is kept in `log`, what users would see in `console`."""

    def __init__(self, *options):
        self.process = subprocess.Popen([GDB, *QUIET, "-i=mi3", *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.rest = b""
        self.log = []
        self.console = ""
        self.records = []     # asynchronous ones that nobody has asked for yet
        self.token = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.process.poll() is None:
            try:
                self.process.stdin.write(b"-gdb-exit\n")
                self.process.stdin.flush()
                self.process.wait(10)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
        self.process.stdout.close()
        self.process.wait()

    def kill(self):
        """As a gdb that dies."""
        self.process.kill()
        self.process.wait()

    def interrupt_until_stopped(self, timeout=LIMIT):
        """^C at gdb's terminal, as often as it takes. gdb says that the program runs before it listens for ^C, and
        one that comes in between breaks off its command for good ("Quit"): so gdb must have come to rest first."""
        deadline = time.monotonic() + timeout
        while True:
            self._wait_until_idle(deadline)
            self.process.send_signal(signal.SIGINT)
            try:
                return self.stopped(min(5, timeout))
            except GdbError:
                if time.monotonic() > deadline:
                    raise

    def _wait_until_idle(self, deadline):
        """Returns when gdb sleeps, seen in five looks at it."""
        seen = 0
        while seen < 5 and time.monotonic() < deadline:
            with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
                seen = seen + 1 if file.read().rpartition(")")[2].split()[0] == "S" else 0
            time.sleep(0.05)

    def run(self, command, timeout=LIMIT):
        """A command as users type it (or of MI, with its '-'); what it printed. GdbError on ^error."""
        self.token += 1
        before = len(self.console)
        text = command if command.startswith("-") else f'-interpreter-exec console "{self._quote(command)}"'
        self.process.stdin.write(f"{self.token}{text}\n".encode())
        self.process.stdin.flush()
        answer = self._until(lambda line: re.match(rf"{self.token}\^", line), f"an answer to {command!r}", timeout)
        if answer.startswith(f"{self.token}^error"):
            raise GdbError(f"{command}: {unquote(answer)}")
        return self.console[before:]

    def mi(self, command, timeout=LIMIT):
        """A command of MI; its result record."""
        self.run(command, timeout)
        return next(line for line in reversed(self.log) if line.startswith(f"{self.token}^"))

    def stopped(self, timeout=LIMIT):
        """The next *stopped record."""
        return self.record("*stopped", timeout)

    def record(self, start, timeout=LIMIT):
        """The next asynchronous record that begins like this."""
        for i, line in enumerate(self.records):
            if line.startswith(start):
                return self.records.pop(i)
        line = self._until(lambda text: text.startswith(start), f"a record {start}", timeout)
        self.records.remove(line)
        return line

    @staticmethod
    def _quote(text):
        return text.replace("\\", "\\\\").replace('"', '\\"')

    def _until(self, wanted, what, timeout):
        deadline = time.monotonic() + timeout
        while True:
            line = self._line(deadline)
            if line is None:
                raise GdbError(f"gdb did not give {what}; it said:\n" + "\n".join(self.log[-40:]))
            if wanted(line):
                return line

    def _line(self, deadline):
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not data:
                return None
            self.rest += data
        raw, self.rest = self.rest.split(b"\n", 1)
        line = raw.decode("utf-8", "replace").rstrip("\r")
        self.log.append(line)
        if line[:1] in "~@&" and line[1:2] == '"':
            self.console += unquote(line[2:-1])
        elif line[:1] in ("*", "="):
            self.records.append(line)
        return line
