"""What the end-to-end tests are written with: functions marked @test, run in order, printed as TAP.

    from harness import cowbird, main, test

    @test
    def says_hello():
        result = cowbird("run", "--", "/bin/busybox", "echo", "hi")
        equal(result.stdout, b"hi\\n")

    if __name__ == "__main__":
        main()

The programs are found through the environment: COWBIRD (the program), COWBIRD_SOURCE (this tree) and
COWBIRD_BUILD (the build tree); all have defaults for build/release.
"""
import collections
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

SOURCE = Path(os.environ.get("COWBIRD_SOURCE", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("COWBIRD_BUILD", SOURCE / "build" / "release"))
COWBIRD = Path(os.environ.get("COWBIRD", BUILD / "cowbird"))
EXAMPLES = SOURCE / "examples"
BUSYBOX = Path("/bin/busybox")
PROMPT = "# "
LIMIT = 60

sys.path.insert(0, str(SOURCE / "tests" / "support"))
from terminal import Terminal, Unexpected  # noqa: E402,F401

_tests = []


class Skip(Exception):
    """The test cannot run here; the text says why."""


def test(function):
    _tests.append(function)
    return function


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def equal(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError(f"{what}: got {short(got)}, wanted {short(wanted)}")


def contains(text, part, what="text"):
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    if part not in text:
        raise AssertionError(f"{what} lacks {part!r}; it is:\n{text[-2000:]}")


def short(value):
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:400]} ... ({len(text)} characters)"


def cowbird(*words, stdin=b"", timeout=LIMIT, environment=None, directory=None):
    """Runs the program to its end; the completed process, with bytes in stdout and stderr."""
    return subprocess.run([str(COWBIRD), *map(str, words)], input=stdin, capture_output=True, timeout=timeout,
                          env=dict(os.environ, **(environment or {})), cwd=directory, check=False)


def run(*command, options=(), **more):
    """`cowbird run OPTIONS -- COMMAND`."""
    return cowbird("run", *options, "--", *command, **more)


def shell(script, options=(), **more):
    """A script in the guest's busybox shell."""
    return run("/bin/busybox", "sh", "-c", script, options=options, **more)


def output_of(script, options=(), **more):
    """What a script prints; it must succeed."""
    result = shell(script, options, **more)
    if result.returncode != 0:
        raise AssertionError(f"{script!r} ended with {result.returncode}:\n{result.stdout.decode('utf-8', 'replace')}"
                             f"{result.stderr.decode('utf-8', 'replace')}")
    return result.stdout.decode()


def prompt_of(terminal):
    """Waits for the guest shell's prompt."""
    terminal.expect(PROMPT)
    terminal.settle(0.1, 1.0)


def boot_terminal(file, *words, **more):
    """`cowbird boot FILE` on a pseudo-terminal."""
    return Terminal([COWBIRD, "boot", file, *words], **more)


def processes_of(root):
    """The ids of `root` and all processes below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = {root}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def busybox_root(directory):
    """Makes a root file system of busybox and a few directories in `directory`."""
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, directory / "bin" / "busybox")
    (directory / "bin" / "sh").symlink_to("busybox")
    return directory


def descriptors(pid):
    """What the program has open, but for the processes that run guest code."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(re.sub(r"\d+", "N", os.readlink(entry)))
        except OSError:
            pass
    found = collections.Counter(found)
    # A process that runs guest code has one each of these. Those that are idle are kept, some more or less.
    stubs = found["/memfd:cowbird-control (deleted)"]
    found.subtract({name: stubs for name in ("/memfd:cowbird-control (deleted)", "/memfd:cowbird-orders (deleted)",
                                             "anon_inode:[eventfd]", "anon_inode:[pidfd]")})
    return +found


def main():
    names = sys.argv[1:]
    if names == ["--list"]:
        print("\n".join(function.__name__ for function in _tests))
        return
    # Guests of tests that run at the same time must not meet.
    own = tempfile.TemporaryDirectory(prefix="cowbird-e2e-")
    os.environ["COWBIRD_DIR"] = own.name
    chosen = [f for f in _tests if not names or any(name in f.__name__ for name in names)]
    failures = 0
    for number, function in enumerate(chosen, 1):
        with tempfile.TemporaryDirectory(prefix="cowbird-e2e-") as scratch:
            arguments = [Path(scratch)] if inspect.signature(function).parameters else []
            try:
                function(*arguments)
                print(f"ok {number} - {function.__name__}", flush=True)
            except Skip as reason:
                print(f"ok {number} - {function.__name__} # SKIP {reason}", flush=True)
            except Exception as failure:  # whatever it is: this test failed, the others go on
                failures += 1
                print(f"not ok {number} - {function.__name__}")
                place = traceback.extract_tb(failure.__traceback__)
                own = [frame for frame in place if Path(frame.filename).name == Path(sys.argv[0]).name] or place
                text = f"{Path(own[-1].filename).name}:{own[-1].lineno}: {type(failure).__name__}: {failure}"
                print("\n".join(f"# {line}" for line in text.splitlines()), flush=True)
    print(f"1..{len(chosen)}")
    sys.exit(1 if failures else 0)
