#!/usr/bin/env python3
"""debug/README.md shows what happens: its commands are typed into a shell and a real gdb, and what comes out is compared.

    debug_tutorial.py            compare; exit status 1 when the tutorial is wrong
    debug_tutorial.py --update   write what came out into the tutorial, where it differs

A ```toml block whose first line is `# NAME.toml` is that file. All ```console blocks are one session in the
directory with these files: lines after `$ ` are for the shell, lines after `(gdb) ` for gdb, and the lines behind
each are its output, all of it. Runs of digits and runs of spaces count as equal; `...` stands for anything in a
line, and alone on a line for any number of lines. After a command that ends with `> FILE.log &` the next one waits
until the guest has written "ready" into that file.
"""
import importlib.machinery
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import COWBIRD, LIMIT, SOURCE, Skip, check, main, processes_of, test

DOCUMENT = SOURCE / "debug" / "README.md"
FILE = re.compile(r"^# (\w+\.toml)$", re.M)
LOG = re.compile(r"> (\w+\.log)\b.*&$")
PROMPTS = ("$ ", "(gdb) ")
MAX_LINE = 150


def load_documents():
    path = str(SOURCE / "tests" / "e2e" / "documents")
    loader = importlib.machinery.SourceFileLoader("documents", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("documents", loader))
    loader.exec_module(module)
    return module


documents = load_documents()


class Session(documents.Terminal):
    """The shell, in which gdb is started. Both prompts end what was typed before."""

    def __init__(self, directory):
        os.environ["PATH"] = f"{COWBIRD.parent}:{os.environ['PATH']}"
        os.environ["COWBIRD_DIR"] = f"{directory}/run"
        super().__init__(str(directory))
        os.set_blocking(self.fd, True)
        documents.fcntl.ioctl(self.fd, documents.termios.TIOCSWINSZ, documents.struct.pack("HHHH", 9999, 999, 0, 0))
        self.wait_for(PROMPTS[0])
        # The terminal's environment is as small as that of the other documents.
        for line in (f"export COWBIRD={COWBIRD} SCRIPT={SOURCE}/debug/cowbird-gdb.py", f"export COWBIRD_DIR={directory}/run", "export COLUMNS=999 LINES=9999"):
            self.command(line)

    def wait_for_any(self):
        end = time.monotonic() + LIMIT
        while True:
            text = "\n" + self.text[self.mark:]
            for prompt in PROMPTS:
                if text.endswith("\n" + prompt):
                    return prompt
            if time.monotonic() > end or not self.read():
                raise documents.Wrong("no prompt came; the end of the output is:\n"
                                      + "\n".join(self.text.splitlines()[-12:]))

    def command(self, line):
        """Types it; the lines that come out."""
        self.type(line)
        prompt = self.wait_for_any()
        shown = self.text[self.mark:]
        return shown[:len(shown) - len(prompt)].split("\n")[1:-1]  # without the echo


# --- what counts: not what depends on how the program was compiled or where it lies

SOURCE_FILE = re.compile(r"(?:[\w.+-]*/)*((?:core|plugins|debug|sdk)/[\w./+-]+\.\w+)")
FRAME = re.compile(r"^\s*#\d+ ")
THREAD = re.compile(r'^[* ]*\d* *Thread \S+ ("[^"]*" \([^)]*\))')
# A stop in a frame, with or without its breakpoint; the arguments and the place in the file are the compiler's.
STOP = re.compile(r"^(.*hit (?:Temporary b|B)reakpoint \d+, |0x\w* in |Run till exit from #\d+ +(?:0x\w* in )?)?([\w:~]+) \(.*$")
NOISE = re.compile(r"^(\[New Thread|\[Switching to|warning: |\(No debugging symbols|\(More stack frames|  Id +Target Id"
                   r"|\d+\t\.\./sysdeps|.*\(host\))")


def function_of(text):
    """The name in a frame's line, without name spaces, arguments and templates, and without what only those
    see who have libc6-dbg: __GI___nanosleep is nanosleep."""
    text = re.sub(r"^\s*#\d+ +(0x\S* )?(in )?", "", text).replace("(anonymous namespace)::", "")
    name = re.split(r"[(<+]| at | from |\.\.\.", text)[0].strip()
    return re.sub(r"^__(GI_)?_*|_impl$", "", name.rsplit("::", 1)[-1])


def plain(line):
    """A line without what differs between builds."""
    line = SOURCE_FILE.sub(r"\1", line).replace("(anonymous namespace)::", "")
    line = re.sub(r"0x[0-9a-f.]*", "0x", line)
    line = re.sub(r"^((?:Temporary b|B)reakpoint \d+ at 0x).*$", r"\1", line)
    line = re.sub(r"(, line|:)\d+\.?$", r"\1", line)
    found = STOP.match(line)
    if found:
        return "stop " + (found.group(1) or "").replace("0x in ", "") + found.group(2).rsplit("::", 1)[-1]
    return line


def items(lines):
    """What is compared: texts, "..." for any number of them, and lists of frames and of threads."""
    found = []
    for line in lines:
        if NOISE.match(line):
            continue
        if FRAME.match(line):
            kind, value = "frames", function_of(line)
        elif THREAD.match(line):
            kind, value = "threads", documents.normal(THREAD.match(line).group(1))
        elif re.match(r"^\d+\t", line):
            kind, value = "source", ""
        else:
            found.append(("any", None) if line == "..." else ("line", plain(line)))
            continue
        if kind == "source" or not found or found[-1][0] != kind:
            found.append((kind, []))
        found[-1][1].append(value)
    # An empty line says nothing, nor do dots between rows of threads.
    found = [item for item in found if item != ("line", "")]
    for i in range(len(found) - 2, 0, -1):
        if [kind for kind, _ in found[i - 1:i + 2]] == ["threads", "any", "threads"]:
            found[i - 1:i + 2] = [("threads", found[i - 1][1] + found[i + 1][1])]
    return found


def in_common(wanted, got):
    """How many of the wanted are there, in that order."""
    lengths = [0] * (len(got) + 1)
    for name in wanted:
        before = lengths[:]
        for i, other in enumerate(got):
            lengths[i + 1] = max(lengths[i], before[i + 1], before[i] + (name == other))
    return lengths[-1]


def item_matches(wanted, got):
    kind, value = wanted
    if got[0] != kind:
        return False
    if kind == "source":
        return True
    if kind == "frames":
        # Inlining makes frames come and go, but the way through the kernel is the same.
        return value[0] in got[1] and 2 * in_common(value, got[1]) >= len(value)
    if kind == "threads":
        return all(any(line_matches(each, other) for other in got[1]) for each in value)
    return line_matches(value, got[1])


def items_match(wanted, got):
    if not wanted:
        return not got
    if wanted[0][0] == "any":
        return any(items_match(wanted[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and item_matches(wanted[0], got[0]) and items_match(wanted[1:], got[1:])


def matches(wanted, got):
    """Whether these lines show that output."""
    return items_match(items(wanted), items(got))


def line_matches(wanted, got):
    pattern = ".*".join(re.escape(documents.normal(" " + part + " ")) if part.strip() else ""
                        for part in re.split(r"\.{3}(?!\.)", wanted))
    # A space beside the dots may or may not be there.
    pattern = pattern.replace(r"\ .*", ".*").replace(r".*\ ", ".*")
    return re.fullmatch(pattern, documents.normal(got)) is not None


def general(line, directory):
    """An output line as the tutorial writes it."""
    line = line.replace(str(directory), "...").replace(str(COWBIRD.parent), "...").replace(str(SOURCE), "...")
    line = re.sub(r"\b0x[0-9a-f]{5,}", "0x...", line).rstrip()
    return line if len(line) <= MAX_LINE else line[:MAX_LINE - 3] + "..."


def shortened(lines):
    """Without what says more of the host than of the guest: its libraries, its threads."""
    cut = next((i for i, line in enumerate(lines) if line.startswith("Reading symbols from /")), None)
    if cut is not None:
        return lines[:cut] + ["..."]
    shown = []
    for line in lines:
        if "(host)" in line or line.startswith("[New Thread"):
            line = "..."
        if not (line == "..." and shown[-1:] == ["..."]):
            shown.append(line)
    return shown


def commands_of(block):
    """(prompt, command, output lines) of each command of a console block."""
    found = []
    for line in block.splitlines():
        prompt = next((p for p in PROMPTS if (line + " ").startswith(p)), None)
        if prompt:
            found.append((prompt, line[len(prompt):], []))
        elif not found:
            raise documents.Wrong(f"the block begins with {line!r}, which is no command")
        else:
            found[-1][2].append(line)
    return found


def await_guest(log):
    end = time.monotonic() + LIMIT
    while not (log.exists() and "ready" in log.read_text(errors="replace")):
        if time.monotonic() > end:
            raise documents.Wrong(f"the guest did not write \"ready\" into {log.name}")
        time.sleep(0.05)


def replay(text, directory):
    """Types all; the document as it should be, and what is wrong in it."""
    session, wrong, pieces, last = Session(directory), [], [], 0
    try:
        for block in documents.BLOCK.finditer(text):
            if block.group(1) == "toml" and FILE.match(block.group(2)):
                (directory / FILE.match(block.group(2)).group(1)).write_text(block.group(2))
            if block.group(1) != "console":
                continue
            lines = []
            for prompt, command, wanted in commands_of(block.group(2)):
                got = session.command(command)
                if LOG.search(command):
                    await_guest(directory / LOG.search(command).group(1))
                if not matches(wanted, got):
                    number = text.count("\n", 0, block.start()) + 1
                    wrong.append(f"{DOCUMENT.name}:{number}: {prompt}{command}\n"
                                 + "\n".join(f"  shows {line}" for line in wanted) + "\n"
                                 + "\n".join(f"  is    {line}" for line in got))
                    wanted = shortened([general(line, directory) for line in got])
                lines += [(prompt + command).rstrip(), *wanted]
            pieces += [text[last:block.start(2)], "".join(line + "\n" for line in lines)]
            last = block.end(2)
    finally:
        # A guest that gdb has started and left is nobody's child any more.
        guests = {int(file.read_text()) for file in directory.glob("run/*/pid")}
        for process in sorted(guests | processes_of(session.pid) - {session.pid}, reverse=True):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        session.close()
    return "".join(pieces) + text[last:], wrong


@test
def the_tutorial_shows_what_happens(scratch):
    if not shutil.which("gdb"):
        raise Skip("gdb is not installed")
    _, wrong = replay(DOCUMENT.read_text(), scratch)
    check(not wrong, "\n".join(wrong))


@test
def its_files_and_links_are_good(scratch):
    text = DOCUMENT.read_text()
    for link in documents.LINK.finditer(text):
        check((DOCUMENT.parent / link.group(1)).exists(), f"there is no file {link.group(1)}")
    for block in documents.BLOCK.finditer(text):
        if block.group(1) == "toml":
            documents.check_toml(block.group(2), COWBIRD, scratch)


@test
def a_wrong_transcript_is_found():
    got = ["Continuing.", "[New Thread 1.2]", "", 'Thread 4 "sh/1" hit Breakpoint 12, cowbird::f (x=0x7ffe) at /a/core/b.cpp:70',
           "70\t  g();", "#0  cowbird::f (x=0x7ffe) at ../../core/b.cpp:70",
           "#1  0x00005 in cowbird::(anonymous namespace)::inlined<int> (y=...) at /a/core/c.hpp:4",
           "#2  cowbird::main_part (argc=1) at ../../core/d.cpp:7", '$1 = "sh"']
    stop = 'Thread 4 "sh/1" hit Breakpoint 1, cowbird::f (x=...) at ../../core/b.cpp:71'
    frames = ["#0  cowbird::f (x=0x...) at ../../core/b.cpp:70", "#1  0x... in cowbird::main_part (argc=<optimized out>) at ..."]
    shown = ["Continuing.", stop, "71\t  h();", *frames, '$1 = "sh"']
    for good in (got, ["...", '$1 = "sh"'], shown, ["...", *frames, "..."]):
        check(matches(good, got), f"{good} is right")
    for bad in (got[:3], ["..."] + got[:3], got + ["more"], [*shown[:-1], '$1 = "cat"'], [], [shown[0], *shown[2:]],
                [shown[0], stop.replace("::f", "::g"), *shown[2:]], [shown[0], stop, shown[2], "#0  cowbird::g () at x", *shown[4:]],
                [shown[0], stop, shown[2], frames[0], "#1  cowbird::other ()", "#2  cowbird::third ()", '$1 = "sh"']):
        check(not matches(bad, got), f"{bad} is wrong")
    rows = ['* 4    Thread 1.3 "sh/1" (running on vcpu 0, system call clone) 0x5 in f ()', '  7    Thread 1.4 "sh/2" (ready) g ()',
            '  8    Thread 1.9 "irq (host)" (host thread) h ()']
    check(matches(rows[:1], rows) and matches(['  1 Thread 2.9 "sh/2" (ready) i ()'], rows), "rows of threads are right")
    check(not matches(['  1 Thread 2.9 "sh/2" (sleeping in x) i ()'], rows), "a row of threads is wrong")


def update():
    with tempfile.TemporaryDirectory(prefix="cowbird-tutorial-") as scratch:
        text, wrong = replay(DOCUMENT.read_text(), Path(scratch))
    DOCUMENT.write_text(text)
    print(f"{len(wrong)} commands have other output now")


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        update()
    else:
        main()
