#!/usr/bin/env python3
"""The management console, the run-time directory, notifications and the watchdog, with UML's own client
(uml_mconsole) and ours."""
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import COWBIRD, LIMIT, Skip, alive, check, contains, cowbird, descriptors, equal, main, output_of, test
from managed_guest import Guest, wait_until

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from terminal import Terminal  # noqa: E402

MAGIC = 0xCAFEBABE


def raw_socket():
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    client.bind("")
    client.settimeout(LIMIT)
    return client


def listener(scratch):
    path = scratch / "notify"
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    server.settimeout(LIMIT)
    return server, path


def notification(server):
    data = server.recv(4096)
    magic, version, kind, length = struct.unpack("=IIII", data[:16])
    equal((magic, version, length), (MAGIC, 2, len(data) - 16), "header of the notification")
    return kind, data[16:].decode()


# --- the directory

@test
def directory_is_private_and_goes_with_the_guest(scratch):
    with Guest(scratch) as guest:
        equal(guest.directory.stat().st_mode & 0o7777, 0o700, "mode of the directory")
        equal((guest.directory / "pid").stat().st_mode & 0o7777, 0o644, "mode of the pid file")
        equal((guest.directory / "mconsole").stat().st_mode & 0o7777, 0o600, "mode of the socket")
        equal((guest.directory / "pid").read_text(), f"{guest.process.pid}\n", "pid file")
        contains(guest.text(), f"mconsole (version 2) initialized on {guest.directory}/mconsole")
        second = cowbird("boot", guest.file)
        equal(second.returncode, 1, "exit status of the second guest")
        contains(second.stderr, f'A guest named "demo" is running already: process {guest.process.pid}')
        equal(guest.ask("halt"), "OK\n")
        guest.ended(0)


@test
def directory_of_a_dead_guest_is_used_again(scratch):
    with Guest(scratch) as guest:
        guest.process.kill()
        guest.process.wait()
        check((guest.directory / "mconsole").exists(), "SIGKILL leaves the directory")
        gone = cowbird("mconsole", "demo", "version")
        equal(gone.returncode, 1)
        contains(gone.stderr, 'There is no running guest "demo"')
    with Guest(scratch) as guest:
        contains(guest.ask("version"), "OK Linux demo 6.12.0-cowbird")


@test
def deadly_signals_take_the_directory_along(scratch):
    # All that end a program (signal(7)), but for the faults.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGUSR1,
                   signal.SIGUSR2, signal.SIGIO, signal.SIGPWR, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF,
                   signal.SIGSTKFLT, signal.SIGRTMIN, signal.SIGRTMAX):
        with Guest(scratch) as guest:
            os.kill(guest.pid(), number)
            guest.ended(-number)


@test
def the_kernels_own_signals_from_somebody_else(scratch):
    def panicked():
        return Guest(scratch, "echo c > /proc/sysrq-trigger", machine='[debug]\non_panic = "wait"\n',
                     expect="and end it with")
    # A panic limits itself with SIGALRM.
    with panicked() as guest:
        os.kill(guest.process.pid, signal.SIGALRM)
        guest.ended(-signal.SIGALRM)
    # The management console looks at the threads of a kernel that is stuck with SIGUSR2.
    with panicked() as guest:
        contains(guest.ask("sysrq", "p"), "The guest kernel is stuck")
        os.kill(guest.process.pid, signal.SIGUSR2)
        guest.ended(-signal.SIGUSR2)
    # Faults are panics, also one that nobody expects.
    with Guest(scratch) as guest:
        os.kill(guest.pid(), signal.SIGSYS)
        guest.ended(3)
        contains(guest.text(), f"signal {int(signal.SIGSYS)} was sent by host process {os.getpid()}")


@test
def a_panic_takes_the_directory_along(scratch):
    with Guest(scratch, "echo c > /proc/sysrq-trigger", expect=None) as guest:
        guest.ended(3)


@test
def a_wrong_start_leaves_nothing(scratch):
    (scratch / "x.toml").write_text('[machine]\nname = "broken"\ninit = "/nothing"\nargs = ["x"]\n[root]\nsource = "."\n')
    result = cowbird("boot", scratch / "x.toml")
    equal(result.returncode, 1)
    check(not (Path(os.environ["COWBIRD_DIR"]) / "broken").exists(), "the directory is left")


@test
def directory_key_and_random_names(scratch):
    with Guest(scratch, config=f'directory = "{scratch}/run"', name="elsewhere", expect="up") as guest:
        check(not guest.directory.exists(), "the directory is at the default place")
        check((scratch / "run/elsewhere/mconsole").exists(), "the directory is not where it should be")
        result = cowbird("mconsole", "--dir", scratch / "run", "elsewhere", "version")
        equal(result.returncode, 0)
        result = cowbird("mconsole", scratch / "run/elsewhere/mconsole", "version")
        equal(result.returncode, 0)
        result = cowbird("mconsole", "--dir", scratch / "run", guest.process.pid, "version")
        equal(result.returncode, 0)
    name = output_of("hostname", environment={"COWBIRD_DIR": str(scratch / "random")}).strip()
    check(name.startswith("cowbird-"), name)
    equal(list((scratch / "random").iterdir()), [], "what is left of a throw-away guest")


@test
def a_place_that_cannot_be_written(scratch):
    result = cowbird("run", "--", "/bin/true", environment={"COWBIRD_DIR": "/proc/nowhere"})
    equal(result.returncode, 0, "a throw-away guest does without")
    (scratch / "m.toml").write_text("")
    result = cowbird("boot", scratch / "m.toml", environment={"COWBIRD_DIR": "/proc/nowhere"})
    equal(result.returncode, 1)
    contains(result.stderr, "Set COWBIRD_DIR or [machine] directory to one that can be written")


# --- the protocol

@test
def wrong_packets(scratch):
    with Guest(scratch) as guest, raw_socket() as client:
        def ask(data):
            client.sendto(data, str(guest.directory / "mconsole"))
            return client.recv(4096)

        def request(text, magic=MAGIC, version=2, length=None):
            return struct.pack("=III", magic, version, len(text) if length is None else length) + text.ljust(512, b"\0")

        def error(text):
            return struct.pack("=III", 1, 0, len(text) + 1) + text + b"\0"

        equal(ask(request(b"log x")), struct.pack("=III", 0, 0, 1) + b"\0")
        equal(ask(request(b"nothing")), error(b"Unknown command"))
        equal(ask(request(b"x" * 512, length=512)), error(b"Request too large"))
        equal(ask(request(b"version", version=1)), error(b"This driver only supports version 2 clients"))
        old = b"ERR Version 0 mconsole clients are not supported by this driver"
        equal(ask(b"version"), old)
        equal(ask(request(b"version", magic=1)), old)
        contains(guest.ask("version"), "OK Linux demo")


@test
def another_user_is_refused(scratch):
    if os.geteuid() != 0:
        raise Skip("needs root to become another user")
    with Guest(scratch) as guest:
        program = ("import os,socket,struct,sys\nos.setgroups([]);os.setgid(65534);os.setuid(65534)\n"
                   "s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.bind('');s.settimeout(20)\n"
                   "d=struct.pack('=III',0xcafebabe,2,7)+b'version'\n"
                   "try:\n s.sendto(d,sys.argv[1]);print(s.recv(600)[12:])\nexcept OSError as e:print(e)\n")

        def foreign():
            return subprocess.run([sys.executable, "-c", program, str(guest.directory / "mconsole")],
                                  capture_output=True, timeout=LIMIT, check=True).stdout.decode()

        contains(foreign(), "Permission denied")
        # Even where somebody has opened the way, the sender is looked at.
        for opened in (guest.uml, guest.directory):
            opened.chmod(0o755)
        (guest.directory / "mconsole").chmod(0o666)
        equal(foreign(), "b'Permission denied\\x00'\n")
        # So at the sockets of the consoles and of debuggers.
        stream = ("import os,socket,sys\nos.setgroups([]);os.setgid(65534);os.setuid(65534)\n"
                  "s=socket.socket(socket.AF_UNIX);s.settimeout(20)\n"
                  "try:\n s.connect(sys.argv[1]);print(s.recv(600))\nexcept OSError as e:print(e)\n")
        for name in ("console", "debug"):
            equal((guest.directory / name).stat().st_mode & 0o7777, 0o600, f"mode of {name}")
            for mode, said in ((0o600, "[Errno 13] Permission denied\n"), (0o666, "b''\n")):
                (guest.directory / name).chmod(mode)
                result = subprocess.run([sys.executable, "-c", stream, str(guest.directory / name)], capture_output=True,
                                        timeout=LIMIT, check=True).stdout.decode()
                equal(result, said, f"{name} with mode {mode:o}")
        guest.uml.chmod(0o700)


# --- the commands, by UML's client

@test
def every_command_from_umls_client(scratch):
    with Guest(scratch) as guest:
        status, text = guest.uml_mconsole("version")
        equal((status, text.split()[:4]), (0, ["OK", "Linux", "demo", "6.12.0-cowbird"]))
        status, text = guest.uml_mconsole("help")
        equal(status, 0)
        contains(text, "OK Commands:")
        for word in "version halt reboot config remove sysrq help cad stop go log proc stack".split():
            contains(text, f"    {word}")
        equal(guest.uml_mconsole("log", "hello", "from", "outside")[0], 0)
        log = guest.uml_mconsole("proc", "kmsg")[1]
        contains(log, "hello from outside")
        # That client sends a second line, which has no text.
        equal([line for line in log.splitlines() if line.endswith("] ")], [], "lines of the log without text")
        status, text = guest.uml_mconsole("proc", "meminfo")
        equal(status, 0)
        contains(text, "MemTotal:")
        contains(guest.uml_mconsole("proc", "cpuinfo")[1], "host\t\t: " + " ".join(os.uname()) + "\n")
        status, text = guest.uml_mconsole("proc", "nothing")
        check(status != 0, "proc of nothing succeeds")
        contains(text, "ERR Failed to open file: No such file or directory")
        contains(guest.uml_mconsole("proc", "self")[1], "ERR Failed to open file: Is a directory")
        contains(guest.uml_mconsole("proc", "../init")[1], "ERR Failed to open file")
        status, text = guest.uml_mconsole("stack", "1")
        equal(status, 0)
        contains(text, "RIP: ")
        contains(text, "cowbird::")
        contains(guest.uml_mconsole("stack", "999")[1], "ERR Couldn't find")
        contains(guest.uml_mconsole("stack", "x")[1], "ERR Please specify a pid")
        contains(guest.uml_mconsole("go")[1], "ERR Not stopped")
        equal(guest.uml_mconsole("stop")[0], 0)
        contains(guest.uml_mconsole("stop")[1], "ERR Already stopped")
        contains(guest.uml_mconsole("version")[1], "OK Linux demo")
        contains(guest.uml_mconsole("proc", "uptime")[1], "OK")
        equal(guest.uml_mconsole("go")[0], 0)
        contains(guest.uml_mconsole("nonsense")[1], "ERR Unknown command")
        contains(guest.uml_mconsole("config", "nothing0=x")[1], "ERR")
        contains(guest.uml_mconsole("remove", "nothing0")[1], "ERR")
        contains(guest.uml_mconsole("config", "con=fd:77")[1], "ERR con* (fd): The host file descriptor 77")
        contains(guest.uml_mconsole("halt")[1], "OK")
        guest.ended(0)
        contains(guest.text(), "System halted")


@test
def ctrl_alt_del_is_what_init_wants(scratch):
    # Without a word of init the machine restarts; with CAD_OFF init gets SIGINT.
    script = ("trap 'echo init heard it' INT; echo 0 > /proc/sys/kernel/ctrl-alt-del; echo ready; "
              "while :; do sleep 100 & wait; done")
    with Guest(scratch, script, expect="ready") as guest:
        equal(guest.ask("cad"), "OK\n")
        wait_until(lambda: "init heard it" in guest.text(), "SIGINT")
        equal(guest.ask("halt"), "OK\n")
        guest.ended(0)


@test
def reboot_starts_the_guest_again(scratch):
    for command in (["reboot"], ["sysrq", "b"]):
        with Guest(scratch) as guest:
            before = guest.text().count("up\n")
            guest.ask(*command)
            wait_until(lambda: guest.text().replace("\r", "").count("up\n") > before, "the second start")
            wait_until(lambda: (guest.directory / "mconsole").exists(), "the second management console")
            equal(guest.pid(), guest.process.pid, "the process stays the same")
            contains(guest.ask("version"), "OK Linux demo")


@test
def system_requests(scratch):
    script = ("sleep 1001 & sleep 1002 & trap '' TERM; echo ready; wait; echo all gone; "
              "while :; do sleep 1; done")
    with Guest(scratch, script, expect="ready") as guest:
        for key, words in (("m", "KiB total"), ("t", "sleep"), ("p", "Show Regs"), ("n", "Nice All RT Tasks"),
                           ("s", "Emergency Sync complete"), ("u", "Emergency Remount complete, 1 mounts"),
                           ("7", "Changing log level to 7"), ("h", "HELP")):
            text = guest.ask("sysrq", key)
            contains(text, "OK sysrq: ")
            contains(text, words)
            contains(guest.ask("proc", "kmsg"), words)
        contains(guest.ask("sysrq", "t"), "cowbird::")
        equal(guest.ask("sysrq", "", status=1), "ERR sysrq takes one letter or digit; 'sysrq h' lists them\n")
        guest.ask("sysrq", "e")
        wait_until(lambda: "all gone" in guest.text(), "the end of the sleeps")
        guest.ask("sysrq", "i")
        guest.ask("sysrq", "f")
        contains(guest.ask("version"), "OK Linux demo")


@test
def a_crash_is_answered_before_it_comes(scratch):
    with Guest(scratch) as guest:
        equal(guest.uml_mconsole("sysrq", "c"), (0, "OK sysrq: Trigger a crash\n\n"))
        guest.ended(3)


@test
def system_requests_can_be_disabled(scratch):
    with Guest(scratch, "echo 16 > /proc/sys/kernel/sysrq; echo ready; sleep 1000", expect="ready") as guest:
        contains(guest.ask("sysrq", "m", status=1), "ERR This sysrq operation is disabled")
        contains(guest.ask("sysrq", "s"), "Emergency Sync complete")


@test
def proc_files_of_any_size(scratch):
    # A list of mounts of many packets.
    script = ("i=0; mkdir -p /tmp/m; while [ $i -lt 500 ]; do mkdir /tmp/m/a-rather-long-name-for-a-directory-$i; "
              "mount -t tmpfs none /tmp/m/a-rather-long-name-for-a-directory-$i; i=$((i+1)); done; echo ready; sleep 1000")
    with Guest(scratch, script, expect="ready") as guest:
        text = guest.ask("proc", "mounts")
        check(len(text) > 30_000, f"only {len(text)} bytes")
        theirs = guest.uml_mconsole("proc", "mounts")[1]
        for number in range(500):
            contains(text, f"name-for-a-directory-{number} ")
            contains(theirs, f"name-for-a-directory-{number} ")


@test
def proc_reads_regular_files_only(scratch):
    # The links of a process lead to what only a task of the guest can read.
    script = ("mount -t devtmpfs dev /dev; mkfifo /tmp/fifo; exec 3<>/tmp/fifo 4</dev/zero 5</dev/tty0; "
              "echo ready; sleep 1000")
    with Guest(scratch, script, expect="ready") as guest:
        for name in ("self/fd/0", "1/fd/1", "1/fd/3", "1/fd/4", "1/fd/5", "1/root/dev/tty0", "1/root/dev/ptmx"):
            equal(guest.ask("proc", name, status=1), "ERR Failed to open file: It is no regular file\n", name)
        for name in ("", "/", "1", "1/cwd", "1/root/dev"):
            check(guest.ask("proc", name, status=1).startswith("ERR "), name)
        contains(guest.ask("proc", "1/root/init"), "#!/bin/busybox sh")
        contains(guest.ask("proc", "self/status"), "Name:")


@test
def a_thousand_reads(scratch):
    with Guest(scratch) as guest, raw_socket() as client:
        data = struct.pack("=III", MAGIC, 2, 11) + b"proc uptime".ljust(512, b"\0")
        before = descriptors(guest.process.pid)
        for _ in range(1000):
            client.sendto(data, str(guest.directory / "mconsole"))
            text, more = b"", 1
            while more:
                error, more, length = struct.unpack("=III", (packet := client.recv(4096))[:12])
                equal((error, length), (0, len(packet) - 12))
                text += packet[12:-1]
            check(text.startswith(b"\n") and text.count(b".") == 2, f"uptime: {text!r}")
        equal(descriptors(guest.process.pid), before, "descriptors after")


@test
def stop_and_go(scratch):
    # The guest's clock before and after a sleep, with a longer halt in the middle of it.
    script = ("cut -d' ' -f1 /proc/uptime > /tmp/before; echo sleeping; sleep 3; "
              "echo awake $(cat /tmp/before) $(cut -d' ' -f1 /proc/uptime); sleep 1000")
    with Guest(scratch, script, expect="sleeping") as guest:
        equal(guest.ask("stop"), "OK stopped\n")
        check("awake" not in guest.text(), "the sleep was over too soon for this test")
        first = guest.ask("proc", "uptime").split()[1]
        time.sleep(10)
        check("awake" not in guest.text(), "the guest goes on while it is stopped")
        equal(guest.ask("proc", "uptime").split()[1], first, "the guest's clock")
        contains(guest.ask("sysrq", "t"), "sleep")
        contains(guest.ask("stack", "1"), "Call trace")
        equal(guest.ask("go"), "OK\n")
        wait_until(lambda: "awake" in guest.text(), "the end of the sleep")
        before, after = [float(x) for x in guest.text().split("awake")[1].split()[:2]]
        check(3.0 <= after - before < 10.0, f"the sleep took {after - before} s of the guest's time")
        guest.ask("stop")
        equal(guest.ask("halt"), "OK\n", "halt of a guest that stands still")
        guest.ended(0)


# --- notifications

@test
def notifications(scratch):
    server, path = listener(scratch)
    script = "echo -n hello > /proc/mconsole; head -c 600 /dev/zero | tr '\\0' x > /proc/mconsole; echo c > /proc/sysrq-trigger"
    with server, Guest(scratch, script, config=f'notify = "{path}"', expect=None) as guest:
        equal(notification(server), (0, str(guest.directory / "mconsole")))
        equal(notification(server), (3, "hello"))
        equal(notification(server), (3, "x" * 512))
        equal(notification(server), (1, "sysrq triggered crash"))
        guest.ended(3)


@test
def without_a_listener_there_is_no_file_and_the_guest_boots_all_the_same(scratch):
    with Guest(scratch, "ls /proc/mconsole; echo $?; echo done; sleep 1000", expect="done") as guest:
        contains(guest.text(), "No such file")
    with Guest(scratch, "echo x > /proc/mconsole; echo done; sleep 1000", config=f'notify = "{scratch}/none"',
               expect="done") as guest:
        contains(guest.text(), "nobody takes notifications")
        contains(guest.text(), "write error: No such file or directory")


# --- the watchdog

def watchdog_of(guest):
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[1:3] == [b"watchdog-process", str(guest.process.pid).encode()]:
                return int(entry.name)
    return None


@test
def watchdog_ends_a_silent_guest(scratch):
    script = "exec 3> /dev/watchdog; echo -n x >&3; echo armed; sleep 1000"
    with Guest(scratch, script, config="watchdog = 1", expect=None) as guest:
        guest.ended(-signal.SIGTERM)
        contains(guest.text(), "has not said a word to its watchdog for 1 s")


@test
def watchdog_tells_the_listener(scratch):
    server, path = listener(scratch)
    script = "exec 3> /dev/watchdog; echo armed; sleep 1000"
    with server, Guest(scratch, script, config=f'watchdog = 1\nnotify = "{path}"', expect="armed") as guest:
        equal(notification(server)[0], 0)
        kind, text = notification(server)
        equal((kind, text), (2, f"process {guest.process.pid}: no word to the watchdog for 1 s"))
        contains(guest.ask("version"), "OK Linux demo")


@test
def watchdog_is_fed_paused_and_put_away(scratch):
    script = ("exec 3> /dev/watchdog; ( : > /dev/watchdog ) 2>&1; echo armed; i=0; "
              "while [ $i -lt 40 ]; do echo -n x >&3; sleep 0.1; i=$((i+1)); done; "
              "echo -n V >&3; exec 3>&-; echo closed; sleep 1000")
    with Guest(scratch, script, config="watchdog = 5", expect="armed") as guest:
        contains(guest.text(), "busy")
        process = watchdog_of(guest)
        check(process is not None, "there is no process of the watchdog")
        guest.ask("stop")
        time.sleep(7)
        check(guest.process.poll() is None, "the watchdog bites a guest that was told to stand still")
        guest.ask("go")
        wait_until(lambda: "closed" in guest.text(), "the end of the feeding")
        wait_until(lambda: not alive(process), "the end of the watchdog")
        contains(guest.ask("version"), "OK Linux demo")


@test
def watchdog_does_not_outlive_the_guest(scratch):
    with Guest(scratch, "exec 3> /dev/watchdog; echo armed; sleep 1000", expect="armed") as guest:
        process = watchdog_of(guest)
        check(process is not None, "there is no process of the watchdog")
        guest.process.kill()
        guest.process.wait()
        wait_until(lambda: not alive(process), "the end of the watchdog")


# --- our client

@test
def client_from_a_pipe(scratch):
    with Guest(scratch) as guest, Guest(scratch, name="other"):
        (scratch / "lines").write_text("first line\n" + "y" * 1200 + "\n")
        text = guest.ask(stdin=f"version\nlog -f {scratch}/lines\nswitch other\nversion\nmconsole-version\nhelp\nquit\nversion\n"
                         .encode())
        contains(text, "OK Linux demo")
        contains(text, "Switched to other")
        contains(text, "OK Linux other")
        contains(text, "mconsole client version 2")
        contains(text, "switch <name>")
        equal(text.count("OK Linux other"), 1, "commands after quit")
        log = guest.ask("proc", "kmsg")
        contains(log, "first line")
        contains(log, "y" * 500)
        equal(guest.ask(stdin=b"nonsense\nversion\n", status=1).count("OK Linux demo"), 1)
        equal(cowbird("mconsole", "nobody", "version").returncode, 1)
        contains(cowbird("mconsole", "nobody", "version").stderr, "Running: demo, other.")


@test
def log_ring_keeps_the_newest(scratch):
    """More records than the ring has room for, from two clients at once: the oldest are lost, and nothing else."""
    room, each = 2048, 2500
    script = """
exec 3< /dev/kmsg
echo reading
until dmesg | grep -q all-sent; do sleep 0.1; done
dd bs=2048 count=1 <&3 > /tmp/first 2>&1; grep -q 'Broken pipe' /tmp/first && echo told-of-the-loss
dd bs=2048 count=1 <&3 2> /dev/null | sed 's/^/oldest: /'
echo dmesg-has-$(dmesg | grep -c 'sender-[01] [0-9]* x*-')
echo checked
sleep 1000"""
    with Guest(scratch, script, log="warning", expect="reading") as guest:
        def send(sender):
            with raw_socket() as client:
                for number in range(each):
                    # Of any length, so that a record that got another one's end is seen.
                    text = f"log sender-{sender} {number} {'x' * (number * 7 % 60)}-".encode()
                    client.sendto(struct.pack("=III", MAGIC, 2, len(text)) + text, str(guest.directory / "mconsole"))
                    equal(client.recv(4096)[:8], bytes(8), "the answer to log")
        with ThreadPoolExecutor() as senders:
            list(senders.map(send, range(2)))
        log = guest.ask("proc", "kmsg")
        check(len(log) > 100 * 1024, "the answer fits few packets")
        equal(guest.uml_mconsole("proc", "kmsg")[1].split("\n", 1)[1].strip(), log.split("\n", 1)[1].strip(), "UML's client")
        records = [re.fullmatch(r"(?:<\d+>)?\[ *\d+\.\d{6}\] sender-(\d) (\d+) (x*)-", line)
                   for line in log.splitlines()[-room:]]
        check(all(records), f"a record is broken: {[line for line in log.splitlines() if 'sender' not in line][:5]}")
        equal(len(log.splitlines()), room + ("OK" in log.splitlines()[0]), "lines of the answer")
        for sender in "01":
            numbers = [int(record[2]) for record in records if record[1] == sender]
            equal(numbers, list(range(each - len(numbers), each)), f"records of sender {sender}")
        check(all(len(record[3]) == int(record[2]) * 7 % 60 for record in records), "a record has lost text")
        guest.ask("log", "all-sent")
        wait_until(lambda: "checked" in guest.text(), "the guest's own look")
        contains(guest.text(), "told-of-the-loss")
        check(re.search(r"oldest: \d+,(\d+),\d+,-;sender-", guest.text()), f"the oldest record: {guest.text()}")
        contains(guest.text(), f"dmesg-has-{room - 1}")


@test
def client_at_a_prompt(scratch):
    with Guest(scratch) as guest:
        with Terminal([COWBIRD, "mconsole", "demo"]) as terminal:
            terminal.expect("(demo) ")
            terminal.type("vers\t\n")
            terminal.expect("OK Linux demo")
            terminal.expect("(demo) ")
            terminal.type("\x10\n")  # the line before
            terminal.expect("OK Linux demo")
            terminal.expect("(demo) ")
            # A device's name is followed by what belongs to it, without a blank.
            terminal.type("config co\t7=null\n")
            terminal.expect("OK")
            terminal.expect("(demo) ")
            terminal.type("config con7\t\n")
            terminal.expect("OK null")
            terminal.type("remove con7\t\n")
            terminal.expect("OK")
            terminal.expect("(demo) ")
            terminal.type("log -f\n")
            terminal.expect("log -f takes the name of a file.")
            terminal.type("int\n")
            guest.ended(-signal.SIGINT)
            terminal.type("version\n")
            terminal.expect("The guest is gone")
            terminal.type("quit\n")
            terminal.wait()


if __name__ == "__main__":
    main()
