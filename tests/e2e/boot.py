#!/usr/bin/env python3
"""`cowbird boot`: to a prompt and back, disks, power off, panic, and the host's terminal afterwards."""
import hashlib
import os
import random
import signal
import subprocess
import termios
import time

from harness import (COWBIRD, EXAMPLES, Terminal, alive, boot_terminal, check, contains, cowbird, equal, main,
                     processes_of, prompt_of, test)


def machine(scratch, text, name="machine.toml"):
    file = scratch / name
    file.write_text(text)
    return file


def enter(terminal, line):
    """Types a command and waits until the shell is back; what it printed."""
    mark = f"done{random.randrange(10**9)}"
    start = len(terminal.output)
    terminal.type(f"{line}; echo {mark[:4]}''{mark[4:]}\n")
    terminal.expect(mark)
    terminal.expect("# ")
    return terminal.output[start:].replace("\r\n", "\n")


@test
def every_example_boots_to_a_prompt(scratch):
    for file in sorted(EXAMPLES.glob("*.toml")):
        directory = scratch / file.stem
        directory.mkdir()
        copy = machine(directory, file.read_text())
        (directory / "disk.img").write_bytes(bytes(1 << 20))
        with boot_terminal(copy) as terminal:
            prompt_of(terminal)
            contains(enter(terminal, "uname -s"), "Linux", f"the output in {file.name}")
            terminal.type("poweroff\n")
            equal(terminal.wait(), 0, f"status of {file.name}")


@test
def poweroff_and_halt_end_with_0(scratch):
    for command in ("poweroff", "halt", "poweroff -f"):
        with boot_terminal(machine(scratch, "")) as terminal:
            prompt_of(terminal)
            terminal.type(command + "\n")
            equal(terminal.wait(), 0, f"status after {command}")


@test
def reboot_starts_again(scratch):
    with boot_terminal(machine(scratch, "")) as terminal:
        prompt_of(terminal)
        enter(terminal, "echo x > /tmp/old")
        terminal.type("reboot -f\n")
        prompt_of(terminal)
        contains(enter(terminal, "ls /tmp/old || echo fre''sh"), "fresh")


@test
def panic_ends_with_3_and_a_backtrace(scratch):
    with boot_terminal(machine(scratch, "")) as terminal:
        prompt_of(terminal)
        terminal.type("echo c > /proc/sysrq-trigger\n")
        equal(terminal.wait(), 3, "exit status")
        contains(terminal.output.lower(), "panic", "the output")
        contains(terminal.output, "#1", "the backtrace")


@test
def end_of_process_1_is_a_panic(scratch):
    file = machine(scratch, '[machine]\ninit = "/bin/sh"\n')
    result = cowbird("boot", file, "--", "-c", "exit 5")
    equal(result.returncode, 3, "exit status")


@test
def init_gets_its_arguments(scratch):
    script = "echo from $0 $1; poweroff -f"
    file = machine(scratch, f'[machine]\ninit = "/bin/sh"\nargs = ["-c", "{script}", "file"]\n')
    contains(cowbird("boot", file).stdout, "from file")
    contains(cowbird("boot", file, "--", "line").stdout, "from file line")


@test
def settings_change_the_machine(scratch):
    with boot_terminal(machine(scratch, ""), "--set", "machine.memory=64M", "--set", "machine.vcpus=2") as terminal:
        prompt_of(terminal)
        contains(enter(terminal, "grep -c ^processor /proc/cpuinfo"), "\n2\n")
        kib = int(enter(terminal, "grep MemTotal /proc/meminfo").split("MemTotal:")[1].split()[0])
        check(30_000 < kib <= 65_536, f"MemTotal is {kib} KiB")


def with_disk(scratch, size, more=""):
    data = random.Random(7).randbytes(size)
    (scratch / "disk.img").write_bytes(data)
    return data, machine(scratch, f'[[block]]\nname = "ubd0"\nplugin = "file"\npath = "disk.img"\n{more}')


@test
def disk_reads_as_the_image(scratch):
    data, file = with_disk(scratch, 3 << 20)
    with boot_terminal(file) as terminal:
        prompt_of(terminal)
        contains(enter(terminal, "dd if=/dev/ubda bs=64k 2>/dev/null | sha256sum"), hashlib.sha256(data).hexdigest())
        contains(enter(terminal, "dd if=/dev/ubda bs=512 skip=777 count=3 2>/dev/null | md5sum"),
                 hashlib.md5(data[777 * 512:780 * 512]).hexdigest())
        contains(enter(terminal, "dd if=/dev/ubda bs=1000 skip=3 count=1 2>/dev/null | md5sum"),
                 hashlib.md5(data[3000:4000]).hexdigest())
        contains(enter(terminal, "dd if=/dev/ubda bs=1M skip=3 2>/dev/null | wc -c"), "\n0\n")


@test
def disk_writes_arrive_in_the_image(scratch):
    data, file = with_disk(scratch, 1 << 20)
    with boot_terminal(file) as terminal:
        prompt_of(terminal)
        enter(terminal, "printf 0123456789 | dd of=/dev/ubda bs=1 seek=5000 conv=notrunc 2>/dev/null; sync")
        terminal.type("poweroff\n")
        equal(terminal.wait(), 0, "exit status")
    now = (scratch / "disk.img").read_bytes()
    equal(now[5000:5010], b"0123456789", "what was written")
    equal(now[:5000] + now[5010:], data[:5000] + data[5010:], "the rest")


@test
def read_only_disk_is_not_written(scratch):
    data, file = with_disk(scratch, 1 << 20, "readonly = true\n")
    with boot_terminal(file) as terminal:
        prompt_of(terminal)
        enter(terminal, "dd if=/dev/zero of=/dev/ubda bs=4k count=1; sync")
        terminal.type("poweroff\n")
        terminal.wait()
    equal(hashlib.md5((scratch / "disk.img").read_bytes()).digest(), hashlib.md5(data).digest(), "the image")


@test
def boots_without_a_terminal(scratch):
    result = cowbird("boot", machine(scratch, ""), stdin=b"echo o''ut\npoweroff -f\n")
    equal(result.returncode, 0, result.stderr.decode()[-500:])
    contains(result.stdout, "out")


@test
def end_of_input_is_an_end_for_who_reads_it(scratch):
    # For one session as often as it reads, so that a script's last shell ends; the next one finds a silent line.
    file = machine(scratch, '[machine]\nquiet = true\ninit = "/bin/sh"\n'
                   'args = ["-c", "cat; cat; read x; echo $?; head -c 1 | wc -c; stty raw; head -c 1 | wc -c; stty cooked; '
                   'setsid sh -c \'read x </dev/console\' & sleep 1; jobs; poweroff -f"]\n')
    for words, wanted in ((b"", "1\n0\n0\n"), (b"a line\nno end", "a line\nno end1\n0\n0\n")):
        result = cowbird("boot", file, stdin=words)
        equal(result.returncode, 0, result.stderr.decode())
        contains(result.stdout.replace(b"\r", b""), wanted)
        contains(result.stdout, "Running")  # the second session waits
    result = cowbird("boot", file, "--set", 'machine.args=["-i"]', stdin=b"echo $((40 + 2))\n")
    contains(result.stdout, "42\r\n")
    equal(result.returncode, 3, "exit status: process 1 has ended")


@test
def closed_descriptors_stay_closed(scratch):
    file = machine(scratch, "")
    script = f'exec "{COWBIRD}" boot "{file}" <&-'
    result = subprocess.run(["/bin/sh", "-c", script], capture_output=True, timeout=60, check=False)
    equal(result.returncode, 1, "exit status")
    contains(result.stderr, 'The host file descriptor 0 (key "input") is not open.')
    script = f'exec "{COWBIRD}" run -- sh -c "read x || echo no input" <&-'
    result = subprocess.run(["/bin/sh", "-c", script], capture_output=True, timeout=60, check=False)
    equal(result.stdout, b"no input\n", "output of a program without standard input")


@test
def null_console_swallows_everything(scratch):
    file = machine(scratch, '[machine]\ninit = "/bin/sh"\nargs = ["-c", "echo unseen; poweroff -f"]\n'
                            '[[console]]\nname = "con0"\nplugin = "null"\n')
    result = cowbird("boot", file)
    equal(result.returncode, 0, "exit status")
    check(b"unseen" not in result.stdout, "the output was not swallowed")


def modes_of(terminal):
    return termios.tcgetattr(terminal.master)[:4]


def restored_after(scratch, number):
    """Boots below a shell that keeps the terminal, signals the guest, compares the modes."""
    script = f'"{COWBIRD}" boot "{machine(scratch, "")}"; echo "ended with $?"; sleep 60'
    with Terminal(["/bin/sh", "-c", script]) as terminal:
        prompt_of(terminal)
        check(modes_of(terminal)[3] & termios.ICANON == 0, "the host's terminal is not in raw mode")
        main_process = [p for p in processes_of(terminal.process) - {terminal.process}
                        if open(f"/proc/{p}/stat").read().rpartition(")")[2].split()[1] == str(terminal.process)]
        equal(len(main_process), 1, "processes of the shell")
        os.kill(main_process[0], number)
        terminal.expect("ended with")
        modes = modes_of(terminal)
        check(modes[3] & termios.ICANON and modes[3] & termios.ECHO and modes[1] & termios.OPOST,
              f"the terminal was left in raw mode after signal {number}")


@test
def terminal_is_restored_after_sigterm(scratch):
    restored_after(scratch, signal.SIGTERM)


@test
def terminal_is_restored_after_sigsegv(scratch):
    restored_after(scratch, signal.SIGSEGV)


@test
def terminal_is_restored_after_sigabrt(scratch):
    restored_after(scratch, signal.SIGABRT)


@test
def kill_9_of_a_booted_guest_leaves_nothing(scratch):
    with boot_terminal(machine(scratch, "")) as terminal:
        prompt_of(terminal)
        enter(terminal, "sleep 1000 & sleep 1000 & true")
        everything = processes_of(terminal.process)
        os.kill(terminal.process, signal.SIGKILL)
        terminal.wait()
        until = time.monotonic() + 5
        while any(map(alive, everything)) and time.monotonic() < until:
            time.sleep(0.05)
        check(not any(map(alive, everything)), "host processes are left")


@test
def a_killed_stub_ends_only_its_process(scratch):
    with boot_terminal(machine(scratch, "")) as terminal:
        prompt_of(terminal)
        before = processes_of(terminal.process)
        enter(terminal, "(while :; do :; done) & sleep 0.5")
        busy = sorted(processes_of(terminal.process) - {terminal.process}, key=processor_time)[-1]
        check(len(before) > 1, "the guest has no stub processes")
        os.kill(busy, signal.SIGKILL)
        contains(enter(terminal, "sleep 0.5; echo al''ive"), "alive")


def processor_time(process):
    try:
        fields = open(f"/proc/{process}/stat").read().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


@test
def kill_everybody_spares_process_1(scratch):
    with boot_terminal(machine(scratch, "")) as terminal:
        prompt_of(terminal)
        terminal.type("sleep 1000 & kill -9 -1\n")
        terminal.settle(1.0, 5.0)
        check(terminal.running(), "the machine is down")


if __name__ == "__main__":
    main()
