#!/usr/bin/env python3
"""A guest in a jail: a chroot that holds the program, its libraries and an archive, and neither /proc nor /dev nor /sys."""
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from harness import BUILD, BUSYBOX, COWBIRD, LIMIT, Skip, check, contains, equal, main, test
from managed_guest import wait_until

PLUGINS = ("channels/fd", "channels/null", "channels/none", "channels/port", "channels/file", "blockdev/file")
OWN_PROCESSES = ("--fork", "--kill-child", "--pid")


def libraries_of(file):
    """Names and files of what the loader takes for it."""
    listed = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(\S+) => (/\S+)", listed) + [(path, path) for path in re.findall(r"^\s*(/\S+) \(", listed, re.M)]


def archive(files):
    """A cpio archive of {name: (mode, bytes)}."""
    out = bytearray()
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + "".join(f"{field:08X}" for field in fields).encode() + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(script):
    init = f"#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmount -t proc proc /proc\n{script}\n"
    folders = {name: (0o040755, b"") for name in ("bin", "dev", "proc", "tmp")}
    return archive({**folders, "bin/busybox": (0o100755, BUSYBOX.read_bytes()), "init": (0o100755, init.encode())})


class Jail:
    def __init__(self, scratch, script):
        self.root = scratch / "jail"
        (self.root / "tmp").mkdir(parents=True)
        shutil.copy(COWBIRD, self.root / "cowbird")
        files = [COWBIRD]
        for name in PLUGINS:
            place = self.root / "plugins" / f"{name}.so"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(BUILD / "plugins" / f"{name}.so", place)
            files.append(place)
        for name, path in {library for file in files for library in libraries_of(file)}:
            # The loader itself has its own place; the jail has no cache of the others'.
            place = self.root / (path.lstrip("/") if name.startswith("/") else f"lib/{name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
        (self.root / "initramfs").write_bytes(initramfs(script))

    def command(self, words, namespaces):
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        start = ["unshare", *namespaces, *user, f"--root={self.root}"]
        probe = subprocess.run([*start, "/cowbird", "--version"], capture_output=True, timeout=LIMIT, check=False,
                               env=self.environment())
        if probe.returncode != 0:
            raise Skip(f"a jail cannot be made here: {probe.stderr.decode('utf-8', 'replace').strip()}")
        return [*start, "/cowbird", *words]

    @staticmethod
    def environment():
        return {"LD_LIBRARY_PATH": "/lib", "COWBIRD_DIR": "/tmp"}

    def files(self):
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))

    def run(self, *words, stdin=subprocess.DEVNULL, close=(), namespaces=OWN_PROCESSES):
        """Runs the program in the jail; the completed process."""
        return subprocess.run(self.command(words, namespaces), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=LIMIT, env=self.environment(), check=False,
                              preexec_fn=lambda: [os.close(fd) for fd in close])

    def boot(self, *words, **more):
        line = "initrd=/initramfs mem=64M umid=jailed con0=fd:0,fd:1 con=null ssl=null"
        return self.run("boot", "--uml", " ".join([line, *words]), **more)


@test
def boots_without_proc_and_dev(scratch):
    jail = Jail(scratch, "echo pid-$$-up; poweroff -f")
    before = jail.files()
    done = jail.boot()
    text = done.stdout.decode("utf-8", "replace")
    equal(done.returncode, 0, f"exit status of {text}")
    contains(text, "pid-1-up")
    contains(text, "the host shows no /proc/sys/vm/max_map_count; 65530 is taken")
    contains(text, "the host shows no /proc; a guest program that blocks the kernel's signal is not looked for")
    equal(text.count("the host shows no"), 2, f"lines about what is missing in {text}")
    equal(jail.files(), before, "what is in the jail afterwards")


@test
def programs_run_in_it(scratch):
    """Forks, executions, pipes, mappings of files, files on disk images: all of it without the host's /proc."""
    script = """
i=0; while [ $i -lt 30 ]; do (exec busybox true) || echo fork failed; i=$((i + 1)); done
seq 1 20000 | sort -n -r | tail -1 | sed 's/^/last-/'
cp /bin/busybox /tmp/busybox; /tmp/busybox md5sum < /bin/busybox > /tmp/a; md5sum < /tmp/busybox > /tmp/b
cmp /tmp/a /tmp/b && echo same-copy
(ulimit -v 100000; exec awk 'BEGIN { while (i < 20000) a[i] = i++; print "held-" length(a) }')
dd if=/dev/ubda bs=4k 2> /dev/null | md5sum
echo written | dd of=/dev/ubda conv=notrunc 2> /dev/null; sync
(while :; do :; done) & sleep 0.1; kill -9 $!; wait $!; echo spinner-$?
poweroff -f
"""
    jail = Jail(scratch, script)
    (jail.root / "disk").write_bytes(b"a" * 65536)
    done = jail.boot("ubd0=/disk")
    text = done.stdout.decode("utf-8", "replace")
    equal(done.returncode, 0, f"exit status of {text}")
    check("fork failed" not in text, text)
    for part in ("last-1", "same-copy", "held-20000", hashlib.md5(b"a" * 65536).hexdigest(), "spinner-137"):
        contains(text, part)
    check((jail.root / "disk").read_bytes().startswith(b"written\naaaa"), "the disk image")


@test
def restarts_by_the_path_it_was_started_by(scratch):
    jail = Jail(scratch, "grep -q second /proc/cmdline; read -r word < /dev/ubda; echo round-$word\n"
                         "[ $word = 1 ] && { echo 2 | dd of=/dev/ubda conv=notrunc 2> /dev/null; sync; reboot -f; }\n"
                         "poweroff -f")
    (jail.root / "disk").write_bytes(b"1\n" + bytes(4094))
    done = jail.boot("ubd0=/disk")
    text = done.stdout.decode("utf-8", "replace")
    equal(done.returncode, 0, f"exit status of {text}")
    equal(re.findall(r"round-(\d)", text), ["1", "2"], f"the rounds in {text}")


@test
def watchdog_needs_no_proc(scratch):
    """The watchdog's process is this program once more."""
    jail = Jail(scratch, "exec 3> /dev/watchdog && echo x >&3 && echo watched; echo V >&3; exec 3>&-; poweroff -f")
    done = jail.boot()
    text = done.stdout.decode("utf-8", "replace")
    equal(done.returncode, 0, f"exit status of {text}")
    contains(text, "watched")
    check("cannot be started" not in text, text)


@test
def runs_one_program(scratch):
    done = Jail(scratch, "").run("run", "--", "sh", "-c", "echo from-$((6 * 7)); exit 5")
    equal(done.returncode, 5, f"exit status of {done.stdout!r}")
    contains(done.stdout, "from-42")


@test
def what_needs_proc_says_so(scratch):
    jail = Jail(scratch, "poweroff -f")
    done = jail.run("run", "--root", "/", "--", "/cowbird")
    check(done.returncode not in (0, None), "a root of the host's files was made without /proc")
    contains(done.stdout, "directories of the host need /proc, which this host does not show here")
    done = jail.boot("gdb=tcp:0")
    contains(done.stdout, "it needs /proc, which this host does not show here")


@test
def closed_standard_descriptors_stay_closed(scratch):
    """Nothing takes their places, without /dev/null too."""
    jail = Jail(scratch, "echo up > /dev/ttyS0; poweroff -f")
    done = jail.run("boot", "--uml", "initrd=/initramfs mem=64M umid=jailed con=null ssl0=file:/serial quiet",
                    stdin=None, close=(0, 2))
    equal(done.returncode, 0, f"exit status of {done.stdout!r}")
    contains((jail.root / "serial").read_bytes(), "up")


@test
def daemon_needs_no_dev_null(scratch):
    jail = Jail(scratch, "echo up > /dev/ttyS0; poweroff -f")
    done = jail.run("boot", "--daemon", "--uml",
                    "initrd=/initramfs mem=64M umid=jailed con0=fd:0,fd:1 con=null ssl0=file:/serial quiet",
                    # A name space of processes would end with its first one, which leaves the guest behind.
                    namespaces=())
    equal(done.returncode, 0, f"exit status of {done.stdout!r}")
    contains(done.stdout, "jailed runs as process")
    wait_until(lambda: not (jail.root / "tmp" / "jailed").exists(), "the end of the guest")
    contains((jail.root / "serial").read_bytes(), "up")
    check(not (jail.root / "dev").exists(), "somebody made /dev")


if __name__ == "__main__":
    main()
