"""Guests for the tests of the debugger: `cowbird boot` of a machine whose init is a shell script, with its output in
a file, and gdbs that are attached to it. Every wait has a limit.

    with Guest(scratch, "echo up; exec cat") as guest:
        guest.says("up")
        with guest.gdb() as gdb:            # over MI, attached
            gdb.run("break cowbird::sys_read")
        guest.goes_on()
"""
import os
import re
import subprocess
import time
from pathlib import Path

from harness import BUILD, COWBIRD, LIMIT, Skip, check, contains, cowbird
from gdb import GDB, Mi, batch

PROGRAMS = BUILD / "tests" / "e2e"
TICKER = "echo up; while :; do cat /proc/uptime; sleep 0.05; done"


def until(condition, what, limit=LIMIT):
    """Waits for something true; what it was."""
    end = time.monotonic() + limit
    while True:
        found = condition()
        if found:
            return found
        check(time.monotonic() < end, f"waited in vain for {what}")
        time.sleep(0.02)


class Guest:
    """One guest, named `name`. `machine`, `debug` and `more` are lines of the machine file: of [machine], of [debug],
    and whole tables."""

    def __init__(self, scratch, script=TICKER, machine="", debug="", more="", vcpus=1, name="seen", memory="64M", words=(),
                 program=COWBIRD, wait="up"):
        if GDB is None:
            raise Skip("gdb is not installed")
        self.name, self.scratch, self.program = name, scratch, program
        self.file = scratch / f"{name}.toml"
        self.output = scratch / f"{name}.out"
        self.sockets = 0
        self.servers = []
        arguments = script.replace("\\", "\\\\").replace('"', '\\"')
        self.file.write_text(
            f'[machine]\nname = "{name}"\nmemory = "{memory}"\nvcpus = {vcpus}\nlog_level = "err"\ninit = "/bin/sh"\n'
            f'args = ["-c", "mount -t proc proc /proc; {arguments}"]\n{machine}\n[debug]\n{debug}\n'
            f'[[mount]]\nhost = "{PROGRAMS}"\nguest = "/t"\nro = true\n{more}\n')
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen([str(program), "boot", str(self.file), *words], stdin=subprocess.PIPE,
                                            stdout=file, stderr=subprocess.STDOUT)
        try:
            if wait:
                self.says(wait)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.kill()
            server.wait()
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def text(self):
        return self.output.read_text("utf-8", "replace")

    def says(self, what, times=1):
        """Waits for a text that the guest, or its kernel, writes."""
        def said():
            if self.text().count(what) >= times:
                return True
            check(self.process.poll() is None or self.text().count(what) >= times,
                  f"the guest ended without {what!r}:\n{self.text()[-3000:]}")
            return False
        until(said, f"{what!r} of the guest, which says {self.text()[-1000:]!r}")

    def type(self, text="\n"):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def grow(self):
        """Waits until the guest has written something more."""
        size = self.output.stat().st_size
        until(lambda: self.output.stat().st_size > size, f"more output of the guest than {self.text()[-4000:]}")

    def goes_on(self):
        """Nobody traces it, and it runs. Its script has to write for ever."""
        until(lambda: "TracerPid:\t0" in Path(f"/proc/{self.process.pid}/status").read_text(), "the end of tracing")
        self.grow()

    def ended(self, status):
        got = self.process.wait(LIMIT)
        check(got == status, f"exit status {got}, not {status}; the guest said:\n{self.text()[-3000:]}")

    def mconsole(self, *words):
        result = cowbird("mconsole", self.name, *words)
        check(result.returncode == 0, f"mconsole {words}: {result.stdout!r} {result.stderr!r}")
        return result.stdout.decode()

    def serve(self, *words, program=None):
        """Starts `cowbird gdbserver`; its socket."""
        self.sockets += 1
        path = self.scratch / f"{self.name}-{self.sockets}.sock"
        self.servers.append(subprocess.Popen(
            [str(program or self.program), "gdbserver", "--pid", str(self.process.pid), "--listen", f"unix:{path}", *words],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        until(path.exists, "the server's socket")
        return path

    def gdb(self, *options, at=None, program=None, stop=True):
        """A gdb that is spoken to over MI, attached, with the script; to the server at `at`, or to one of its own."""
        at = at or self.serve()
        gdb = Mi("-iex", "set sysroot /", *options)
        try:
            for command in (f"source {SCRIPT}", "set remotetimeout 60", "set tcp connect-timeout 60",
                            f"file {program or self.program}", f"target extended-remote {at}"):
                gdb.run(command)
            if stop:
                gdb.stopped()
        except BaseException:
            gdb.close()
            raise
        return gdb

    def batch(self, *commands, at=None, timeout=LIMIT):
        """What a gdb that is attached for these commands only prints."""
        return batch(f"source {SCRIPT}", f"file {self.program}", f"target extended-remote {at or self.serve()}", *commands,
                     options=("-iex", "set sysroot /"), timeout=timeout)


SCRIPT = Path(os.environ.get("COWBIRD_SOURCE", Path(__file__).resolve().parents[2])) / "debug" / "cowbird-gdb.py"


def go_to(gdb, place):
    gdb.run(f"tbreak {place}")
    gdb.run("continue")
    return gdb.stopped()


def in_order(text, *parts):
    at = 0
    for part in parts:
        found = re.compile(part).search(text, at)
        check(found, f"{part!r} is missing, or not in its place, in:\n{text[-3500:]}")
        at = found.end()


__all__ = ["Guest", "TICKER", "PROGRAMS", "SCRIPT", "batch", "contains", "go_to", "in_order", "until"]
