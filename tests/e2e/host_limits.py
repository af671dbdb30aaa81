#!/usr/bin/env python3
"""A host that allows no more processes and threads: what wants one in the guest is told so, and everything else goes on."""
import os
import resource
import subprocess

from harness import COWBIRD, LIMIT, Skip, check, contains, equal, main, test

# So that nobody else's processes count: RLIMIT_NPROC is for all of a user, and never for root.
USER = 61000 + os.getpid() % 4000
PYTHON = "/usr/bin/python3"

THREADS = """
import threading
stop, threads, refused = threading.Event(), [], False
while len(threads) < 500 and not refused:
    thread = threading.Thread(target=stop.wait)
    try:
        thread.start()
        threads.append(thread)
    except RuntimeError:
        refused = True
print("refused", refused, "after some", len(threads) > 3)
stop.set()
for thread in threads:
    thread.join()
for _ in range(3):
    again = threading.Thread(target=print, args=("again",))
    again.start()
    again.join()
"""

FORKS = """
import os, signal
children, error = [], None
while len(children) < 500 and error is None:
    try:
        child = os.fork()
    except OSError as refused:
        error = refused.errno
        break
    if child == 0:
        signal.pause()
    children.append(child)
print("error", os.strerror(error), "after some", len(children) > 3)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
for _ in range(100):
    child = os.fork()
    if child == 0:
        os._exit(7)
    status = os.waitpid(child, 0)[1]
print("then", os.waitstatus_to_exitcode(status))
"""


# What processes that have ended had on the host is there for threads.
THREADS_AFTER_FORKS = """
import os, signal, threading
def count_threads():
    stop, threads = threading.Event(), []
    try:
        while len(threads) < 500:
            thread = threading.Thread(target=stop.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        pass
    stop.set()
    for thread in threads:
        thread.join()
    return len(threads)
def count_in_child():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(count_threads()).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    number = int(os.read(reader, 100))
    os.close(reader)
    return number
def fork_some():
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
first = count_in_child()
fork_some()
# What has ended may need a moment to be gone on the host.
for _ in range(30):
    if (second := count_in_child()) >= first:
        break
print("as many" if second >= first else f"{first} before, {second} after")
"""


def limited(words, processes):
    """Runs a program as a user who may have so many processes and threads."""
    def become_user():
        os.setgroups([])
        os.setgid(USER)
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        os.setuid(USER)

    if os.geteuid() != 0:
        raise Skip("only root can become a user who has no other processes")
    return subprocess.run(words, capture_output=True, timeout=LIMIT, stdin=subprocess.DEVNULL, check=False, cwd="/",
                          preexec_fn=become_user)


def guest(script, processes=60):
    if limited(["test", "-x", str(COWBIRD)], 1).returncode != 0:
        raise Skip(f"another user cannot reach {COWBIRD}")
    return limited([str(COWBIRD), "run", "--root", "/", "--read-only", "--", PYTHON, "-c", script], processes)


def same_as_host(script):
    host = limited([PYTHON, "-c", script], 20)
    equal(host.returncode, 0, f"exit status on the host: {host.stderr}")
    result = guest(script)
    equal((result.stdout, result.returncode), (host.stdout, 0), f"output and status: {result.stderr}")
    equal(result.stderr, b"", "errors and warnings")
    return host.stdout


@test
def threads_that_the_host_refuses_are_refused_in_the_guest():
    contains(same_as_host(THREADS), "refused True after some True\nagain\nagain\nagain\n")


@test
def threads_get_the_room_of_processes_that_have_ended():
    contains(same_as_host(THREADS_AFTER_FORKS), "as many\n")


@test
def processes_that_the_host_refuses_are_refused_in_the_guest():
    contains(same_as_host(FORKS), "error Resource temporarily unavailable after some True\nthen 7\n")


@test
def a_host_that_allows_too_few_threads_for_a_start_says_so():
    if limited(["test", "-x", str(COWBIRD)], 1).returncode != 0:
        raise Skip(f"another user cannot reach {COWBIRD}")
    for processes in range(1, 40):
        result = limited([str(COWBIRD), "run", "--", "/bin/busybox", "echo", "hi"], processes)
        if result.returncode == 0:
            equal(result.stdout, b"hi\n", f"output with {processes}")
            return
        equal((result.returncode, result.stdout), (1, b""), f"exit status and output with {processes}: {result.stderr}")
        text = result.stderr.decode()
        check(text.startswith("cowbird: error: ") and ("Resource temporarily unavailable" in text or "refused it a thread" in text),
              f"the error with {processes} is {text!r}")
    raise AssertionError("no start with 39 threads and processes")


if __name__ == "__main__":
    main()
