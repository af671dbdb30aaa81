#!/usr/bin/env python3
"""A mounted host directory: nothing outside of it can be reached, by no path and no trick."""
import os
import subprocess
import threading

from harness import COWBIRD, check, equal, main, output_of, shell, test

SECRET = "the host's secret\n"


def prepared(scratch):
    """A directory to mount, beside a secret that must stay unread and unchanged."""
    shared = scratch / "shared"
    shared.mkdir()
    (scratch / "secret").write_text(SECRET)
    (scratch / "outside").mkdir()
    return shared, ["--mount", f"{shared}:/m"]


def unharmed(scratch):
    equal((scratch / "secret").read_text(), SECRET, "the file outside")
    equal(os.listdir(scratch / "outside"), [], "the directory outside")
    equal(sorted(os.listdir(scratch)), ["outside", "secret", "shared"], "what is beside the directory")


@test
def dot_dot_stays_inside(scratch):
    shared, options = prepared(scratch)
    (shared / "dir").mkdir()
    result = shell("cat /m/../secret /m/dir/../../secret /m/./.././secret; cd /m/dir; cat ../../secret;"
                   " ls /m/..; echo x > /m/../outside/new", options)
    check(SECRET.encode() not in result.stdout, "the secret was read")
    check(b"outside" not in result.stdout, "the directory's parent was listed")
    unharmed(scratch)


@test
def absolute_symlinks_mean_the_guests_root(scratch):
    shared, options = prepared(scratch)
    (shared / "link").symlink_to(scratch / "secret")
    (shared / "dir").symlink_to(scratch)
    (shared / "root").symlink_to("/")
    result = shell(f"cat /m/link; cat /m/dir/secret; cat /m/root{scratch}/secret; echo x > /m/link;"
                   " echo x > /m/dir/outside/new", options)
    check(SECRET.encode() not in result.stdout, "the secret was read")
    unharmed(scratch)


@test
def relative_symlinks_stay_inside(scratch):
    shared, options = prepared(scratch)
    (shared / "link").symlink_to("../secret")
    (shared / "far").symlink_to("../../../../../../../../../../etc/shadow")
    (shared / "dir").symlink_to("../outside")
    result = shell("cat /m/link /m/far; echo x > /m/link; echo x > /m/dir/new; mkdir /m/dir/d", options)
    check(SECRET.encode() not in result.stdout and b"root:" not in result.stdout, "a file outside was read")
    unharmed(scratch)


@test
def symlinks_made_by_the_guest_stay_inside(scratch):
    _, options = prepared(scratch)
    result = shell(f"ln -s ../secret /m/a; ln -s {scratch}/secret /m/b; ln -s .. /m/c; ln -s /proc/self/root /m/d;"
                   f" cat /m/a /m/b /m/c/secret /m/d{scratch}/secret; echo x > /m/a; echo x > /m/c/outside/new", options)
    check(SECRET.encode() not in result.stdout, "the secret was read")
    unharmed(scratch)


@test
def renames_and_links_do_not_leave(scratch):
    shared, options = prepared(scratch)
    (shared / "file").write_text("inside")
    shell("mv /m/file /m/../outside/file; ln /m/file /m/../outside/hard; mkdir /m/d; mv /m/d /m/../outside/d;"
          " ln -s ../outside /m/out; mv /m/file /m/out/file; ln /m/file /m/out/hard; rmdir /m/out; rm -r /m/out/.", options)
    unharmed(scratch)


@test
def directories_swapped_for_links_while_walking(scratch):
    """The host side exchanges a directory and a symlink to the outside; the guest walks through it."""
    shared, options = prepared(scratch)
    (shared / "a").mkdir()
    (shared / "a" / "secret").write_text("harmless\n")
    os.symlink(scratch, shared / "b")
    stop = threading.Event()

    def exchange():
        while not stop.is_set():
            os.rename(shared / "a", shared / "t")
            os.rename(shared / "b", shared / "a")
            os.rename(shared / "t", shared / "b")

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        result = shell("i=0; while [ $i -lt 3000 ]; do read x < /m/a/secret && echo \"$x\"; i=$((i+1)); done 2>/dev/null",
                       options, timeout=120)
    finally:
        stop.set()
        thread.join()
    check(SECRET.strip().encode() not in result.stdout, "the secret was read in a race")


@test
def guest_moves_a_directory_while_another_process_is_below(scratch):
    _, options = prepared(scratch)
    result = shell("mkdir -p /m/a/b/c /m/x; cd /m/a/b/c; (i=0; while [ $i -lt 500 ]; do mv /m/a/b /m/x/b; mv /m/x/b /m/a/b;"
                   " i=$((i+1)); done) & i=0; while [ $i -lt 500 ]; do cat ../../../../secret; i=$((i+1)); done 2>/dev/null;"
                   " wait", options, timeout=120)
    check(SECRET.encode() not in result.stdout, "the secret was read")
    unharmed(scratch)


@test
def devices_and_fifos_of_the_host_are_not_opened(scratch):
    shared, options = prepared(scratch)
    os.mkfifo(shared / "fifo")
    if os.geteuid() == 0:
        try:
            os.mknod(shared / "mem", 0o020666, os.makedev(1, 1))
        except OSError:
            pass
    result = shell("timeout 2 sh -c 'echo x > /m/fifo' & sleep 0.3; head -c 16 /m/mem | wc -c; mknod /m/new c 1 1;"
                   " head -c 16 /m/new | wc -c; true", options, timeout=60)
    check(b"16" not in result.stdout, f"a device of the host was read: {result.stdout!r}")
    unharmed(scratch)


@test
def the_guest_cannot_choose_another_directory(scratch):
    _, options = prepared(scratch)
    result = shell(f"mkdir /n; mount -t hostfs {scratch} /n; mount -t hostfs -o {scratch} none /n; mount -t hostfs / /n;"
                   " ls /n; cat /n/secret", options)
    check(b"secret" not in result.stdout, "another host directory was mounted")


@test
def set_id_and_owner_tricks_do_not_harm_the_host(scratch):
    shared, options = prepared(scratch)
    output_of("cp /bin/busybox /m/tool; chmod 6755 /m/tool; true", options)
    check((shared / "tool").stat().st_uid == os.geteuid(), "the file belongs to somebody else")
    unharmed(scratch)


@test
def a_mount_that_went_is_no_crash_for_who_is_in_it(scratch):
    shared, options = prepared(scratch)
    (shared / "dir").mkdir()
    equal(output_of("cd /m/dir; umount -l /m; cd /; ls /m; echo alive", options), "alive\n")
    unharmed(scratch)


@test
def removed_directory_is_an_error_not_a_crash(scratch):
    shared, options = prepared(scratch)
    guest = subprocess.Popen([COWBIRD, "run", *options, "--", "/bin/busybox", "sh", "-c",
                              "cd /m; echo ready; read x; ls /m; echo x > /m/new; pwd; echo alive"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        equal(guest.stdout.readline(), b"ready\n")
        shared.rmdir()
        check(b"alive" in guest.communicate(b"\n", timeout=30)[0], "the guest did not go on")
    finally:
        guest.kill()
        guest.wait()


if __name__ == "__main__":
    main()
