#!/usr/bin/env python3
"""`cowbird check`, `cowbird plugin` and what `boot` says about files that are wrong."""
import re

from harness import EXAMPLES, check, contains, cowbird, equal, main, test


def check_text(scratch, text, *words):
    """`check` of a machine file with this text."""
    file = scratch / "machine.toml"
    file.write_text(text)
    return cowbird("check", file, *words)


def refused(scratch, text, *parts):
    """The file must be refused, by check and by boot, with these words in the message."""
    result = check_text(scratch, text)
    equal(result.returncode, 1, f"status of check for {text!r}")
    for part in parts:
        contains(result.stderr, part, "the message")
    booted = cowbird("boot", scratch / "machine.toml", timeout=20)
    equal(booted.returncode, 1, "status of boot")
    contains(booted.stderr, parts[0], "boot's message")
    return result.stderr.decode()


@test
def every_example_is_right():
    for file in sorted(EXAMPLES.glob("*.toml")):
        if file.name == "disk.toml":  # names an image that its first lines tell how to make
            continue
        result = cowbird("check", file)
        equal((file.name, result.returncode), (file.name, 0), result.stderr.decode())
        contains(result.stdout, file.stem, "what would be started")


@test
def empty_file_is_right(scratch):
    equal(check_text(scratch, "").returncode, 0, "exit status")


@test
def unknown_key_has_its_place_and_a_near_match(scratch):
    message = refused(scratch, '[machine]\nname = "x"\nmemry = "64M"\n', "memry", "memory")
    check(re.search(r"machine\.toml:3:1\b", message), f"no file:line:column in: {message}")


@test
def unknown_table_is_refused(scratch):
    refused(scratch, "[machin]\n", "machin", "machine")


@test
def wrong_type_is_refused(scratch):
    message = refused(scratch, '[machine]\nvcpus = "two"\n', "vcpus")
    check(":2:" in message, message)


@test
def wrong_sizes_are_refused(scratch):
    for size in ('"12Q"', '"-5M"', '""', '"99999999999999G"', "-1"):
        refused(scratch, f"[machine]\nmemory = {size}\n", "memory")


@test
def syntax_error_has_its_place(scratch):
    message = refused(scratch, '[machine]\nname = "open\n', "machine.toml:2")
    check(message.strip(), "no message")


@test
def same_name_twice_is_refused(scratch):
    refused(scratch, '[[console]]\nname = "con0"\nplugin = "null"\n[[console]]\nname = "con0"\nplugin = "null"\n', "con0")


@test
def all_errors_are_shown(scratch):
    result = check_text(scratch, '[machine]\nmemry = 1\nvcpus = "two"\n[[block]]\nname = "ubd0"\nplugin = "flie"\n')
    equal(result.returncode, 1, "exit status")
    for part in ("memry", "vcpus", "flie"):
        contains(result.stderr, part, "the messages")


@test
def missing_plugin_names_the_near_one(scratch):
    refused(scratch, '[[block]]\nname = "ubd0"\nplugin = "flie"\npath = "x"\n', "flie", "file")


@test
def missing_image_is_refused(scratch):
    result = cowbird("boot", write(scratch, '[[block]]\nname = "ubd0"\nplugin = "file"\npath = "missing.img"\n'), timeout=20)
    equal(result.returncode, 1, "exit status")
    contains(result.stderr, "missing.img")


def write(scratch, text):
    file = scratch / "machine.toml"
    file.write_text(text)
    return file


@test
def missing_key_of_a_plugin_is_refused(scratch):
    refused(scratch, '[[block]]\nname = "ubd0"\nplugin = "file"\n', "path")


@test
def missing_file_is_refused(scratch):
    for command in ("check", "boot"):
        result = cowbird(command, scratch / "no.toml")
        equal(result.returncode, 1, "exit status")
        contains(result.stderr, "no.toml")


@test
def settings_on_the_command_line(scratch):
    file = write(scratch, "")
    result = cowbird("check", file, "--set", "machine.memory=96M", "--set", "machine.name=fromset")
    equal(result.returncode, 0, result.stderr.decode())
    contains(result.stdout, "fromset")
    wrong = cowbird("check", file, "--set", "machine.memry=96M")
    equal(wrong.returncode, 1, "exit status")
    contains(wrong.stderr, "memory")


@test
def broken_plugins_have_their_own_messages(scratch):
    plugins = scratch / "plugins"
    plugins.mkdir()
    (plugins / "junk.so").write_text("no plugin at all")
    result = cowbird("plugin", "list", "--path", plugins)
    contains(result.stdout + result.stderr, "junk.so", "the list")
    show = cowbird("plugin", "show", plugins / "junk.so")
    equal(show.returncode, 1, "exit status of show")
    contains(show.stderr, "junk.so")


@test
def plugins_are_listed_and_shown():
    listed = cowbird("plugin", "list")
    equal(listed.returncode, 0, "exit status")
    for name in ("fd", "null", "file"):
        contains(listed.stdout, name, "the list")
        shown = cowbird("plugin", "show", name)
        equal(shown.returncode, 0, f"exit status of show {name}")
    contains(cowbird("plugin", "show", "file").stdout, "path")
    missing = cowbird("plugin", "show", "flie")
    equal(missing.returncode, 1, "exit status for a missing one")
    contains(missing.stderr, "file", "the near match")


@test
def every_command_has_help_with_an_example():
    for command in (["boot"], ["run"], ["check"], ["plugin"], ["plugin", "list"], ["plugin", "show"]):
        result = cowbird(*command, "--help")
        equal(result.returncode, 0, f"status of {command} --help")
        contains(result.stdout, "cowbird " + " ".join(command), "the help")


if __name__ == "__main__":
    main()
