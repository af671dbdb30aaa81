#!/usr/bin/env python3
"""Clients of the channels `port` and `unix` as nobody wants them: they stop the output and go, fill the input and go, wait in line and go, or
send without end. The console is there for the next one."""
import contextlib
import os
import socket
import struct
import threading
import time

from console_guest import LIMIT, UmlGuest, free_port, talk, telnet
from harness import check, main, test
from managed_guest import wait_until


def connected(port):
    """A client, as soon as the guest has the console open."""
    until = time.monotonic() + LIMIT
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", port))
            client.settimeout(LIMIT)
            return client
        except (ConnectionRefusedError, ConnectionResetError):  # nobody has it open, or just closes it
            check(time.monotonic() < until, f"nobody listens on port {port}")
            time.sleep(0.02)


def read_until(client, wanted):
    got = b""
    while wanted not in got:
        part = client.recv(4096)
        check(part, f"the end came before {wanted!r}, after {got[-300:]!r}")
        got += part
    return got


def logged_in(port):
    """A client that has the shell, at once or in turn."""
    until = time.monotonic() + LIMIT
    while True:
        client = connected(port)
        try:
            client.sendall(b"\recho mine-$((40 + 2))\r")
            read_until(client, b"mine-42")
            return client
        except (ConnectionResetError, BrokenPipeError):  # it came in the moment in which the guest closed it
            client.close()
            check(time.monotonic() < until, "nobody is served")


@contextlib.contextmanager
def guest_with_shell(name):
    port = free_port()
    with UmlGuest(name, f"con0=fd:0,fd:1 con1=port:{port}") as guest:
        guest.shell_on("tty1")
        yield guest, port


@test
def who_stops_the_output_and_goes():
    with guest_with_shell("stops") as (_, port):
        for ending in ("politely", "at once"):
            with logged_in(port) as client:
                client.sendall(b"\x13")
                if ending == "at once":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        logged_in(port).close()


@test
def who_fills_the_input_and_goes():
    """Nobody reads: the shell stands in a write that the client has stopped."""
    with guest_with_shell("fills") as (_, port):
        with logged_in(port) as client:
            client.sendall(b"stty -icanon; yes\r")
            read_until(client, b"y\r\ny\r\n")
            client.sendall(b"\x13")
            client.sendall(b"x" * 20000)
        logged_in(port).close()


def wait_in_line(stack, port, number):
    client = stack.enter_context(telnet(port))
    client.expect(f"You are number {number} in line", LIMIT)
    return client


@test
def the_line_stays_between_two_sessions():
    with guest_with_shell("line") as (guest, port):
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(telnet(port))
            talk(first, "\r", "# ")
            second, gone, third = (wait_in_line(stack, port, number) for number in (1, 2, 3))
            # What is typed before one's turn is kept, and forgotten when one goes.
            gone.type("touch /tmp/by-who-is-gone\r")
            third.type("touch /tmp/by-third\r")
            gone.close()
            wait_in_line(stack, port, 3).close()
            talk(first, "exit\r", "closed")
            talk(second, "echo second-$((40 + 2))\r", "second-42")
            second.close()
            third.expect("by-third", LIMIT)
            talk(third, "echo third-$((40 + 2))\r", "third-42")
            guest.wait_for("ls /tmp", r"\nby-third\r")
            check("by-who-is-gone" not in guest.run("ls /tmp"), "the word of one who has left the line was obeyed")


@test
def the_line_at_a_socket_stays_too(scratch):
    path = scratch / "line.sock"
    with UmlGuest("unixline", f"con0=fd:0,fd:1 con1=unix:{path}") as guest:
        guest.shell_on("tty1")
        wait_until(path.exists, "the socket", LIMIT)
        clients = []
        for _ in range(3):
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].settimeout(LIMIT)
            clients[-1].connect(str(path))
        for number, client in enumerate(clients):
            client.sendall(b"\recho mine-%d-$((40 + 2))\r" % number)
            read_until(client, b"mine-%d-42" % number)
            client.close()
        # Whoever waits when the guest ends does not leave the socket behind.
        first, second = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        wait_until(lambda: connects(first, path), "the next session", LIMIT)
        second.connect(str(path))
        guest.begin("poweroff -f")
        guest.terminal.wait()
        check(not path.exists(), "the socket is left")
        first.close()
        second.close()


def connects(client, path):
    try:
        client.connect(str(path))
        return True
    except OSError:
        return False


@test
def who_sends_without_end_is_not_alone():
    with guest_with_shell("floods") as (guest, port):
        for unit in (b"\xff\xf1", b"\xff\xfb\x63", b"\xff\xfa\x1f" + b"\x01" * 5000, b"\0", os.urandom(65536)):
            with connected(port) as client:
                stop = threading.Event()
                client.settimeout(0.2)

                def flood(client=client, unit=unit, stop=stop):
                    data = unit * (65536 // len(unit))
                    while not stop.is_set():
                        try:
                            client.sendall(data)
                        except TimeoutError:
                            pass
                        except OSError:  # it was let go, or its session has ended by what it sent
                            return

                sender = threading.Thread(target=flood)
                sender.start()
                for number in range(3):
                    check(f"works-{number + 40}" in guest.run(f"echo works-$(({number} + 40))"), "con0")
                stop.set()
                sender.join()
        logged_in(port).close()


if __name__ == "__main__":
    main()
