"""A guest that runs in the background and is talked to through its management console. For end-to-end tests."""
import os
import shutil
import subprocess
import time
from pathlib import Path

from harness import BUSYBOX, COWBIRD, LIMIT, Skip, check, cowbird, equal


def wait_until(condition, what, seconds=LIMIT):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


class Guest:
    """A machine whose init is a busybox script, booted until it says "up".

    `config` goes to [machine], `machine` is more sections; `expect` is what the script says when it is where the test
    wants it.
    """

    def __init__(self, scratch, script="sleep 1000", name="demo", config="", machine="", expect="up", log="info"):
        self.scratch, self.name = scratch, name
        self.uml = Path(os.environ["COWBIRD_DIR"])
        self.directory = self.uml / name
        root = scratch / f"root-{name}"
        (root / "bin").mkdir(parents=True, exist_ok=True)
        for directory in ("dev", "proc", "sys", "tmp"):
            (root / directory).mkdir(exist_ok=True)
        shutil.copy(BUSYBOX, root / "bin" / "busybox")
        (root / "init").write_text(
            "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n"
            f"mount -t proc proc /proc\necho up\n{script}\n")
        (root / "init").chmod(0o755)
        self.file = scratch / f"{name}.toml"
        self.file.write_text(f'[machine]\nname = "{name}"\nlog_level = "{log}"\n{config}\n'
                             f'[root]\nsource = "{root}"\n{machine}')
        self.output = open(scratch / f"{name}.log", "wb")
        self.process = subprocess.Popen([str(COWBIRD), "boot", str(self.file)], stdin=subprocess.DEVNULL,
                                        stdout=self.output, stderr=subprocess.STDOUT)
        if expect:
            try:
                wait_until(lambda: expect in self.text() or self.process.poll() is not None, f"the guest's {expect!r}")
            except AssertionError as failure:
                self.process.kill()
                raise AssertionError(f"{failure}; it said: {self.text()[-2000:]}") from None
            check(self.process.poll() is None, f"the guest ended: {self.text()}")

    def text(self):
        return (self.scratch / f"{self.name}.log").read_text("utf-8", "replace")

    def pid(self):
        return int((self.directory / "pid").read_text())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.output.close()

    def ended(self, status=None):
        result = self.process.wait(LIMIT)
        if status is not None:
            equal(result, status, f"exit status; the log is {self.text()}")
        check(not self.directory.exists(), "the directory is still there")

    def uml_mconsole(self, *words, timeout=LIMIT):
        """UML's client: (exit status, output)."""
        if shutil.which("uml_mconsole") is None:
            raise Skip("uml_mconsole is not installed (Debian: uml-utilities)")
        result = subprocess.run(["uml_mconsole", str(self.directory / "mconsole"), *words], capture_output=True,
                                timeout=timeout, check=False)
        return result.returncode, result.stdout.decode("utf-8", "replace")

    def ask(self, *words, status=0, stdin=b"", options=()):
        """Our client: its output."""
        result = cowbird("mconsole", *options, self.name, *words, stdin=stdin)
        equal(result.returncode, status, f"exit status of {words}: {result.stdout!r} {result.stderr!r}")
        return result.stdout.decode("utf-8", "replace")
