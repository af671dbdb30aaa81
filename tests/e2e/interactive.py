#!/usr/bin/env python3
"""A person at the guest's terminal: line editing, job control, vi, less and top."""
import contextlib
import termios
import time

from harness import COWBIRD, EXAMPLES, LIMIT, Terminal, check, contains, equal, main, prompt_of, test


def guest(*options, **more):
    return Terminal([COWBIRD, "run", *options, "--", "/bin/busybox", "sh"], **more)


def enter(terminal, line, wanted):
    terminal.type(line + "\n")
    return terminal.expect(wanted)


def escape(terminal, text):
    """Types text into vi and leaves insert mode: what follows at once would be an escape sequence."""
    terminal.type(text + "\x1b")
    terminal.settle(0.5)


@test
def commands_answer():
    with guest() as terminal:
        prompt_of(terminal)
        enter(terminal, "echo $((40 + 2))a", "42a")
        terminal.type("exit 7\n")
        equal(terminal.wait(), 7, "exit status")


@test
def typed_end_of_file_leaves():
    with guest() as terminal:
        prompt_of(terminal)
        terminal.type("\x04")
        equal(terminal.wait(), 0, "exit status")


@test
def editing_and_history():
    with guest() as terminal:
        prompt_of(terminal)
        enter(terminal, "echo abX\x7fc$((1+1))", "abc2")
        prompt_of(terminal)
        terminal.type("\x1b[A\n")  # the line before
        terminal.expect("\r\nabc2")


@test
def interrupt_ends_the_command_not_the_shell():
    with guest() as terminal:
        prompt_of(terminal)
        terminal.type("sleep 1000\n")
        terminal.settle()
        terminal.press("\x03", "# ")
        enter(terminal, "echo $?st", "130st")
        terminal.type("cat\n")
        terminal.settle()
        terminal.type("echoed\n")
        terminal.expect("echoed\r\nechoed\r\n")
        terminal.press("\x03", "# ")
        # In a shell of its own: busybox's may be inside of malloc(3) when ^C sends it back to its prompt, and hangs then.
        terminal.type("sh -c 'while :; do :; done'\n")
        terminal.settle(0.5)
        terminal.press("\x03", "# ")
        enter(terminal, "echo al''ive", "alive")


@test
def quit_key_ends_the_command():
    with guest() as terminal:
        prompt_of(terminal)
        terminal.type("sleep 1000\n")
        terminal.settle()
        terminal.press("\x1c", "# ")
        enter(terminal, "echo $?st", "131st")


@test
def suspend_background_and_foreground():
    with guest() as terminal:
        prompt_of(terminal)
        terminal.type("sleep 1000\n")
        terminal.settle()
        terminal.press("\x1a", "Stopped")
        prompt_of(terminal)
        enter(terminal, "jobs", "Stopped")
        enter(terminal, "bg", "sleep 1000")
        prompt_of(terminal)
        enter(terminal, "jobs", "Running")
        prompt_of(terminal)
        enter(terminal, "fg", "sleep 1000")
        terminal.settle()
        terminal.press("\x03", "# ")
        enter(terminal, "jobs; echo no''ne", "none")


@test
def background_readers_of_the_terminal_and_of_the_console():
    with guest() as terminal:
        prompt_of(terminal)
        # Who reads the terminal from the background is stopped; a handler of SIGCHLD ends a read then.
        terminal.type("cat /dev/tty & until jobs | grep -q Stopped; do sleep 0.1; done; echo was-sto''pped\n")
        terminal.expect("was-stopped", 60)
        terminal.type("kill -9 %1; wait; echo cle''ar\n")
        terminal.expect("clear", 60)
        prompt_of(terminal)
        # Not so on /dev/console, which has no job control.
        terminal.type("read -r x < /dev/console && echo \"got \"$x & echo waits-for-\"it\"; wait\n")
        terminal.expect("waits-for-it", 60)
        terminal.type("a line\n")
        # The shell's question for the cursor may be answered late, into the line.
        terminal.expect(r"got [^\n]*a line", 60, literal=False)
        prompt_of(terminal)
        # A last program in place of the shell, beside a job that reads.
        terminal.type("cat /dev/console & exec head -n 1 /dev/console\n")
        for _ in range(200):
            if not terminal.running():
                break
            with contextlib.suppress(OSError):  # it has just ended
                terminal.type("hello\n")  # one of the two gets it
            terminal.settle(0.3, 3)
        check("error" not in terminal.output, terminal.output[-1000:])
        equal(terminal.wait(), 0, "exit status")


@test
def background_job_ends_by_itself():
    with guest() as terminal:
        prompt_of(terminal)
        enter(terminal, "sleep 0.3 & wait; echo ba''ck", "back")


@test
def window_size_is_known_and_followed():
    with guest(rows=30, columns=90) as terminal:
        prompt_of(terminal)
        enter(terminal, "stty size", "30 90")
        prompt_of(terminal)
        terminal.resize(41, 132)
        terminal.settle()
        enter(terminal, "stty size", "41 132")


@test
def vi_edits_a_file(scratch):
    (scratch / "text").write_text("first line\nsecond line\nthird line\n")
    with guest("--mount", f"{scratch}:/m") as terminal:
        prompt_of(terminal)
        terminal.type("vi /m/text\n")
        terminal.expect_screen(lambda s: s.lines()[:3] == ["first line", "second line", "third line"]
                               and s.lines()[3] == "~" and "text" in s.lines()[23], "vi with the file")
        terminal.type("jdd")
        terminal.expect_screen(lambda s: s.lines()[:3] == ["first line", "third line", "~"], "the deleted line")
        escape(terminal, "oadded")
        terminal.expect_screen(lambda s: s.lines()[2] == "added", "the added line")
        escape(terminal, "1GA, changed")
        terminal.type(":wq\n")
        prompt_of(terminal)
    equal((scratch / "text").read_text(), "first line, changed\nthird line\nadded\n")


@test
def less_pages_through_a_file(scratch):
    (scratch / "text").write_text("".join(f"line {i}\n" for i in range(1, 201)))
    with guest("--mount", f"{scratch}:/m:ro") as terminal:
        prompt_of(terminal)
        terminal.type("less /m/text\n")
        terminal.expect_screen(lambda s: "line 1" in s.lines() and "line 23" in s.lines(), "the first page")
        terminal.type(" ")
        terminal.expect_screen(lambda s: "line 40" in s.lines() and "line 1" not in s.lines(), "the second page")
        terminal.type("G")
        terminal.expect_screen(lambda s: "line 200" in s.lines(), "the end")
        terminal.type("g")
        terminal.expect_screen(lambda s: "line 1" in s.lines(), "the first page again")
        # One key at a time: less changes the terminal's mode between keys and throws away what came too early.
        typed = ""
        for key in "/line 77":
            typed += key
            terminal.type(key)
            terminal.expect_screen(lambda s: s.lines()[-1].startswith(typed.rstrip()), f"the search so far, {typed!r}")
        terminal.type("\r")
        terminal.expect_screen(lambda s: s.lines()[0] == "line 77", "what was searched")
        terminal.type("q")
        prompt_of(terminal)
        enter(terminal, "echo ba''ck", "back")


@test
def top_shows_processes():
    with guest() as terminal:
        prompt_of(terminal)
        terminal.type("top -d 1\n")
        terminal.expect_screen(lambda s: "Mem:" in s.text() and "Load average" in s.text() and "PID" in s.text()
                               and "top" in s.text(), "the table of top")
        terminal.settle(1.5, 3)
        terminal.type("q")
        prompt_of(terminal)
        enter(terminal, "echo ba''ck", "back")


@test
def raw_mode_of_the_host_is_given_back():
    with Terminal(["/bin/sh", "-c", f'"{COWBIRD}" run -- /bin/busybox true; echo over; sleep 30']) as terminal:
        terminal.expect("over")
        modes = termios.tcgetattr(terminal.master)
        check(modes[3] & termios.ICANON and modes[3] & termios.ECHO, "the terminal was left in raw mode")


@test
def background_of_the_hosts_shell_and_foreground():
    with Terminal(["/bin/bash", "--norc", "-i"]) as shell:
        enter(shell, "PS1='ho''st> '", "host> ")
        shell.type(f"{COWBIRD} boot {EXAMPLES}/hello.toml --set machine.name=background &\n")
        # It is stopped as any program that reads from the terminal there. The shell says so before a prompt.
        end = time.monotonic() + LIMIT
        while "Stopped" not in shell.output:
            check(time.monotonic() < end, f"the job was not stopped: {shell.output}")
            shell.type("jobs\n")
            shell.settle(0.2, 1.0)
        shell.type("fg\n")
        shell.expect("machine.name=background")
        shell.type("\n")
        shell.expect("root@background:/# ")
        enter(shell, "echo al''ive", "alive")
        modes = termios.tcgetattr(shell.master)[3]
        check(not modes & (termios.ICANON | termios.ECHO | termios.ISIG), "the terminal is not raw")
        enter(shell, "poweroff", "host> ")
        shell.type("stty -a\n")
        shell.expect(r"\s-?echo\s", literal=False)
        check("-icanon" not in shell.output and "-echo " not in shell.output, "the modes were not put back")
        shell.type("exit\n")
        shell.wait()


@test
def usual_tools_read_proc():
    with guest() as terminal:
        prompt_of(terminal)
        for command, wanted in (("ps", "PID"), ("free", "Mem:"), ("mount", " on / "), ("uptime", "load average"),
                                ("dmesg | head -3", "["), ("df /tmp", "Filesystem"), ("id", "uid=0"), ("date", "20")):
            enter(terminal, command, wanted)
            prompt_of(terminal)
        contains(terminal.output, "load average")


if __name__ == "__main__":
    main()
