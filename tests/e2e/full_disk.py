#!/usr/bin/env python3
"""A host file system that is full: what cannot be started says why and leaves nothing, what runs loses nothing else."""
import contextlib
import ctypes
import json
import os
import random
import re
import subprocess
from pathlib import Path

from harness import COWBIRD, LIMIT, Skip, check, contains, equal, main, test
from managed_guest import Guest, wait_until

CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x10000000, 0x4000, 1 << 18, 2
libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        raise Skip(f"a small file system cannot be mounted here: {name}: {os.strerror(ctypes.get_errno())}")


def own_mounts(done=[]):  # pylint: disable=dangerous-default-value
    """Mounts of this process and its children are seen by nobody else from here on."""
    if done:
        return
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        call("unshare", CLONE_NEWNS)
    else:
        call("unshare", CLONE_NEWNS | CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    done.append(True)


@contextlib.contextmanager
def small_disk(scratch, options):
    own_mounts()
    place = scratch / "small"
    place.mkdir()
    call("mount", b"none", os.fsencode(place), b"tmpfs", 0, options.encode())
    try:
        yield place
    finally:
        libc.umount2(os.fsencode(place), MNT_DETACH)


def fill(place):
    """Takes all the room; the file that does."""
    filler = place / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    equal(os.statvfs(place).f_bavail, 0, "room after filling")
    return filler


@test
def directory_without_room_is_refused_and_leaves_nothing(scratch):
    """Each file of the run-time directory in turn is the one for which there is no room any more."""
    answers = []
    for inodes in range(1, 20):
        directory = scratch / str(inodes)
        directory.mkdir()
        with small_disk(directory, f"size=1M,nr_inodes={inodes + 1}") as place:
            done = subprocess.run([COWBIRD, "boot", "--uml", "umid=full con=null con0=fd:0,fd:1 init=/bin/true quiet"],
                                  env=dict(os.environ, COWBIRD_DIR=str(place)), stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=LIMIT, check=False)
            equal(os.listdir(place), [], f"what is left with {inodes} inodes")
            if done.returncode != 1:
                break  # it started; the end of process 1 is a panic
            text = done.stderr.decode()
            check(re.fullmatch(r"cowbird: error: .*/full(/\w+)? cannot be (made|bound|written): No space left on device\.\n",
                               text), f"with {inodes} inodes it says {text!r}")
            answers.append(text)
    equal(done.returncode, 3, "status of the guest that started")
    check(len(answers) >= 4, f"few steps failed: {answers}")


@test
def directory_without_blocks_is_refused(scratch):
    with small_disk(scratch, "size=64k") as place:
        filler = fill(place)
        done = subprocess.run([COWBIRD, "boot", "--uml", "umid=full con=null con0=null quiet"], stdin=subprocess.DEVNULL,
                              env=dict(os.environ, COWBIRD_DIR=str(place)), capture_output=True, timeout=LIMIT, check=False)
        equal(done.returncode, 1, f"status of {done.stderr!r}")
        contains(done.stderr, "/full/pid cannot be written: No space left on device.")
        equal(os.listdir(place), [filler.name], "what is left")


@test
def guest_memory_is_no_file_of_a_file_system(scratch):
    """Linked nowhere, as large as the memory, taken as it is used; a scratch folder that fills up does not matter."""
    with small_disk(scratch, "size=1M") as place:
        os.environ["COWBIRD_DIR"], before = str(place), os.environ["COWBIRD_DIR"]
        try:
            script = """
until dmesg | grep -q go-on; do sleep 0.05; done
mount -t tmpfs -o size=50M tmpfs /tmp
dd if=/dev/urandom of=/tmp/data bs=1M count=40 2> /dev/null
md5sum < /tmp/data > /tmp/a; md5sum < /tmp/data | cmp - /tmp/a && echo filled
sleep 1000"""
            with Guest(scratch, script, config='memory = "128M"', log="warning") as guest:
                memory = next(fd for fd in Path(f"/proc/{guest.process.pid}/fd").iterdir()
                              if os.readlink(fd).startswith("/memfd:cowbird-memory")).stat()
                equal((memory.st_nlink, memory.st_size), (0, 128 << 20), "links and size of the memory")
                filler = fill(place)
                guest.ask("log", "go-on")
                wait_until(lambda: "filled" in guest.text(), "the use of the memory")
                grown = next(fd for fd in Path(f"/proc/{guest.process.pid}/fd").iterdir()
                             if os.readlink(fd).startswith("/memfd:cowbird-memory")).stat()
                check(grown.st_blocks * 512 >= memory.st_blocks * 512 + (30 << 20),
                      f"blocks before: {memory.st_blocks}, after: {grown.st_blocks}")
                contains(guest.ask("version"), "OK Linux demo")
                guest.ask("halt")
                guest.ended(0)
                equal(os.listdir(place), [filler.name], "what is left")
        finally:
            os.environ["COWBIRD_DIR"] = before


@test
def disk_image_without_room_is_an_error_of_that_write(scratch):
    """A sparse image: what was written stays, and once there is room, writing goes on."""
    with small_disk(scratch, "size=3M") as place:
        image = place / "image"
        with open(image, "wb") as file:
            file.truncate(16 << 20)
        start = random.Random(5).randbytes(1 << 20)
        (scratch / "start").write_bytes(start)
        script = """
dd if=/in of=/dev/ubda bs=64k conv=notrunc,fsync 2> /dev/null && echo first-written
dd if=/dev/zero of=/dev/ubda bs=64k seek=16 count=128 conv=notrunc,fsync 2> /tmp/error || sed 's/^/told: /' /tmp/error
echo full
until dmesg | grep -q go-on; do sleep 0.05; done
dd if=/in of=/dev/ubda bs=64k seek=200 conv=notrunc,fsync && echo again-written
dd if=/dev/ubda bs=64k count=16 2> /dev/null | cmp - /in && echo first-kept
dd if=/dev/ubda bs=64k skip=200 count=16 2> /dev/null | cmp - /in && echo again-kept
poweroff -f"""
        root = scratch / "root-demo"
        root.mkdir()
        (root / "in").write_bytes(start)
        with Guest(scratch, script, expect="full\n", machine=
                   f'[[block]]\nname = "ubd0"\nplugin = "file"\npath = "{image}"\n') as guest:
            contains(guest.text(), "first-written")
            check(re.search("told: .*(No space left|I/O error|Input/output)", guest.text()), guest.text())
            # Room again.
            check((image.stat().st_blocks * 512) <= 3 << 20, "the image is larger than its file system")
            call("mount", b"none", os.fsencode(place), None, 32, b"size=32M")  # MS_REMOUNT
            guest.ask("log", "go-on")
            guest.ended(0)
            for said in ("again-written", "first-kept", "again-kept"):
                contains(guest.text(), said)
        with open(image, "rb") as file:
            equal(file.read(1 << 20) == start, True, "what is in the image")


@test
def log_file_without_room_does_not_hold_the_guest(scratch):
    with small_disk(scratch, "size=256k") as place:
        script = """
i=0; while [ $i -lt 20 ]; do seq 1 3000 > /dev/ttyS1; i=$((i + 1)); done; echo full
until dmesg | grep -q go-on; do sleep 0.05; done
echo after-it > /dev/ttyS1
poweroff -f"""
        with Guest(scratch, script, expect="full\n", machine=
                   f'[[serial]]\nname = "ssl1"\nplugin = "file"\npath = "{place}/log"\nmax_size = "150K"\nkeep = 9\n') as guest:
            equal(guest.text().count("No space left on device"), 1, "how often it is said")
            kept = sum(file.stat().st_size for file in place.glob("log.*"))
            for old in place.glob("log.*"):
                old.unlink()
            guest.ask("log", "go-on")
            guest.ended(0)
            lost = int(re.search(r"goes on; (\d+) bytes of output were dropped", guest.text()).group(1))
        text = (place / "log").read_bytes()
        check(text.endswith(b"after-it\r\n"), f"the log ends with {text[-60:]!r}")
        lines = b"".join(b"%d\r\n" % number for number in range(1, 3001))
        equal(kept + len(text) - len(b"after-it\r\n") + lost, 20 * len(lines), "bytes kept and lost")


@test
def log_rotation_without_room_moves_nothing_twice(scratch):
    """No inode for the next log: the older ones stay what they are, however often it is tried."""
    # The directory and three logs.
    with small_disk(scratch, "size=1M,nr_inodes=4") as place:
        script = """
stty -F /dev/ttyS1 -onlcr
(for i in 1 2 3 4 5 6 7; do yes $i | head -c 4096; done) > /dev/ttyS1; for i in 1 2 3 4 5; do echo refused > /dev/ttyS1; done
echo full
until dmesg | grep -q go-on; do sleep 0.05; done
echo after-it > /dev/ttyS1
poweroff -f"""
        with Guest(scratch, script, expect="full\n", machine=
                   f'[[serial]]\nname = "ssl1"\nplugin = "file"\npath = "{place}/log"\nmax_size = "4K"\nkeep = 9\n') as guest:
            equal({file.name: file.read_bytes()[:2] for file in place.iterdir()},
                  {"log.1": b"3\n", "log.2": b"2\n", "log.3": b"1\n"}, "the logs")
            call("mount", b"none", os.fsencode(place), None, 32, b"size=1M,nr_inodes=8")
            guest.ask("log", "go-on")
            guest.ended(0)
            contains(guest.text(), f"goes on; {4 * 4096} bytes of output were dropped")
        equal((place / "log").read_bytes(), b"after-it\n", "the new log")


@test
def terminal_log_without_room_goes_on_when_there_is_some(scratch):
    with small_disk(scratch, "size=128k") as place:
        script = """
seq 1 20000; echo full
until dmesg | grep -q go-on; do sleep 0.05; done
until [ -e /tmp/enough ]; do echo more; sleep 0.3; dmesg | grep -q enough && touch /tmp/enough; done
poweroff -f"""
        script = f"mount -t tmpfs none /tmp; {script}"
        with Guest(scratch, script, expect="full\n", config=f'tty_log_dir = "{place}"') as guest:
            wait_until(lambda: "cannot be written: No space left on device" in guest.text(), "word of the full disk")
            call("mount", b"none", os.fsencode(place), None, 32, b"size=8M")  # MS_REMOUNT
            guest.ask("log", "go-on")
            wait_until(lambda: sum(file.stat().st_size for file in place.iterdir()) > 200_000, "the log to go on")
            guest.ask("log", "enough")
            guest.ended(0)
            equal(guest.text().count("cannot be written"), 1, "how often it is said")
        text = "".join(json.loads(line)[2] for file in place.iterdir() for line in file.read_text().splitlines()[1:]
                       if json.loads(line)[1] == "o")
        # The kernel's own lines are among them.
        numbers = [line for line in text.split("\r\n") if line.isdigit()]
        check(numbers == [str(number) for number in range(1, 20001)], f"the log has {len(numbers)} lines, or others")


if __name__ == "__main__":
    main()
