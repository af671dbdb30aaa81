#!/usr/bin/env python3
"""An editor on the kernel, over gdb/MI, with the settings of examples/vscode/launch.json."""
import json
import re
import shutil
import socket
import subprocess
import time

from harness import COWBIRD, EXAMPLES, LIMIT, SOURCE, Skip, check, contains, equal, main, test
from gdb import GdbError, Mi

TICKER = "while :; do cat /proc/uptime; sleep 0.05; done"
PLACE = "core/syscall/sys_time.cpp"


def settings():
    text = (EXAMPLES / "vscode" / "launch.json").read_text()
    return json.loads(text.replace("${workspaceFolder}", str(SOURCE)))["configurations"][0]


def line_of(function):
    """The line of the source on which a function's body begins."""
    for number, line in enumerate((SOURCE / PLACE).read_text().splitlines(), 1):
        if line.startswith(f"SysResult {function}("):
            return number + 1
    raise AssertionError(f"{PLACE} has no {function}")


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def connect(gdb, given, address):
    """What an editor sends before its first stop."""
    for command in ("-gdb-set mi-async off", "-gdb-set breakpoint pending on", "-gdb-set pagination off"):
        gdb.run(command)
    for command in given["setupCommands"]:
        gdb.run(command["text"])
    gdb.run(f"-file-exec-and-symbols {COWBIRD}")
    kind = "extended-remote" if given["useExtendedRemote"] else "remote"
    for _ in range(20):
        try:
            gdb.run(f"-target-select {kind} {address}")
            break
        except GdbError as error:
            if "refused" not in str(error):
                raise
    gdb.stopped()


@test
def an_editor_attaches_breaks_steps_and_leaves(scratch):
    given = settings()
    if not shutil.which(given["miDebuggerPath"]):
        raise Skip("gdb is not installed")
    equal((given["type"], given["MIMode"]), ("cppdbg", "gdb"), "the kind of debugger")
    check(re.fullmatch(r"127\.0\.0\.1:\d+", given["miDebuggerServerAddress"]), "the address of the server")
    # The port is another one, so that tests do not meet.
    address = f"127.0.0.1:{free_port()}"
    output = scratch / "output"
    with open(output, "wb") as file:
        guest = subprocess.Popen([str(COWBIRD), "run", "--", "/bin/sh", "-c", TICKER], stdin=subprocess.DEVNULL,
                                 stdout=file, stderr=subprocess.STDOUT)
    while output.stat().st_size == 0 and guest.poll() is None:
        time.sleep(0.05)
    server = subprocess.Popen([str(COWBIRD), "gdbserver", "--pid", str(guest.pid), "--listen", f"tcp:{address}"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with Mi() as gdb:
            connect(gdb, given, address)
            # Not the whole path: compiler caches keep that of the tree where they met the file first.
            contains(gdb.mi(f"-break-insert -f {PLACE}:{line_of('sys_clock_nanosleep')}"), 'number="1"')
            gdb.run("-exec-continue")
            stop = gdb.stopped()
            contains(stop, 'reason="breakpoint-hit"')
            contains(stop, "sys_clock_nanosleep")
            contains(gdb.mi("-thread-info"), "sleep/")
            contains(gdb.mi("-stack-list-frames 0 20"), "cowbird_thread_entry")
            contains(gdb.mi("-stack-list-variables --simple-values"), 'name="args"')
            contains(gdb.mi("-var-create - * args"), 'type="const cowbird::SysArgs &"')
            gdb.run("-exec-next")
            contains(gdb.stopped(), "end-stepping-range")
            gdb.run("-break-delete 1")
            gdb.run("-target-detach")
        size = output.stat().st_size
        for _ in range(10 * LIMIT):
            if output.stat().st_size > size:
                break
            time.sleep(0.1)
        check(output.stat().st_size > size, "the guest does not go on after the editor has left")
    finally:
        for process in (server, guest):
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
