#!/usr/bin/env python3
"""What gdb tells of the whole guest: tables of `info os`, the script's commands and functions, a thousand threads."""
import re
import time

from harness import check, contains, equal, main, test
from debugged import Guest, go_to, in_order, until

# A stream socket that listens, one that is connected, mounts, a disk, and two processes that sleep.
THINGS = ("mount -t tmpfs -o ro store /mnt; /t/debuggee-static sockets & sleep 1000 & "
          "until grep -qs ^sleep /proc/[0-9]*/comm; do :; done; exec cat")


@test
def tables_and_commands(scratch):
    (scratch / "disk").write_bytes(bytes(65536))
    more = f'[[block]]\nname = "ubd0"\nplugin = "file"\npath = "{scratch}/disk"\n'
    with Guest(scratch, THINGS, more=more, wait="ready") as guest:
        # cat reads the console, and sleep sleeps: until they do, the pictures differ.
        until(lambda: guest.mconsole("proc", "1/wchan").strip().endswith("tty_read"), "cat at the console")
        with guest.gdb() as gdb:
            for name in ("tasks", "mounts", "sockets", "block", "plugins"):
                contains(gdb.run("info os"), name)
            in_order(gdb.run("info os tasks"), r"pid +tid +ppid +command +thread +state +call",
                     r"\n1 +1 +0 +cat +\d+ +sleeping in tty_read +read", r"\n\d+ +\d+ +1 +debuggee-static +\d+ +sleeping in pause +pause",
                     r"sleep +\d+ +sleeping in hrtimer_nanosleep +clock_nanosleep")
            in_order(gdb.run("info os mounts"), r"id +parent +source +where +type +access", r"rootfs +/ +rootfs +rw",
                     r"store +/mnt +tmpfs +ro")
            in_order(gdb.run("info os sockets"), r"inode +family +type +state +address", r"unix +stream +listening +/tmp/socket",
                     r"unix +stream +/tmp/socket")
            in_order(gdb.run("info os block"), r"name +major +minor +reads", r"ubda +98 +0 +0 ")
            in_order(gdb.run("info os plugins"), r"base +file", r"0x\w+ +/\S+/blockdev/file.so", r"0x\w+ +/\S+/channels/fd.so")
            commands(gdb)
            functions(gdb)
            gdb.run("detach")


def commands(gdb):
    in_order(gdb.run("cb-ps"), r"PID +TID +THREAD S NAME", r"\n +- +- +\d+ D mconsole", r"\n +1 +1 +\d+ S cat +tty_read",
             r"S sleep +hrtimer_nanosleep")
    in_order(gdb.run("cb-mounts"), r"rootfs on / type rootfs \(rw\)", r"store on /mnt type tmpfs \(ro\)")
    in_order(gdb.run("cb-sockets"), r"FAMILY +TYPE +STATE", r"unix +stream +listening +0x\w+ +/tmp/socket")
    in_order(gdb.run("cb-irq"), r"\d+ timer", r"\d+ completions", r"\d+ \S+")
    in_order(gdb.run("cb-dmesg"), r"\[ +0\.\d+\] .*Linux 6", r"Run /bin/sh as process 1")
    equal(len(gdb.run("cb-dmesg 2").splitlines()), 2, "lines of cb-dmesg 2")


def functions(gdb):
    contains(gdb.run("print $task(1)->comm"), '"cat"')
    contains(gdb.run("print $task(1)->process.object_->pid"), "= 1")
    cat = re.search(r'^\*? +(\d+) +Thread \S+ "cat/1"', gdb.run("info threads"), re.M).group(1)
    gdb.run(f"thread {cat}")
    check(re.search(r"= (true|1)$", gdb.run("print $current() == $task(1)"), re.M), "the current task")
    idle = re.search(r'^\*? +(\d+) +Thread \S+ "mconsole" ', gdb.run("info threads"), re.M).group(1)
    gdb.run(f"thread {idle}")
    contains(gdb.run("print $current()->name_"), '"mconsole"')
    for bad, words in (("print $task(4711)", "There is no guest thread 4711; cb-ps lists them."),):
        try:
            gdb.run(bad)
            check(False, f"{bad} is no error")
        except AssertionError as error:
            contains(str(error), words)


@test
def a_thousand_threads(scratch):
    with Guest(scratch, "exec /t/debuggee-static crowd", memory="256M", vcpus=2, wait="ready") as guest, guest.gdb() as gdb:
        begin = time.monotonic()
        text = gdb.run("info threads")
        listed = time.monotonic()
        names = re.findall(r'Thread 1000000\.\d+ "(?:debuggee-static|crowd)[^"]*/(\d+)" \(sleeping in futex', text)
        equal(len(set(names)), 1000, "guest threads that sleep")
        stacks = gdb.run("thread apply all -s -q backtrace", timeout=240)
        print(f"# info threads {listed - begin:.2f} s, all stacks {time.monotonic() - listed:.2f} s")
        # Each one's stack ends where the guest thread came from, with the number and the name of its call.
        equal(len(re.findall(r'enter_system_call \(name=\S+ "futex", number=\S*202', stacks)), 1000, "stacks at the call")
        check(stacks.count("cowbird_thread_entry") >= 1001, "stacks that are whole")
        check("Backtrace stopped" not in stacks, "a stack is cut")
        check_all_stacks(gdb.run("monitor bt all", timeout=240))
        gdb.run("detach")


def check_all_stacks(text):
    """`monitor bt all` of a crowd: each thread once, from the switch to where it came from, with its call."""
    stacks = [part.splitlines() for part in text.strip().split("\n\n")]
    tids = [re.match(r'thread (\d+) "', stack[0]).group(1) for stack in stacks]
    equal(len(set(tids)), len(stacks), "threads, each once")
    waiting = [stack for stack in stacks if re.search(r"\(sleeping in futex\w*, system call futex\)$", stack[0])]
    equal(len(waiting), 1000, "stacks of threads that wait")
    for stack in waiting:
        check(re.fullmatch(r"  #0 +0x\w+ cowbird_switch_context at \S+", stack[1]), f"the first frame of {stack}")
        check(re.fullmatch(r"  #\d+ +0x\w+ cowbird_thread_entry at \S+", stack[-2]), f"the last frame of {stack}")
        check(re.fullmatch(r"  from system call 202 \(futex\) of process 1, thread \d+", stack[-1]), f"the end of {stack}")
    equal(len({stack[-1] for stack in waiting}), 1000, "guest threads")


@test
def a_thread_in_the_making(scratch):
    with Guest(scratch, vcpus=4) as guest, guest.gdb() as gdb:
        go_to(gdb, "cowbird::enqueue_new")  # it is in the list, and on no run queue
        tid = int(gdb.run("print thread.id_").split()[-1]) + 1
        number = re.search(rf'^\*? +(\d+) +Thread 1000000\.{tid} "sh/\d+" \(new\)', gdb.run("info threads"), re.M)
        check(number, gdb.run("info threads"))
        in_order(gdb.run("cb-ps"), rf"\n +(\d+) +\1 +{tid} R sh *(\n|$)")
        in_order(gdb.run("monitor ps"), rf"\n\d+ +\d+ +1 +{tid} +sh +new")
        in_order(gdb.run(f"thread apply {number.group(1)} backtrace"), r"#0 +cowbird_switch_context", r"#1 .* cowbird_thread_entry")
        gdb.run("detach")
        guest.goes_on()


if __name__ == "__main__":
    main()
