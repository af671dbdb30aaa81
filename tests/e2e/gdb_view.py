#!/usr/bin/env python3
"""What gdb shows of a guest from outside: threads with names, stacks, tables, monitor commands, the
script, core files, and what [debug] in the machine file does. Needs gdb."""
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from harness import COWBIRD, LIMIT, Skip, alive, check, contains, cowbird, equal, main, test

SLEEPER = "sleep 1000 & sleep 1001 & mount -t tmpfs none /mnt; echo up; exec cat"


def need_gdb():
    if not shutil.which("gdb"):
        raise Skip("gdb is not installed")


def machine(scratch, debug="", memory="32M", vcpus=1, name="seen"):
    file = scratch / "machine.toml"
    file.write_text(f'[machine]\nname = "{name}"\nmemory = "{memory}"\nvcpus = {vcpus}\n'
                    f'log_level = "err"\ninit = "/bin/sh"\nargs = ["-c", "{SLEEPER}"]\n[debug]\n{debug}\n')
    return file


@contextmanager
def guest(file, *words, wait_for="up"):
    """A booted guest whose shell has said that it is up; its standard error is in `errors`."""
    process = subprocess.Popen([str(COWBIRD), "boot", str(file), *words], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        text = b""
        while wait_for and wait_for.encode() not in text:
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                raise AssertionError(f"the guest ended: {text!r} {process.stderr.read()!r}")
            text += piece
        yield process
    finally:
        process.kill()
        process.communicate()


def gdb(*commands, target="seen", timeout=LIMIT, words=()):
    """`cowbird gdb` in batch mode with these commands; what it prints."""
    need_gdb()
    given = [str(COWBIRD), "gdb", *words] + ([target] if target else []) + ["--", "-batch", "-nx", "-iex", "set sysroot /"]
    for command in ("set pagination off", "set width 0", *commands):
        given += ["-ex", command]
    result = subprocess.run(given, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=timeout, check=False)
    return result.stdout.decode("utf-8", "replace")


@test
def threads_have_names_and_states(scratch):
    with guest(machine(scratch)) as process:
        text = gdb("info threads")
        for part in ('"cat/1"', '"sleep/', "sleeping in", "vcpu0 (host)"):
            contains(text, part, "info threads")
        check(alive(process.pid), "the guest runs on after gdb has gone")


def servers_of(pid):
    """The gdb servers that were started for this guest."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"gdbserver" in words and str(pid).encode() in words:
            found.append(int(entry.name))
    return found


@test
def the_server_ends_with_gdb(scratch):
    need_gdb()
    with guest(machine(scratch)) as process:
        command = [str(COWBIRD), "gdb", "seen", "--", "-nx", "-q", "-ex", "set pagination off", "-ex", "info threads"]
        debugger = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = b""
        while b"vcpu0 (host)" not in text:
            piece = os.read(debugger.stdout.fileno(), 4096)
            check(piece, f"gdb ended: {text!r}")
            text += piece
        equal(len(servers_of(process.pid)), 1, "servers of the guest")
        debugger.kill()
        debugger.communicate()
        deadline = time.monotonic() + LIMIT
        while servers_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        equal(servers_of(process.pid), [], "servers after gdb was killed")
        contains(gdb("monitor ps"), "cat", "the guest for the next gdb")


@test
def the_guest_ends_before_gdb(scratch):
    """gdb is told of the end and finds somebody to talk to afterwards."""
    need_gdb()
    socket, words = scratch / "gdb", scratch / "words"
    os.mkfifo(words)
    keyboard = os.open(words, os.O_RDWR)
    process = subprocess.Popen([str(COWBIRD), "run", "--", "/bin/sh", "-c", "echo up; read word; exit 7"],
                               stdin=keyboard, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    contains(process.stdout.readline().decode(), "up", "what the guest says")
    server = subprocess.Popen([str(COWBIRD), "gdbserver", str(process.pid), "--listen", f"unix:{socket}"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        contains(server.stderr.readline().decode(), "listening on", "what the server says")
        given = ["gdb", "-batch", "-nx", "-iex", "set sysroot /", "-iex", "set remotetimeout 60", str(COWBIRD)]
        for command in (f"target extended-remote {socket}", f"shell echo > {words}", "continue", "shell sleep 3", "monitor help", "info threads"):
            given += ["-ex", command]
        result = subprocess.run(given, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=LIMIT, check=False)
        text = result.stdout.decode("utf-8", "replace")
        contains(text, "exited with code 07", "what gdb prints")
        for word in ("Remote communication error", "Remote connection closed", "Broken pipe"):
            check(word not in text, text)
        equal(process.wait(LIMIT), 7, "the guest's exit status")
        equal(server.wait(LIMIT), 0, "the server's exit status")
        check(not socket.exists(), "the socket has gone")
    finally:
        for one in (process, server):
            one.kill()
            one.communicate()
        os.close(keyboard)


@test
def stacks_lead_from_the_switch_to_the_system_call(scratch):
    with guest(machine(scratch)):
        text = gdb("thread apply all bt")
        contains(text, "cowbird_switch_context", "the stacks")
        contains(text, "cowbird::sys_", "the stacks")
        contains(text, "cowbird_thread_main", "the stacks")
        check("Backtrace stopped" not in text, text[-3000:])


@test
def monitor_commands(scratch):
    with guest(machine(scratch, vcpus=2)):
        text = gdb("monitor help", "monitor ps", "monitor log 5", "monitor irq", "monitor locks",
                   "monitor mounts", "monitor plugins", "monitor time", "monitor nonsense",
                   "monitor log x", "monitor bt sleep", "monitor ps x", "monitor help irq", "monitor help nothing")
        for part in ("monitor bt [TID|NAME|all]", "big kernel lock: ", "timer", "none on /mnt type tmpfs (rw)",
                     "fd.so", "monotonic", '"x" is no number of lines', "nanosleep",
                     "from system call", "cowbird_switch_context", "ps takes no argument: monitor ps",
                     'There is no monitor command "nothing"'):
            contains(text, part, "monitor")
        check(len(re.findall(r"^monitor irq +interrupt sources", text, re.M)) == 2, text)
        check(len(re.findall(r"^monitor locks", text, re.M)) == 1, text)
        check(re.search(r"^1 +1 +0 +\d+ +cat ", text, re.M), text)


@test
def tables_of_info_os(scratch):
    with guest(machine(scratch)):
        text = gdb("info os tasks", "info os mounts", "info os plugins", "info os block",
                   "info os sockets")
        for part in ("sleep", "tmpfs", "fd.so"):
            contains(text, part, "info os")


@test
def the_script_is_loaded(scratch):
    with guest(machine(scratch)):
        text = gdb("cb-ps", "cb-dmesg 3", "cb-mounts", "cb-irq", "cb-sockets", "print $task(1)->comm",
                   "print $task(1)->fs.object_->root", "print $task(99999)")
        for part in ("sleep", "none on /mnt type tmpfs (rw)", "timer", '"cat"', "There is no guest thread 99999",
                     "FAMILY"):
            contains(text, part, "the script")
        contains(text, "] ", "the log")
        check("Python Exception" not in text, text)


@test
def a_guest_is_found_by_name_pid_and_directory(scratch):
    with guest(machine(scratch)) as process:
        for name in ("seen", str(process.pid), os.environ["COWBIRD_DIR"] + "/seen"):
            contains(gdb("info threads", target=name), "cat/1", f"gdb {name}")
    result = cowbird("gdb", "nobody-of-this-name")
    equal(result.returncode, 1, "exit status")
    contains(result.stderr, "nobody-of-this-name", "the message")


@test
def without_gdb_its_package_is_named(scratch):
    with guest(machine(scratch)):
        result = cowbird("gdb", "seen", environment={"PATH": str(scratch)})
        equal(result.returncode, 1, "exit status")
        contains(result.stderr, "install the Debian package gdb", "the message")


def wait_for(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"no {what} in {LIMIT} s")
        time.sleep(0.02)


@test
def a_server_of_the_machine_file(scratch):
    need_gdb()
    with guest(machine(scratch, 'gdb = "tcp:127.0.0.1:0"')):
        address = (scratch_dir() / "seen" / "gdb").read_text().strip()
        check(re.fullmatch(r"tcp:127\.0\.0\.1:\d+", address), address)
        port = address.rpartition(":")[2]
        result = subprocess.run(["gdb", "-batch", "-nx", "-ex", f"target extended-remote :{port}",
                                 "-ex", "info threads"], capture_output=True, timeout=LIMIT, check=False)
        contains(result.stdout, "cat/1", "info threads")


def scratch_dir():
    from pathlib import Path
    return Path(os.environ["COWBIRD_DIR"])


@test
def an_address_in_use_is_an_error_before_anything_starts(scratch):
    import socket
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = cowbird("boot", machine(scratch, f'gdb = "tcp:127.0.0.1:{port}"'), timeout=30)
        equal(result.returncode, 1, "exit status")
        contains(result.stderr, str(port), "the message")


@test
def wait_stops_before_the_first_kernel_thread(scratch):
    need_gdb()
    file = machine(scratch, f'gdb = "unix:{scratch}/gdb"\nwait = true')
    with guest(file, wait_for="") as process:
        wait_for((scratch / "gdb").exists, "socket of the server")
        result = subprocess.run(
            ["gdb", "-batch", "-nx", "-ex", f"target extended-remote {scratch}/gdb", "-ex", "bt",
             "-ex", "break cowbird::scheduler::start", "-ex", "continue", "-ex", "bt 1", "-ex", "detach"],
            capture_output=True, timeout=LIMIT, check=False)
        contains(result.stdout, "cowbird_debug_wait_for_gdb", "the first stop")
        contains(result.stdout, "cowbird::scheduler::start", "the breakpoint")
        text = b""
        while b"up" not in text:
            piece = os.read(process.stdout.fileno(), 4096)
            check(piece, "the guest ended")
            text += piece


def panic(process):
    """Makes the guest's kernel panic."""
    process.stdin.write(b"\n")
    process.stdin.flush()


PANICKING = "sleep 1000 & until grep -qs ^sleep /proc/[0-9]*/comm; do :; done; echo up; read x; echo c > /proc/sysrq-trigger"


def panicking(scratch, debug):
    file = machine(scratch, debug)
    file.write_text(file.read_text().replace(SLEEPER, "mount -t proc proc /proc; " + PANICKING))
    return file


def core_of(scratch, debug=""):
    cores = scratch / "cores"
    cores.mkdir()
    with guest(panicking(scratch, f'core = "{cores}"\n{debug}')) as process:
        panic(process)
        _, errors = process.communicate(timeout=LIMIT)
        equal(process.returncode, 3, f"exit status; {errors.decode('utf-8', 'replace')[-1500:]}")
        contains(errors, "core file", "what a panic says")
    files = list(cores.iterdir())
    equal(len(files), 1, "core files")
    return files[0]


@test
def a_panic_leaves_a_core(scratch):
    need_gdb()
    core = core_of(scratch)
    equal(core.stat().st_mode & 0o777, 0o600, "mode of the core file")
    text = gdb("bt", "info threads", "thread apply all bt", "monitor ps", "monitor mounts", "monitor locks",
               "cb-ps", "cb-dmesg 3", target="", words=("--core", str(core)))
    for part in ("guest kernel panic: sysrq", '"sleep/', "sleeping in", "cowbird::vpanic", "proc on /proc type proc",
                 "nanosleep"):
        contains(text, part, "gdb on a core")
    check("Python Exception" not in text, text)


@test
def a_cut_core_is_still_looked_at(scratch):
    need_gdb()
    core = core_of(scratch)
    size = core.stat().st_size
    for part in (100, 5000, size // 3, size - size // 4):
        cut = scratch / "cut"
        cut.write_bytes(core.read_bytes()[:part])
        text = gdb("info threads", "monitor ps", target="", words=("--core", str(cut)))
        check("Traceback" not in text and "internal" not in text, text[-2000:])
    result = cowbird("gdbserver", "--core", __file__, "--stdio")
    equal(result.returncode, 1, "exit status for a file that is no core")
    contains(result.stderr, "is no ELF file", "the message")
    result = cowbird("gdb", "--core", __file__)
    check(result.returncode != 0, "exit status of `cowbird gdb` for a file that is no core")
    contains(result.stderr, "is no ELF file", "the message")


@test
def a_panic_can_keep_the_guest(scratch):
    with guest(panicking(scratch, 'on_panic = "wait"')) as process:
        panic(process)
        text = b""
        while b"cowbird gdb seen" not in text:
            piece = os.read(process.stderr.fileno(), 4096)
            check(piece, f"the guest ended: {text!r}")
            text += piece
        shown = gdb("monitor ps", "thread apply all bt")
        contains(shown, "running on vcpu 0", "monitor ps")
        contains(shown, "stand_still_after_panic", "the stacks")
        check(alive(process.pid), "the guest stands still")
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT)


@test
def a_core_of_a_guest_that_goes_on(scratch):
    with guest(machine(scratch)) as process:
        core = scratch / "live.core"
        result = cowbird("gdbserver", "seen", "--write-core", core)
        equal(result.returncode, 0, result.stderr.decode())
        check(alive(process.pid), "the guest goes on")
        check(core.stat().st_size > 0, "the core file")
        contains(gdb("monitor ps", target="", words=("--core", str(core))), "sleep", "its processes")


if __name__ == "__main__":
    main()
