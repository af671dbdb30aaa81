#!/usr/bin/env python3
"""What UML's documents say of consoles and serial lines: settings for all and for one, lazy opening, changes at run
time, shared ports, separate directions, windows, a console server, breaks and hang-ups."""
import os
import re
import signal
import socket
import subprocess
import sys
import time

from console_guest import (LIMIT, Guest, UmlGuest, connects, free_port, need, port_console, talk, telnet,
                           telnet_when_open, until_seen, window_named, x, x_server)
from harness import COWBIRD, check, contains, cowbird, equal, main, test
from managed_guest import wait_until


def read_until(fd, wanted):
    got = b""
    while wanted not in got:
        part = os.read(fd, 1000)
        check(part, f"the end came before {wanted!r}, after {got!r}")
        got += part
    return got


@test
def the_setting_of_one_goes_before_that_of_all():
    port = free_port()
    with UmlGuest("settings", f"con0=fd:0,fd:1 con=pts con1=none con2=null,pts con3=port:{port} ssl=null ssl2=none") as guest:
        for device, setting in (("con0", "fd:0,fd:1"), ("con1", "none"), ("con2", "null,pts"), ("con3", f"port:{port}"),
                                ("con9", "pts"), ("con200", "pts"), ("ssl0", "null"), ("ssl2", "none")):
            equal(guest.ask("config", device), f"OK {setting}\n", device)
        equal(guest.run("cat /dev/tty1; cat /dev/ttyS2").count("No such device"), 2, "lines that are not there")
        contains(guest.run("echo x > /dev/ttyS0 && echo status=$?"), "status=0")


@test
def a_line_is_there_when_the_guest_opens_it():
    port = free_port()
    with UmlGuest("lazy", f"con0=fd:0,fd:1 con=pts con1=port:{port}") as guest:
        equal(guest.ask("config", "con5"), "OK pts\n")
        check(not connects(port), "the port answers before the guest has opened the console")
        guest.run("exec 5<>/dev/tty5 6<>/dev/tty1")
        terminal = re.fullmatch(r"OK pts:(/dev/pts/\d+)\n", guest.ask("config", "con5")).group(1)
        check(connects(port), "the port does not answer while the guest has the console open")
        fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        guest.run("stty -echo <&5; echo from the guest >&5")
        read_until(fd, b"from the guest\r\n")
        os.write(fd, b"from the host\n")
        contains(guest.run("head -n 1 <&5"), "from the host")
        guest.run("exec 5>&- 6>&-")
        equal(guest.ask("config", "con5"), "OK pts\n")
        check(not connects(port), "the port answers when the guest has closed the console")
        os.close(fd)


@test
def lines_are_changed_while_nobody_has_them_open():
    port = free_port()
    with UmlGuest("change", "con0=fd:0,fd:1 con=pts ssl=null") as guest:
        equal(guest.ask("config", f"con3=port:{port}"), "OK\n")
        equal(guest.ask("config", "con3"), f"OK port:{port}\n")
        guest.run("exec 5<>/dev/tty3")
        with socket.create_connection(("127.0.0.1", port)):  # whose end would be a hang-up
            for words in (("config", "con3=pts"), ("remove", "con3")):
                contains(guest.ask(*words, status=1), "ERR Device is currently open")
            equal(guest.ask("config", "con3"), f"OK port:{port}\n")
        guest.run("exec 5>&-")
        equal(guest.ask("remove", "con3"), "OK\n")
        contains(guest.run("cat /dev/tty3 || ls /dev/tty3"), "No such")
        equal(guest.ask("config", "con3=null"), "OK\n")
        contains(guest.run("echo x > /dev/tty3 && echo status=$?"), "status=0")


@test
def consoles_and_serial_lines_share_a_port():
    port = free_port()
    with UmlGuest("shared", f"con0=fd:0,fd:1 con=port:{port} ssl=port:{port}") as guest:
        for line in ("tty1", "tty2", "ttyS0"):
            guest.shell_on(line)
        clients = [telnet(port) for _ in range(3)]
        try:
            seen = set()
            for client in clients:
                client.type("\r")
                client.expect("# ")
                seen.add(talk(client, "echo on=$(tty).\r", r"on=(/dev/\w+)\.", literal=False).group(1))
            equal(seen, {"/dev/tty1", "/dev/tty2", "/dev/ttyS0"}, "terminals")
        finally:
            for client in clients:
                client.close()


@test
def loopback_alone_and_ipv6():
    port = free_port()
    with UmlGuest("loopback", f"con0=fd:0,fd:1 con1=port:{port}") as guest:
        guest.shell_on("tty1")
        addresses = set()
        for table in ("tcp", "tcp6"):
            try:
                with open(f"/proc/net/{table}", encoding="ascii") as lines:
                    for words in (line.split() for line in lines):
                        if words[1].endswith(f":{port:04X}") and words[3] == "0A":
                            addresses.add(words[1].partition(":")[0])
            except FileNotFoundError:
                pass  # no IPv6 here
        check(addresses <= {"0100007F", "00000000000000000000000001000000"}, f"it listens on {addresses}")
        check("0100007F" in addresses, "it does not listen on 127.0.0.1")
        for address in ("127.0.0.1", "::1")[:len(addresses)]:
            with telnet_when_open(port, address) as client:
                client.type("\r")
                client.expect("# ")
                talk(client, "echo $((40 + 2))x\r", "42x")


@test
def separate_directions():
    from_us, to_guest = os.pipe()
    from_guest, to_us = os.pipe()
    for fd in (from_us, to_us):
        os.set_inheritable(fd, True)
    with UmlGuest("directions", f"con0=fd:0,fd:1 con1=fd:{from_us},fd:{to_us} ssl2=pts,pts") as guest:
        guest.run("exec 5<>/dev/tty1; stty -echo <&5")
        os.write(to_guest, b"question\n")
        contains(guest.run("head -n 1 <&5"), "question")
        guest.run("echo answer >&5")
        equal(os.read(from_guest, 1000), b"answer\r\n", "what came out")
        guest.run("exec 6<>/dev/ttyS2")
        now = re.fullmatch(r"OK pts:(/dev/pts/\d+),pts:(/dev/pts/\d+)\n", guest.ask("config", "ssl2"))
        check(now and now.group(1) != now.group(2), "not two pseudoterminals")
        into, out = (os.open(path, os.O_RDWR | os.O_NOCTTY) for path in now.groups())
        os.write(into, b"typed\n")
        read_until(out, b"typed\r\n")  # the echo goes to the output side
        contains(guest.run("head -n 1 <&6"), "typed")
        os.close(into)
        os.close(out)
    for fd in (from_us, to_guest, from_guest, to_us):
        os.close(fd)


@test
def descriptors_of_the_program_are_for_nobody_else():
    """Only what the caller gave: not the memory, not an image, not a socket of the program."""
    for word in ("con1=fd:{}", "tty_log_fd={}"):
        for fd in range(3, 30):
            result = cowbird("boot", "--uml", f"umid=own con0=fd:0,fd:1 init=/bin/true {word.format(fd)}")
            equal(result.returncode, 1, f"status with {word.format(fd)}: {result.stderr[-300:]!r}")
            contains(result.stderr, "is not open")


@test
def a_terminal_in_and_a_window_out(scratch):
    need("xterm")
    need("xdotool")
    # The triple of xterm=: a program, its switch for the title, its switch for a command.
    program = scratch / "window"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {scratch}/arguments\n'
                       f'title=$2; shift 3; exec xterm -l -lf {scratch}/shown -title "$title" -e "$@"\n')
    program.chmod(0o755)
    with x_server() as display, UmlGuest("window", f"con0=fd:0,fd:1 ssl2=pts,xterm xterm={program},--title,--run",
                                         environment={"DISPLAY": display}) as guest:
        guest.run("exec 5<>/dev/ttyS2")
        window_named(display, "ssl2", guest)
        equal((scratch / "arguments").read_text().splitlines()[:3], ["--title", "ssl2", "--run"], "arguments")
        terminal = guest.pts_of("ssl2")
        equal(guest.ask("config", "ssl2"), f"OK pts:{terminal},xterm\n")
        # The emulator of xterm= is that of windows at run time too; another one has to be told.
        equal(guest.ask("config", "con5=xterm"), "OK\n")
        equal(guest.ask("config", "con5"), "OK xterm\n")
        (scratch / "arguments").unlink()
        guest.run("exec 6<>/dev/tty5")
        window_named(display, "con5", guest)
        equal((scratch / "arguments").read_text().splitlines()[:3], ["--title", "con5", "--run"], "arguments of con5")
        guest.run("exec 6>&-")
        guest.ask("config", 'con6={ plugin = "xterm" }')
        contains(guest.ask("config", "con6"), 'plugin = "xterm"')
        fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        os.write(fd, b"typed here\n")
        guest.run("echo shown there >&5")
        until = time.monotonic() + LIMIT
        while True:
            shown = (scratch / "shown").read_bytes() if (scratch / "shown").exists() else b""
            if b"typed here\r\n" in shown and b"shown there\r\n" in shown:
                break
            check(time.monotonic() < until, f"the window shows {shown}")
            time.sleep(0.1)
        contains(guest.run("head -n 1 <&5"), "typed here")
        x(display, "type", "nobody reads this")
        os.close(fd)


@test
def a_window_that_stands_still(scratch):
    """A stopped xterm holds up who writes to it and nobody else; it has everything when it goes on."""
    need("xterm")
    need("xdotool")
    program = scratch / "window"
    program.write_text(f'#!/bin/sh\necho $$ > {scratch}/pid\nshift 3; exec xterm -l -lf {scratch}/shown -e "$@"\n')
    program.chmod(0o755)
    numbers = 250_000
    with x_server() as display, UmlGuest("still", f"con0=fd:0,fd:1 con1=xterm con2=pts xterm={program},-T,-e",
                                         environment={"DISPLAY": display}) as guest:
        guest.run("exec 5<>/dev/tty1; echo window-is-there >&5")
        guest.shell_on("tty2")
        other = os.open(guest.pts_of("con2"), os.O_RDWR | os.O_NOCTTY)
        wait_until(lambda: (scratch / "shown").exists() and b"is-there" in (scratch / "shown").read_bytes(), "the window", LIMIT)
        window = int((scratch / "pid").read_text())
        os.kill(window, signal.SIGSTOP)
        try:
            guest.run(f"(seq 1 {numbers} >&5; touch /tmp/written) &")
            guest.wait_for("echo; cat /proc/$(pidof seq)/wchan; echo", "\\ntty_write")
            for number in range(3):
                os.write(other, b"echo other-$((%d + 40))x\n" % number)
                read_until(other, b"other-%dx\r\n" % (number + 40))
            contains(guest.run("ls /tmp/written"), "No such file")
            contains(guest.ask("config", "con1"), "OK ")
        finally:
            os.kill(window, signal.SIGCONT)
        guest.wait_for("test -e /tmp/written && echo is-'written'", "is-written")
        wanted = b"".join(b"%d\r\n" % number for number in range(1, numbers + 1))
        wait_until(lambda: (scratch / "shown").read_bytes().endswith(b"%d\r\n" % numbers), "the last line in the window", LIMIT)
        shown = (scratch / "shown").read_bytes()
        check(shown.endswith(wanted), f"of {len(wanted)} bytes the window has shown {len(shown)}, or others")
        os.close(other)


@test
def a_console_server(scratch):
    # Its accounts own one terminal each, and those are the consoles of other guests.
    with Guest(scratch / "customer", ['plugin = "pts"']) as customer:
        customer.run("exec 4<>/dev/tty1")
        with Guest(scratch / "server", ['plugin = "tty"', f'device = "{customer.pts_of("con1")}"']) as server:
            server.run("for n in 1 2; do echo user$n:x:100$n:100$n::/tmp:/bin/sh; done >> /etc/passwd; "
                       "exec 4<>/dev/tty1; stty raw -echo <&4; chown 1001 /dev/tty1; chmod 600 /dev/tty1")
            customer.shell_on("tty1")
            contains(server.run("su user2 -c 'cat /dev/tty1'; su user2 -c 'echo x > /dev/tty1'"), "/dev/tty1: Permission denied")
            server.begin("su user1 -c 'exec 5<>/dev/tty1; cat <&5 & printf \"echo at-\\$(hostname)-\\$((40+2))\\\\r\" >&5; sleep 1000'")
            server.terminal.expect(f"at-{customer.name}-42", LIMIT)


def send_break(client):
    """As a person does it in telnet."""
    client.type("\x1d")
    client.expect("telnet> ", LIMIT)
    client.type("send brk\n")


@test
def breaks_are_what_the_modes_say(scratch):
    port = free_port()
    with Guest(scratch, port_console(port)) as guest:
        guest.begin("show() { stty $1; echo set-$2; head -c $3 | od -An -tx1 | sed s/^/read-$2/ > /dev/tty0; }; "
                    "( stty raw -echo; show '-ignbrk -brkint -parmrk' 1 1; show parmrk 2 3; show 'ignbrk -parmrk' 3 1; "
                    "stty sane ) <> /dev/tty1 >&0; echo modes-\"seen\"")
        with telnet_when_open(port) as client:
            client.expect("set-1", LIMIT)
            send_break(client)
            guest.terminal.expect("read-1 00\r", LIMIT)
            client.expect("set-2", LIMIT)
            send_break(client)
            guest.terminal.expect("read-2 ff 00 00\r", LIMIT)
            client.expect("set-3", LIMIT)
            send_break(client)
            client.type("x")
            guest.terminal.expect("read-3 78\r", LIMIT)
            guest.terminal.expect("modes-seen", LIMIT)
        guest.shell_on("tty1")
        with telnet(port) as client:
            client.type("\r")
            client.expect("# ", LIMIT)
            talk(client, "stty brkint; (echo runs-\"now\"; exec sleep 1000)\r", "runs-now")
            send_break(client)
            client.expect("# ", LIMIT)
            talk(client, "echo $?st\r", "130st")


@test
def a_break_of_the_guest_reaches_the_client(scratch):
    port = free_port()
    (scratch / "init.py").write_text(
        "import fcntl, os, termios, time\nfd = os.open('/dev/tty1', os.O_RDWR | os.O_NOCTTY)\nos.read(fd, 10)\n"
        "os.write(fd, b'one')\ntermios.tcsendbreak(fd, 0)\nos.write(fd, b'two')\ntermios.tcdrain(fd)\n"
        "fcntl.ioctl(fd, 0x5427)\nfcntl.ioctl(fd, 0x5428)\nos.write(fd, b'three')\ntime.sleep(1000)\n")  # TIOCSBRK, TIOCCBRK
    file = scratch / "m.toml"
    file.write_text(f'[machine]\nname = "break"\nquiet = true\ninit = "{sys.executable}"\nargs = ["{scratch}/init.py"]\n'
                    f'[root]\nsource = "/"\noptions = ["ro"]\n[[console]]\nname = "con0"\nplugin = "null"\n'
                    f'[[console]]\nname = "con1"\nplugin = "port"\nport = {port}\n')
    process = subprocess.Popen([COWBIRD, "boot", file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + LIMIT
        while True:
            client = socket.socket()
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
            client.close()
            check(time.monotonic() < until, "the port is not open")
            time.sleep(0.1)
        client.settimeout(LIMIT)
        client.sendall(b"\xff\xfd\x03go\r\n")  # one that speaks telnet
        got = b""
        while b"three" not in got:
            part = client.recv(1000)
            check(part, f"the end came after {got!r}")
            got += part
        contains(got[got.index(b"one"):].hex(" "), b"one\xff\xf3two\xff\xf3three".hex(" "))
        client.close()
    finally:
        process.kill()
        process.wait()


@test
def a_hang_up_ends_the_session_and_what_it_read(scratch):
    port = free_port()
    with Guest(scratch, port_console(port)) as guest:
        guest.begin("setsid sh -c 'exec </dev/tty1 >/dev/tty1 2>/tmp/errors; trap \"echo got-\\\"hup\\\" > /dev/tty0\" HUP; echo it-\"listens\"; cat <&0 > /dev/null; echo read-\"end\" > /dev/tty0; "
                    "echo x >&1; echo write-status-$? > /dev/tty0; echo x > /dev/tty || echo no-\"tty\"> /dev/tty0; "
                    "cat /tmp/errors > /dev/tty0; echo session-\"over\" > /dev/tty0'")
        client = telnet_when_open(port)
        client.expect("it-listens")  # not before it has the trap
        client.close()
        guest.terminal.expect("session-over", LIMIT)
        for part in ("got-hup", "read-end", "write-status-1", "Input/output error"):
            contains(guest.terminal.output, part)


@test
def the_kernels_console_outlives_a_hang_up():
    # Process 1 goes on, and its next shell sits on the next client.
    port = free_port()
    process = subprocess.Popen([COWBIRD, "boot", "--uml", f"umid=outlives quiet con0=port:{port}"], stdin=subprocess.DEVNULL)
    try:
        seen = set()
        for _ in range(3):
            with telnet_when_open(port) as client:
                seen.add(until_seen(client, r"pid=(\d+)\.", lambda: client.type("echo pid=$$.\r")).group(1))
        equal(len(seen), 3, f"shells {seen}")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
