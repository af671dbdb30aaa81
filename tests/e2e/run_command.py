#!/usr/bin/env python3
"""`cowbird run`: exit status, signals, standard streams, environment, mounts and roots."""
import hashlib
import os
import random
import signal
import subprocess
from pathlib import Path

from harness import (COWBIRD, LIMIT, Skip, Terminal, alive, busybox_root, check, contains, cowbird, equal, main,
                     output_of, processes_of, prompt_of, run, shell, test)


@test
def echo_is_printed():
    result = run("/bin/busybox", "echo", "hi")
    equal((result.returncode, result.stdout, result.stderr), (0, b"hi\n", b""))


@test
def exit_status_comes_through():
    for status in (0, 1, 42, 127, 255):
        equal(shell(f"exit {status}").returncode, status, "exit status")


@test
def deadly_signal_is_128_plus_its_number():
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1):
        equal(shell(f"kill -{int(number)} $$").returncode, 128 + number, f"status after signal {number}")


@test
def missing_program_is_127_and_said():
    result = run("/no/such/program")
    equal(result.returncode, 127, "exit status")
    contains(result.stderr, "/no/such/program", "standard error")


@test
def output_and_errors_stay_apart():
    result = shell("echo out; echo err >&2; echo out2; echo err2 >&2")
    equal(result.stdout, b"out\nout2\n", "standard output")
    equal(result.stderr, b"err\nerr2\n", "standard error")


@test
def binary_input_comes_unchanged():
    data = random.Random(1).randbytes(10 << 20)
    result = run("/bin/busybox", "cat", stdin=data, timeout=120)
    equal(result.returncode, 0, "exit status")
    equal(hashlib.sha256(result.stdout).hexdigest(), hashlib.sha256(data).hexdigest(), "sum of 10 MiB")


@test
def input_ends():
    equal(run("/bin/busybox", "wc", "-c", stdin=b"x" * 12345).stdout.strip(), b"12345")
    equal(run("/bin/busybox", "wc", "-c", stdin=b"").stdout.strip(), b"0")


@test
def big_output_comes_whole():
    result = shell("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done", timeout=120)
    equal(result.stdout, b"".join(b"line %d\n" % i for i in range(20000)), "20000 lines")


@test
def closed_reader_ends_the_guest():
    process = subprocess.Popen([COWBIRD, "run", "--", "/bin/busybox", "yes"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    process.stdout.read(1000)
    process.stdout.close()
    try:
        equal(process.wait(20), 128 + signal.SIGPIPE, "exit status")
    finally:
        process.kill()
        process.wait()


@test
def arguments_come_unchanged():
    words = ["one", "", "two words", "*", "$HOME", "--root", "-x", "é"]
    result = run("/bin/busybox", "sh", "-c", 'for i in "$@"; do echo "[$i]"; done', "name", *words)
    equal(result.stdout.decode(), "".join(f"[{word}]\n" for word in words))


@test
def environment_variables_are_set():
    equal(output_of("echo $COLOUR", ["--env", "COLOUR=blue"]), "blue\n")
    equal(output_of("echo $COLOUR", ["--env", "COLOUR"], environment={"COLOUR": "green"}), "green\n")


@test
def working_directory_is_set():
    equal(output_of("pwd", ["--workdir", "/tmp"]), "/tmp\n")


@test
def a_pipe_is_no_terminal():
    equal(output_of("test -t 0 || echo in; test -t 1 || echo out; test -t 2 || echo err"), "in\nout\nerr\n")


@test
def a_terminal_is_a_terminal():
    with Terminal([COWBIRD, "run", "--", "/bin/busybox", "sh", "-c",
                   "test -t 0 && test -t 1 && test -t 2 && echo all; stty size"], rows=31, columns=97) as terminal:
        terminal.expect("all")
        terminal.expect("31 97")
        equal(terminal.wait(), 0, "exit status")


@test
def mount_can_be_read_and_written(scratch):
    (scratch / "in").write_text("from the host\n")
    equal(output_of("cat /m/in; echo from the guest > /m/out; mkdir /m/dir; mv /m/in /m/dir/moved",
                    ["--mount", f"{scratch}:/m"]), "from the host\n")
    equal((scratch / "out").read_text(), "from the guest\n")
    equal((scratch / "dir" / "moved").read_text(), "from the host\n")


@test
def what_is_written_through_mappings_reaches_the_host(scratch):
    if not Path("/usr/bin/python3").exists():
        raise Skip("there is no /usr/bin/python3")
    (scratch / "file").write_text("old contents\n")
    program = ("import mmap; file = open('/mnt/file', 'r+b'); memory = mmap.mmap(file.fileno(), 0); file.close();"
               " memory[:3] = b'new'")
    result = run("/usr/bin/python3", "-I", "-c", program,
                 options=["--root", "/", "--read-only", "--mount", f"{scratch}:/mnt"])
    equal(result.returncode, 0, result.stderr.decode()[-500:])
    equal((scratch / "file").read_text(), "new contents\n")


@test
def changes_on_the_host_show_in_the_guest(scratch):
    with Terminal([COWBIRD, "run", "--mount", f"{scratch}:/m", "--", "/bin/busybox", "sh"]) as terminal:
        prompt_of(terminal)
        terminal.type("cat /m/later || echo is''miss''ing\n")
        terminal.expect("ismissing")
        (scratch / "later").write_text("now-it-is-here\n")
        terminal.type("cat /m/later\n")
        terminal.expect("now-it-is-here")


@test
def read_only_mount_refuses(scratch):
    (scratch / "file").write_text("kept")
    result = shell("cat /m/file; for c in 'echo x > /m/new' 'echo x > /m/file' 'rm /m/file' 'mkdir /m/d'"
                   " 'mv /m/file /m/g' 'chmod 777 /m/file' 'ln -s x /m/l' 'touch /m/file';"
                   " do sh -c \"$c\" 2>/dev/null && echo \"$c worked\"; done; true",
                   ["--mount", f"{scratch}:/m:ro"])
    equal(result.stdout.decode(), "kept")
    equal(sorted(os.listdir(scratch)), ["file"])
    equal((scratch / "file").read_text(), "kept")


@test
def mount_of_something_missing_is_an_error(scratch):
    result = run("/bin/busybox", "true", options=["--mount", f"{scratch}/missing:/m"])
    equal(result.returncode, 1, "exit status")
    contains(result.stderr, f"{scratch}/missing")


@test
def malformed_mount_is_wrong_usage():
    for words in ("/tmp", "/tmp:relative", "/tmp:/m:rx", ":/m", "/tmp:"):
        result = run("/bin/busybox", "true", options=["--mount", words])
        check(result.returncode in (1, 2), f"--mount {words} gave {result.returncode}")
        check(result.stderr.strip(), f"--mount {words} said nothing")


@test
def busybox_tree_as_root(scratch):
    busybox_root(scratch)
    (scratch / "etc" / "motd").write_text("a root of its own\n")
    options = ["--root", scratch]
    equal(output_of("cat /etc/motd; echo new > /etc/new; busybox ls /proc/self/fd > /dev/null && echo proc", options),
          "a root of its own\nproc\n")
    equal((scratch / "etc" / "new").read_text(), "new\n")


@test
def read_only_root(scratch):
    busybox_root(scratch)
    result = shell("echo x > /etc/file || echo refused", ["--root", scratch, "--read-only"])
    contains(result.stdout, "refused")
    check(not (scratch / "etc" / "file").exists(), "the file was made")


@test
def host_root_runs_dynamic_programs():
    options = ["--root", "/", "--read-only"]
    contains(run("/bin/ls", "/", options=options).stdout, "usr")
    equal(run("/bin/bash", "-c", "echo $((6 * 7)); for i in a b; do echo $i; done | sort -r", options=options).stdout,
          b"42\nb\na\n")


@test
def host_root_runs_python():
    if not Path("/usr/bin/python3").exists():
        raise Skip("there is no /usr/bin/python3")
    program = ("import os, subprocess, threading; print(sum(range(1000))); "
               "print(subprocess.run(['/bin/echo', 'child'], capture_output=True, text=True).stdout.strip()); "
               "t = threading.Thread(target=lambda: print('thread')); t.start(); t.join()")
    result = run("/usr/bin/python3", "-I", "-c", program, options=["--root", "/", "--read-only"])
    equal((result.stdout, result.returncode), (b"499500\nchild\nthread\n", 0), result.stderr.decode()[-500:])


@test
def missing_root_is_an_error(scratch):
    result = run("/bin/sh", options=["--root", scratch / "missing"])
    equal(result.returncode, 1, "exit status")
    contains(result.stderr, "missing")


@test
def memory_option_counts():
    kib = int(output_of("grep MemTotal /proc/meminfo", ["--memory", "64M"]).split()[1])
    check(40_000 < kib <= 65_536, f"MemTotal is {kib} KiB in a guest of 64M")


@test
def vcpus_option_counts():
    equal(output_of("grep -c ^processor /proc/cpuinfo", ["--vcpus", "2"]), "2\n")


@test
def wrong_usage_is_2():
    for words in (["run"], ["run", "--no-such-option", "--", "x"], ["no-such-command"], ["boot"]):
        result = cowbird(*words)
        equal(result.returncode, 2, f"status of {words}")
        check(result.stderr.strip(), f"{words} said nothing")


@test
def two_guests_at_once(scratch):
    first = subprocess.Popen([COWBIRD, "run", "--mount", f"{scratch}:/m", "--", "/bin/busybox", "sh", "-c",
                              "echo one > /tmp/x; touch /m/ready; while [ ! -e /m/go ]; do sleep 0.05; done; cat /tmp/x"],
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        equal(output_of("while [ ! -e /m/ready ]; do sleep 0.05; done; echo two > /tmp/x; touch /m/go; cat /tmp/x",
                        ["--mount", f"{scratch}:/m"]), "two\n")
        equal(first.communicate(timeout=30)[0], b"one\n")
    finally:
        first.kill()
        first.wait()


@test
def kill_9_leaves_no_process_behind():
    guest = subprocess.Popen([COWBIRD, "run", "--", "/bin/busybox", "sh", "-c",
                              "sleep 1000 & sleep 1000 & echo up; wait"],
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    guest.stdout.readline()
    all_of_it = processes_of(guest.pid)
    guest.kill()
    guest.wait()
    left = all_of_it
    for _ in range(100):
        left = {process for process in left if alive(process)}
        if not left:
            return
        subprocess.run(["sleep", "0.05"], check=False)
    raise AssertionError(f"processes are left: {left}")


@test
def terminating_signal_ends_the_guest():
    guest = subprocess.Popen([COWBIRD, "run", "--", "/bin/busybox", "sh", "-c", "echo up; sleep 1000"],
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    guest.stdout.readline()
    guest.send_signal(signal.SIGTERM)
    try:
        check(guest.wait(20) != 0, "it ended with 0")
    finally:
        guest.kill()
        guest.wait()


@test
def unprivileged_users_can_run():
    if os.geteuid() != 0:
        raise Skip("is not run by root, so that every other test shows it")
    if not os.access("/usr/bin/setpriv", os.X_OK):
        raise Skip("there is no setpriv")
    probe = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "test", "-x", str(COWBIRD)],
                           check=False)
    if probe.returncode != 0:
        raise Skip(f"another user cannot reach {COWBIRD}")
    result = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
                             str(COWBIRD), "run", "--", "/bin/busybox", "id", "-u"],
                            capture_output=True, timeout=60, stdin=subprocess.DEVNULL, check=False, cwd="/")
    equal((result.stdout, result.returncode), (b"0\n", 0), result.stderr.decode()[-500:])


@test
def a_limit_on_the_size_of_files_is_an_error_with_words():
    result = subprocess.run(["sh", "-c", 'ulimit -f 100; exec "$0" run -- /bin/true', COWBIRD], capture_output=True,
                            timeout=LIMIT, check=False)
    equal(result.returncode, 1, f"exit status: {result.stderr}")
    contains(result.stderr, "memory of 128 MiB cannot be had from the host: sizing the memory file: File too large.")


if __name__ == "__main__":
    main()
