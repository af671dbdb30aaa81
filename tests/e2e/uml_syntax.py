#!/usr/bin/env python3
"""UML command lines: `cowbird convert` and `cowbird boot --uml`; `boot --daemon` and `ls`."""
import json
import os
import shlex
import signal
import socket
import time

from harness import COWBIRD, EXAMPLES, Terminal, check, contains, cowbird, equal, main, prompt_of, test

# Every line of syntax that the documents of UML show, and a part of what must come of it; "!": refused.
LINES = [
    ("mem=2048M umid=TEST ubd0=Filesystem.img root=/dev/ubda con=null con0=null,fd:2 con1=fd:0,fd:1",
     'source = "ubd0"'),
    ("vec0:transport=tap,ifname=tap0,depth=128,gro=1", 'plugin = "tap"'),
    ("vec1:transport=hybrid,ifname=tap0,depth=128,gro=1", 'plugin = "hybrid"'),
    ("vec0:transport=raw,ifname=p-veth0,depth=128,gro=1", 'plugin = "raw"'),
    ("vec0:transport=gre,src=10.0.0.1,dst=10.0.0.2", 'plugin = "gre"'),
    ("vec0:transport=l2tpv3,udp=1,src=a,dst=b,srcport=1706,dstport=1707,depth=128,rx_session=0xffffffff,tx_session=0xffff",
     "rx_session = 4294967295"),
    ("vec0:transport=bess,src=/tmp/a,dst=/tmp/b", 'plugin = "bess"'),
    ("ubd0=root_fs_cow,root_fs_debian_22", 'backing = "root_fs_debian_22"'),
    ("ubd3=/home/jdike/incoming/roots/root_fs_debian22", 'name   = "ubd3"'),
    ("con=pts con0=fd:0,fd:1", 'name   = "con*"'),
    ("con0=fd:0,fd:1 con1=none con=pts ssl=pts", 'name   = "ssl*"'),
    ("con0=fd:0,fd:1 con1=none con=port:9000 ssl=port:9000 umid=debian mem=450M ubda=debian30 uml_dir=tmp",
     "port   = 9000"),
    ("con1=port:4321", "port   = 4321"),
    ("con8=tty:/dev/pts/28", 'plugin = "tty"'),
    ("con2=pts,null", "output_channel"),
    ("xterm=gnome-terminal,-t,-x con1=xterm", 'command = "gnome-terminal,-t,-x"'),
    ("ssl2=pts,xterm xterm=xterm,-T,-e", 'command = "xterm,-T,-e"'),
    ("xterm=xterm,-T,-e", "!No console or serial line is an xterm"),
    ("eth0=tuntap,,,192.168.0.254", 'host_ip = "192.168.0.254"'),
    ("eth0=tuntap,tap0,fe:fd:1:2:3:4", 'mac    = "fe:fd:1:2:3:4"'),
    ("eth0=mcast", 'plugin = "mcast"'),
    ("eth0=mcast,,224.0.0.7", 'group  = "224.0.0.7"'),
    ("eth0=daemon", 'plugin = "daemon"'),
    ("eth0=daemon,fe:fd:1:2:3:4,unix,/var/run/uml-utilities/uml_switch.ctl", "uml_switch.ctl"),
    ("eth0=slirp,,/usr/bin/slirp", "slirp"),
    ("eth0=pcap,eth0,tcp", 'filter = "tcp"'),
    ("root=/dev/root rootfstype=hostfs rootflags=/srv/root", 'type   = "hostfs"'),
    ("initrd=initrd.cpio", 'type   = "initramfs"'),
    ("hostfs=/jail rootfstype=hostfs", '"/jail"'),
    ("ncpus=4", "vcpus = 4"),
    ("eth0=ethertap,tap0", "!tuntap"),
    ("eth0=slip,192.168.0.254", "!SLIP"),
    ("hostfs=/jail,append", "!mount"),
    ("con1=/dev/tty8", "!tty:/dev/tty8"),
    ("root=/dev/ubda1 ubda=x", "!partition"),
    ("dtb=machine.dtb", "!device tree"),
    ("aio=2.4", "!io"),
    ("devfs=nomount", "!devtmpfs"),
    ("dsp=/dev/sound/dsp", "!sound"),
    ("mixer=/dev/sound/mixer", "!sound"),
    ("fake_ide", "!IDE"),
    ("iomem=mmapper,file", "!memory-mapped"),
    ("gdb-pid=77", "!gone"),
    ("mode=tt", "!one way"),
    ("mode=skas0", "!one way"),
    ("skas0", "!one way"),
    ("nosysemu", "!one way"),
    ("noprocmm", "!no longer exists"),
    ("noptracefaultinfo", "!no longer exists"),
    ("udb0=x", "!ubd0="),
    ("ubd0=File,,Serial", "!serial number"),
    ("--showconfig", "!build time"),
    ("mconsole=notify:/tmp/notify", 'notify = "/tmp/notify"'),
    ("tty_log_dir=/tmp/logs", 'tty_log_dir = "/tmp/logs"'),
    ("tty_log_fd=9", "tty_log_fd = 9"),
    ("tty_log_fd=x", "!tty_log_fd=10"),
    ("mconsole=notify", "!mconsole=notify:SOCKET"),
    ("mconsole=notify:/tmp/notify", 'notify = "/tmp/notify"'),
    ("ubd0=Filesystem.cow,Filesystem.img", 'backing = "Filesystem.img"'),
    ("ubd0=cow:backing", 'plugin  = "cow"'),
    ("ubd0=/ root=/dev/ubda", 'type   = "hostfs"'),
    ("ubd1rsc=disk.img", "readonly = true"),
    ("ubd0=x root=98:0", 'source = "ubd0"'),
    ("mem=2048M", 'memory = "2G"'),
    ("umid=debian uml_dir=/var/run/uml", 'directory = "/var/run/uml"'),
    ("con=null", 'plugin = "null"'),
    ("con3=port:9000", "port   = 9000"),
    ("con1=pty:/dev/ptyp0", 'plugin = "pty"'),
    ("con1=none", 'plugin = "none"'),
    ("ssl=xterm,xterm", "output_channel"),
    ("tty_log_dir=/tmp", 'tty_log_dir = "/tmp"'),
    ("tty_log_fd=10", "tty_log_fd = 10"),
    ("debug", 'log_level = "debug"'),
    ("hostfs=/jail", "!Guests cannot mount hostfs themselves"),
    ("noprotracefaultinfo", "!no longer exists"),
    ("nopttracefaultinfo", "!no longer exists"),
    ("--help", "!cowbird boot --help"),
    ("--version", "!cowbird --version"),
    ("vec0:transport=tap,ifname=tap0,mac=fe:fd:1:2:3:4,mtu=9000,vec=0,headroom=64", "headroom = 64"),
    ("vec0:transport=gre,src=::1,dst=::1,v6=1", "v6"),
    ("vec0:transport=nosuch", '!There is no vector transport "nosuch"'),
    ("eth0=ppp", "!"),
]
# What begins so is an interface: it converts, and no guest can have it yet.
NETWORK = ("vec", "eth")


def toml_of(*words):
    result = cowbird("convert", "--", *words)
    equal(result.returncode, 0, f"status for {words}: {result.stderr.decode()}")
    return result.stdout.decode()


def running(scratch):
    """What `cowbird ls --json` says."""
    result = cowbird("ls", "--json", environment={"COWBIRD_DIR": str(scratch)})
    equal(result.returncode, 0, "exit status of ls")
    return {guest["name"]: guest for guest in json.loads(result.stdout)}


def gone(pid):
    end = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}"):
        check(time.monotonic() < end, "the daemon did not end")
        time.sleep(0.05)


def changed(path):
    """When the file was made; None when it is not there."""
    try:
        return path.stat().st_ctime_ns
    except FileNotFoundError:
        return None


@test
def the_emulator_of_all_windows_is_one_word(scratch):
    for line, wanted in (("con=xterm con1=pts ssl2=pts,xterm xterm=konsole,-t,-e", ()),
                         ("con1=xterm", ()),
                         ('con1=xterm \'con2={ plugin = "xterm", command = "a,b,c" }\'', ('command = "a,b,c"',))):
        words = shlex.split(line)
        (scratch / "m.toml").write_text(toml_of(*words))
        back = cowbird("convert", scratch / "m.toml").stdout.decode()
        equal(sorted(shlex.split(back)), sorted(words), "there and back")
        check(("{" in back) == bool(wanted), back)


@test
def every_line_of_umls_documents_converts_or_says_why_not():
    for line, wanted in LINES:
        result = cowbird("convert", "--", *line.split())
        if wanted.startswith("!"):
            equal(result.returncode, 1, f"status for {line}")
            contains(result.stderr, wanted[1:], line)
            contains(result.stderr, 'word 1, "', line)
            equal(result.stdout, b"", "standard output")
        else:
            equal(result.returncode, 0, f"status for {line}: {result.stderr.decode()}")
            contains(result.stdout, wanted, line)


@test
def what_no_machine_file_may_say_is_not_converted():
    for word, why in (("mem=0", '"memory" is 0'), ("ncpus=0", '"vcpus" is 0'), ("umid=a/b", "is no name for a machine"),
                      ("con01=pts", '"con01" is no name for a console'), ("ssl00=null", "is no name for a serial line"),
                      ("con9999999=pts", "is no name for a console"), ("gdb=nothing", "is no address for a gdb server")):
        result = cowbird("convert", "--", "quiet", word)
        equal(result.returncode, 1, f"status for {word}")
        contains(result.stderr, f'word 2, "{word}": error: ')
        contains(result.stderr, why)
        equal(result.stdout, b"", "standard output")
    # What another host may have converts all the same.
    for word in ("tty_log_dir=/nowhere", "tty_log_fd=77", "con1=fd:77", "mconsole=notify:/nowhere", "init=/nowhere"):
        equal(cowbird("convert", "--", word).returncode, 0, word)


@test
def interfaces_are_refused_where_a_guest_would_need_them():
    for line, wanted in LINES:
        if not line.startswith(NETWORK):
            continue
        result = cowbird("boot", "--uml", f"con0=null {line}")
        equal(result.returncode, 1, f"status for {line}")
        contains(result.stderr, 'word 2, "', line)
        contains(result.stderr, "Nothing was started.", line)
        if not wanted.startswith("!"):
            contains(result.stderr, "plugin", line)  # the reason: the transport is not there


@test
def files_convert_both_ways(scratch):
    (scratch / "start.txt").write_text("./linux mem=96M umid=both \\\n  con0=fd:0,fd:1 con=pts # consoles\n'a word'\n")
    result = cowbird("convert", scratch / "start.txt")
    equal(result.returncode, 0, result.stderr.decode())
    (scratch / "both.toml").write_bytes(result.stdout)
    equal(cowbird("check", scratch / "both.toml").returncode, 0, "the machine file is right")
    back = cowbird("convert", scratch / "both.toml")
    equal(back.stdout.decode(), "umid=both mem=96M con0=fd:0,fd:1 con=pts -- 'a word'\n")
    again = cowbird("convert", "-", stdin=back.stdout)
    equal(again.stdout, result.stdout, "the file after a round trip")
    equal(cowbird("convert", "--to", "uml", "-", stdin=result.stdout).stdout, back.stdout)


@test
def errors_have_their_place(scratch):
    (scratch / "wrong.txt").write_text("mem=64M\n  ubd0= con0=nosuch\n")
    result = cowbird("convert", scratch / "wrong.txt")
    equal(result.returncode, 1, "exit status")
    contains(result.stderr, "wrong.txt:2:3: error: The file is missing")
    contains(result.stderr, "wrong.txt:2:9: error: ")
    (scratch / "wrong.toml").write_text('[machine]\nname = "x"\nstrace = true\n')
    result = cowbird("convert", scratch / "wrong.toml")
    equal(result.returncode, 1, "exit status")
    contains(result.stderr, "wrong.toml:3:1: error: UML has no word")
    equal(cowbird("convert").returncode, 2, "status without anything")
    equal(cowbird("convert", scratch / "none.txt").returncode, 1, "status without the file")


@test
def a_uml_line_boots(scratch):
    image = scratch / "disk image"
    image.write_bytes(b"from the host\n".ljust(4096, b"\0"))
    logs = scratch / "logs"
    logs.mkdir()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(scratch / "notify"))
    listener.settimeout(60)
    line = (f"mem=64M umid=fromuml ncpus=2 'ubd0r={image}' con0=fd:0,fd:1 quiet COLOUR=blue "
            f"mconsole=notify:{scratch}/notify tty_log_dir={logs}")
    with listener, Terminal([COWBIRD, "boot", "--uml", line]) as terminal:
        prompt_of(terminal)
        terminal.type("hostname; nproc; head -n 1 /dev/ubda; cat /proc/1/environ | tr '\\0' ' '; echo; cat /proc/cmdline\n")
        for part in ("fromuml", "2\r\n", "from the host", "COLOUR=blue", "COLOUR=blue"):
            terminal.expect(part)
        terminal.type("poweroff\n")
        equal(terminal.wait(), 0, "exit status")
        contains(listener.recv(4096)[16:], "/fromuml/mconsole", "the notification")
    log = next(logs.glob("*tty0.cast")).read_text()
    contains(log, "from the host", "the terminal's log")


@test
def words_of_init_reach_it():
    with Terminal([COWBIRD, "boot", "--uml", "init=/bin/busybox HOME=/tmp quiet printk.time=1", "--", "sh", "-c",
                   "tr '\\0' ' ' < /proc/1/cmdline; echo; echo home=$HOME; mount -t proc proc /proc; cat /proc/cmdline; "
                   "poweroff -f"]) as terminal:
        terminal.expect("home=/tmp")
        terminal.expect("printk.time=1")
        equal(terminal.wait(), 0, "exit status")


@test
def the_kernel_log_goes_to_standard_error():
    result = cowbird("boot", "--uml", "stderr=1 con0=null init=/bin/busybox", "--", "poweroff", "-f")
    equal(result.returncode, 0, "exit status")
    contains(result.stderr, "Command line: ")


@test
def what_cannot_boot_says_so():
    for line, part in (("mem=1M", 'word 1, "mem=1M": error: "memory" is 1M'),
                       ("con0=null eth0=mcast", 'word 2, "eth0=mcast": error: '),
                       ("ubd0=/dev/null root=/dev/ubda", "cannot mount the block device"),
                       ("'con0=null", "not closed")):
        result = cowbird("boot", "--uml", line)
        equal(result.returncode, 1, f"status for {line}")
        contains(result.stderr, part)
        contains(result.stderr, "Nothing was started.")
    result = cowbird("boot", "--uml", "con0=null ubd0=/nowhere/x.img")
    equal(result.returncode, 1, "status without the image")
    contains(result.stderr, 'word 2, "ubd0=/nowhere/x.img": ubda (file): The image /nowhere/x.img does not exist.')
    # What is for all lines is looked at too, before the guest opens the first of them.
    result = cowbird("boot", "--uml", "con0=null con=fd:77 init=/bin/true")
    equal(result.returncode, 1, "status with a descriptor that is not open")
    contains(result.stderr, 'word 2, "con=fd:77": con* (fd): The host file descriptor 77 (key "input") is not open.')
    result = cowbird("boot", "--uml", "con0=null ssl=null,xterm xterm=emulator init=/bin/true")
    equal(result.returncode, 1, "status with half of an emulator")
    contains(result.stderr, '"emulator" is no terminal emulator')
    result = cowbird("boot", "--uml", "con0=null init=/nowhere")
    equal(result.returncode, 1, "status without init")
    contains(result.stderr, "/nowhere cannot be run in the guest")
    equal(cowbird("boot").returncode, 2, "status without a machine")
    equal(cowbird("boot", "x.toml", "--uml", "mem=64M").returncode, 2, "status with two machines")
    equal(cowbird("boot", "x.toml", "--log", "x").returncode, 2, "status of --log alone")


@test
def a_daemon_is_listed_attached_to_and_ended(scratch):
    image = scratch / "disk.img"
    image.write_bytes(bytes(1 << 20))
    guests = scratch / "guests"
    environment = {"COWBIRD_DIR": str(guests)}
    result = cowbird("ls", environment=environment)
    equal((result.returncode, result.stdout), (0, b""), "ls without guests")
    contains(result.stderr, "No guest runs")
    equal(cowbird("ls", "--json", environment=environment).stdout, b"[]\n")
    result = cowbird("boot", "--daemon", "--uml", f"umid=house mem=64M quiet ubd0={image}", environment=environment)
    equal(result.returncode, 0, result.stderr.decode())
    contains(result.stdout, "house runs as process ")
    guest = running(guests)["house"]
    try:
        check(0 < guest["memory_used"] < 64 << 20, f"memory used: {guest['memory_used']}")
        equal(guest["memory_size"], 64 << 20, "memory")
        equal(guest["file"], None, "machine file")
        contains(json.dumps(guest["disks"]), str(image))
        check(os.getsid(guest["pid"]) == guest["pid"], "not a session of its own")
        for number in (0, 1, 2):
            equal(os.readlink(f"/proc/{guest['pid']}/fd/{number}"), "/dev/null", f"descriptor {number}")
        table = cowbird("ls", environment=environment).stdout.decode().splitlines()
        equal(table[0].split(), ["NAME", "PID", "UPTIME", "MEMORY", "DISKS", "NETWORK", "CONSOLES"])
        equal(table[1].split()[:2], ["house", str(guest["pid"])])
        equal(cowbird("ls", "--names", environment=environment).stdout, b"house\n")
        socket = guests / "house" / "console"
        before = changed(socket)
        with Terminal([COWBIRD, "console", "house"], environment=environment) as terminal:
            terminal.expect("leaves it")
            terminal.type("\n")
            prompt_of(terminal)
            terminal.type("reboot\n")  # the same process, and still a daemon
            terminal.expect("The guest starts again")
            equal(terminal.wait(), 0, "exit status")
        end = time.monotonic() + 30
        while changed(socket) in (None, before):
            check(time.monotonic() < end, "the guest did not come back")
            time.sleep(0.1)
        with Terminal([COWBIRD, "console", str(guest["pid"])], environment=environment) as terminal:
            terminal.type("\n")
            prompt_of(terminal)
            terminal.type("poweroff\n")
            terminal.expect("The guest has ended")
        gone(guest["pid"])
        equal(running(guests), {}, "guests at the end")
    finally:
        try:
            os.kill(guest["pid"], signal.SIGKILL)
        except OSError:
            pass


@test
def two_guests_from_one_machine(scratch):
    environment = {"COWBIRD_DIR": str(scratch / "guests")}
    words = ("boot", "--daemon", EXAMPLES / "hello.toml")
    equal(cowbird(*words, environment=environment).returncode, 0, "exit status of the first")
    try:
        pid = running(scratch / "guests")["hello"]["pid"]
        result = cowbird(*words, environment=environment)
        equal(result.returncode, 1, "exit status of the second")
        contains(result.stderr, f'A guest named "hello" is running already: process {pid}')
        # What it says helps.
        contains(result.stderr, "(cowbird mconsole hello halt)")
        contains(result.stderr, "--set machine.name=OTHER")
        equal(cowbird(*words, "--set", "machine.name=OTHER", environment=environment).returncode, 0, "exit status of another")
        equal(sorted(running(scratch / "guests")), ["OTHER", "hello"])
        for name in ("OTHER", "hello"):
            equal(cowbird("mconsole", name, "halt", environment=environment).returncode, 0, "exit status of halt")
        gone(pid)
        equal(cowbird(*words, environment=environment).returncode, 0, "exit status when the name is free again")
    finally:
        for guest in running(scratch / "guests").values():
            os.kill(guest["pid"], signal.SIGKILL)


@test
def a_daemon_that_cannot_start_says_why(scratch):
    environment = {"COWBIRD_DIR": str(scratch / "guests")}
    result = cowbird("boot", "--daemon", "--uml", "init=/nowhere", environment=environment)
    equal(result.returncode, 1, "exit status")
    contains(result.stderr, "/nowhere")
    result = cowbird("boot", "--daemon", "--log", scratch, "--uml", "mem=64M", environment=environment)
    equal(result.returncode, 1, "exit status")
    contains(result.stderr, "cannot be written")
    log = scratch / "log"
    result = cowbird("boot", "--daemon", "--log", log, "--uml", "umid=loud stderr=1 init=/bin/sh", "--", "-c",
                     "sleep 1; echo c > /proc/sysrq-trigger || { mount -t proc proc /proc; echo c > /proc/sysrq-trigger; }",
                     environment=environment)
    equal(result.returncode, 0, result.stderr.decode())
    end = time.monotonic() + 30
    while "panic" not in log.read_text().lower():
        check(time.monotonic() < end, "the log has no panic")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
