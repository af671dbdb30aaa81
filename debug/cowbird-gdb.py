"""What gdb knows of the Cowbird kernel: pretty printers, functions and commands.

`cowbird gdb` loads this file by itself; in any other gdb: `source debug/cowbird-gdb.py`. Everything
works on types and memory, nothing of the kernel is called, so that it works on core files too.

  $task(PID)      the Task with this number        $current()   the Task of the selected thread
  $sockaddr(TEXT) a network address that the kernel keeps, in words
  cb-ps           guest processes and kernel threads
  cb-dmesg [N]    the kernel log
  cb-mounts       what is mounted where
  cb-sockets      the guest's sockets
  cb-irq          interrupt sources
"""

import gdb
import gdb.printing

MAX_ELEMENTS = 100000
STATES = "RRSDTtXR"  # of ThreadState, the letters of ps(1)


# --- reading containers of libstdc++ and of the kernel

def std_string(value):
    """A std::string, without its printer, which may not be installed."""
    data = value["_M_dataplus"]["_M_p"]
    length = int(value["_M_string_length"])
    if length > 65536:
        return "<a text of %d bytes>" % length
    return data.string("utf-8", "replace", length=length) if length else ""


def pointer_of(value):
    """What a plain pointer, a Ref or a std::unique_ptr points to, as a pointer."""
    kind = value.type.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_PTR:
        return value
    name = kind.name or ""
    if name.startswith("cowbird::Ref<"):
        return value["object_"]
    if name.startswith("cowbird::FileRef"):
        return value["file_"]
    if name.startswith("std::unique_ptr<"):
        # The address is the only data member: whatever the library calls what is around it.
        target = kind.template_argument(0)
        return value.address.cast(target.pointer().pointer()).dereference()
    raise gdb.GdbError("%s is no pointer" % kind)


def vector(value):
    start, end = value["_M_impl"]["_M_start"], value["_M_impl"]["_M_finish"]
    count = int(end - start)
    if not 0 <= count <= MAX_ELEMENTS:
        raise gdb.GdbError("a vector of %d elements" % count)
    for i in range(count):
        yield (start + i).dereference()


def list_objects(value):
    """The objects of a cowbird::List, as pointers. The second argument of its type says which member
    links them; gdb gives it as that member's offset."""
    kind = value.type.strip_typedefs()
    element = kind.template_argument(0)
    offset = link_offset(kind)
    head = value["head_"].address
    node, seen = value["head_"]["next_"], 0
    char = gdb.lookup_type("char").pointer()
    while node != head and int(node) != 0 and seen < MAX_ELEMENTS:
        yield (node.cast(char) - offset).cast(element.pointer())
        node, seen = node["next_"], seen + 1


def link_offset(kind):
    try:
        return int(kind.template_argument(1))
    except (RuntimeError, gdb.error, ValueError, TypeError):
        pass
    # "cowbird::List<cowbird::Thread, &cowbird::Thread::all_link>", or with the offset as a number.
    text = str(kind).rsplit(",", 1)[1].rstrip("> ").strip()
    if text.startswith("(") and ")" in text:
        text = text.rsplit(")", 1)[1].strip()
    if text.lstrip("-").isdigit():
        return int(text)
    member = text.rsplit("::", 1)[1]
    for field in kind.template_argument(0).fields():
        if field.name == member:
            return field.bitpos // 8
    raise gdb.GdbError("%s does not say by what it links" % kind)


def tree_nodes(value):
    """The values of a std::map, in order."""
    header = value["_M_t"]["_M_impl"]["_M_header"]
    count = int(value["_M_t"]["_M_impl"]["_M_node_count"])
    if count > MAX_ELEMENTS:
        raise gdb.GdbError("a map of %d elements" % count)
    way, node = [], header["_M_parent"]
    while (int(node) != 0 or way) and count > 0:
        while int(node) != 0:
            way.append(node)
            node = node["_M_left"]
        node = way.pop()
        count -= 1
        yield node + 1  # the value lies behind the links
        node = node["_M_right"]


def static(name):
    """A static pointer of the kernel, or None while it is null or not there."""
    # Not by an expression: those are in the language of the selected frame, which may be assembler.
    symbol = gdb.lookup_global_symbol(name) or gdb.lookup_static_symbol(name)
    if symbol is None:
        return None
    value = symbol.value()
    return None if int(value) == 0 else value


# --- printers

class ListPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        return "list of %s, %d" % (self.value.type.strip_typedefs().template_argument(0),
                                   sum(1 for _ in list_objects(self.value)))

    def children(self):
        for number, element in enumerate(list_objects(self.value)):
            yield "[%d]" % number, element

    def display_hint(self):
        return "array"


class RefPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        pointer = self.value["object_"]
        if int(pointer) == 0:
            return "empty Ref"
        return "Ref %s" % pointer.format_string(symbols=False)

    def children(self):
        pointer = self.value["object_"]
        if int(pointer) != 0:
            yield "object_", pointer


class ResultPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        if bool(self.value["ok_"]):
            return "ok"
        return "error %s" % str(self.value["error_"]).rsplit("::", 1)[-1]

    def children(self):
        fields = [f.name for f in self.value.type.strip_typedefs().fields()]
        if bool(self.value["ok_"]):
            for field in self.value.type.strip_typedefs().fields():
                if field.name is None:  # the union
                    yield "value_", self.value[field]["value_"]
            if "value_" in fields:
                yield "value_", self.value["value_"]


def dentry_name(dentry):
    parts, depth = [], 0
    while int(dentry) != 0 and depth < 256:
        parent = pointer_of(dentry["parent_"])
        if int(parent) == 0:
            break
        parts.append(std_string(dentry["name_"]))
        dentry, depth = parent, depth + 1
    return parts


def path_name(mount, dentry):
    parts, depth = [], 0
    while int(mount) != 0 and depth < 256:
        parts += dentry_name(dentry)
        parent = pointer_of(mount["parent"])
        if int(parent) == 0:
            break
        dentry, mount, depth = pointer_of(mount["mountpoint"]), parent, depth + 1
    return "/" + "/".join(reversed(parts))


class PathPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        dentry = pointer_of(self.value["dentry"])
        if int(dentry) == 0:
            return "no path"
        return path_name(pointer_of(self.value["mount"]), dentry)


class DentryPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        name = "/" + "/".join(reversed(dentry_name(self.value.address)))
        notes = [n for n in ("unlinked", "anonymous") if bool(self.value[n + "_"])]
        if int(pointer_of(self.value["inode_"])) == 0:
            notes.append("negative")
        return name + ("" if not notes else " (%s)" % ", ".join(notes))

    def children(self):
        yield "inode_", pointer_of(self.value["inode_"])


INODE_KINDS = {0o14: "socket", 0o12: "link", 0o10: "file", 0o6: "block device", 0o4: "directory",
               0o2: "character device", 0o1: "fifo"}


class InodePrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        mode = int(self.value["mode"])
        return "inode %d, %s, mode %o" % (int(self.value["number_"]),
                                          INODE_KINDS.get(mode >> 12, "no type"), mode & 0o7777)


class WaitQueuePrinter:
    def __init__(self, value):
        self.value = value

    def waiters(self):
        for kind in ("shared_", "exclusive_"):
            for entry in list_objects(self.value[kind]):
                yield kind.rstrip("_"), entry

    def to_string(self):
        count = sum(1 for _ in self.waiters())
        return "wait queue, %s" % ("empty" if count == 0 else "%d waiting" % count)

    def children(self):
        thread_type = gdb.lookup_type("cowbird::Thread").pointer()
        for number, (kind, entry) in enumerate(self.waiters()):
            label = "[%d, %s]" % (number, kind)
            if "ThreadWaiter" in str(entry["callback_"]):
                thread = entry["data_"].cast(thread_type)
                yield label, "thread %d \"%s\"" % (int(thread["id_"]) + 1,
                                                   std_string(thread["name_"]))
            else:
                yield label, entry


class SleepMutexPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        name = self.value["wait_channel_"].string()
        if not bool(self.value["held_"]):
            return "%s, free" % name
        owner = self.value["owner_"]
        if int(owner) == 0:
            return "%s, held" % name
        return "%s, held by thread %d \"%s\"" % (name, int(owner["id_"]) + 1,
                                                 std_string(owner["name_"]))


FAMILIES = {1: "unix", 2: "inet", 10: "inet6", 16: "netlink", 17: "packet"}
SOCKET_TYPES = {1: "stream", 2: "dgram", 3: "raw", 5: "seqpacket"}


class SocketPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        family, kind = int(self.value["domain_"]), int(self.value["type_"])
        where = std_string(self.value["shown_address_"])
        return "%s %s socket%s%s" % (FAMILIES.get(family, family), SOCKET_TYPES.get(kind, kind),
                                     ", listening" if bool(self.value["listening_"]) else "",
                                     " at " + where if where else "")


class SockaddrFunction(gdb.Function):
    """$sockaddr(TEXT): a network address as socket(2) has it (a SocketAddress of the kernel, or any
    std::string with a sockaddr in it), in words."""

    def __init__(self):
        super().__init__("sockaddr")

    def invoke(self, value):
        data, length = value["_M_dataplus"]["_M_p"], int(value["_M_string_length"])
        octets = bytes(int(data[i]) & 0xff for i in range(min(length, 128)))
        return sockaddr_text(octets)


def sockaddr_text(octets):
    import ipaddress
    if len(octets) < 2:
        return "no address"
    family = int.from_bytes(octets[:2], "little")
    if family == 1:
        name = octets[2:].rstrip(b"\0") if octets[2:3] != b"\0" else b"@" + octets[3:]
        return "unix %s" % (name.decode("utf-8", "replace") or "(unnamed)")
    if family == 2 and len(octets) >= 8:
        return "%s:%d" % (ipaddress.IPv4Address(octets[4:8]), int.from_bytes(octets[2:4], "big"))
    if family == 10 and len(octets) >= 24:
        return "[%s]:%d" % (ipaddress.IPv6Address(octets[8:24]), int.from_bytes(octets[2:4], "big"))
    return "%s address of %d bytes" % (FAMILIES.get(family, family), len(octets))


def build_printers():
    printers = gdb.printing.RegexpCollectionPrettyPrinter("cowbird")
    add = printers.add_printer
    add("List", "^cowbird::List<.*>$", ListPrinter)
    add("Ref", "^cowbird::Ref<.*>$", RefPrinter)
    add("Result", "^cowbird::Result<.*>$", ResultPrinter)
    add("Path", "^cowbird::Path$", PathPrinter)
    add("Dentry", "^cowbird::Dentry$", DentryPrinter)
    add("Inode", "^cowbird::Inode$", InodePrinter)
    add("WaitQueue", "^cowbird::WaitQueue$", WaitQueuePrinter)
    add("SleepMutex", "^cowbird::SleepMutex$", SleepMutexPrinter)
    add("Socket", "^cowbird::Socket$", SocketPrinter)
    return printers


# --- functions

def all_threads():
    core = static("cowbird::SchedCore::made")
    return [] if core is None else list(list_objects(core["threads"]))


def task_of(thread):
    """The Task that a Thread is, or None for a pure kernel thread."""
    # By its name: as text a type is written in the language of the selected frame.
    if thread.dynamic_type.target().name != "cowbird::Task":
        return None
    return thread.cast(gdb.lookup_type("cowbird::Task").pointer())


class TaskFunction(gdb.Function):
    """$task(PID): the Task of the guest thread with this number, as a pointer."""

    def __init__(self):
        super().__init__("task")

    def invoke(self, number):
        for thread in all_threads():
            task = task_of(thread)
            if task is not None and int(task["tid"]) == int(number):
                return task
        raise gdb.GdbError("There is no guest thread %d; cb-ps lists them." % int(number))


class CurrentFunction(gdb.Function):
    """$current(): the Task of the selected thread; its Thread when it is a pure kernel thread."""

    def __init__(self):
        super().__init__("current")

    def invoke(self):
        selected = gdb.selected_thread()
        if selected is None:
            raise gdb.GdbError("No thread is selected.")
        number = selected.ptid[1] or selected.ptid[2]
        for thread in all_threads():
            if int(thread["id_"]) + 1 == number:
                task = task_of(thread)
                return thread if task is None else task
        raise gdb.GdbError("The selected thread is a host thread, and no kernel thread.")


# --- commands

class Command(gdb.Command):
    """One of ours: the text of the class is its help."""

    name = ""

    def __init__(self):
        super().__init__(self.name, gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        try:
            self.run(gdb.string_to_argv(argument))
        except gdb.MemoryError as error:
            raise gdb.GdbError("The kernel's structures are damaged here: %s" % error)


class PsCommand(Command):
    """cb-ps: guest processes and kernel threads, with what each is doing."""

    name = "cb-ps"

    def run(self, _words):
        print("%5s %5s %6s %s %-16s %s" % ("PID", "TID", "THREAD", "S", "NAME", "WAITS IN"))
        for thread in all_threads():
            task = task_of(thread)
            state = int(thread["state_"])
            letter = STATES[state] if state < len(STATES) else "?"
            channel = thread["wait_channel_"]
            where = channel.string() if int(channel) != 0 else ""
            pid = tid = "-"
            if task is not None:
                process = pointer_of(task["process"])
                pid = "-" if int(process) == 0 else str(int(process["pid"]))
                tid = str(int(task["tid"]))
            print("%5s %5s %6d %s %-16s %s" % (pid, tid, int(thread["id_"]) + 1, letter,
                                               std_string(thread["name_"]), where))


class DmesgCommand(Command):
    """cb-dmesg [COUNT]: the kernel log, or its last lines."""

    name = "cb-dmesg"

    def run(self, words):
        ring = static("cowbird::LogRing::made")
        if ring is None:
            print("The log is empty.")
            return
        records = ring["records"]
        kept = int(records.type.strip_typedefs().template_argument(1))
        records = records["_M_elems"]
        last = int(ring["next"])
        count = min(last, kept)
        if words:
            if not words[0].isdigit():
                raise gdb.GdbError("cb-dmesg takes a number of lines, as in: cb-dmesg 20")
            count = min(count, int(words[0]))
        for number in range(last - count, last):
            record = records[number % kept]
            ns = int(record["time_ns"])
            print("[%5d.%06d] %s" % (ns // 10**9, ns // 1000 % 10**6, std_string(record["text"])))


class MountsCommand(Command):
    """cb-mounts: what is mounted where."""

    name = "cb-mounts"

    def run(self, _words):
        table = static("cowbird::MountTable::made")
        for ref in vector(table["all"]) if table is not None else ():
            mount = pointer_of(ref)
            print("%s on %s type %s (%s)" % (
                std_string(mount["source"]), path_name(mount, pointer_of(mount["root"])),
                std_string(mount["type"]), "ro" if int(mount["flags"]) & 1 else "rw"))


class SocketsCommand(Command):
    """cb-sockets: the guest's sockets."""

    name = "cb-sockets"
    def run(self, _words):
        sockets = static("cowbird::Sockets::made")
        print("%-8s %-10s %-10s %-18s %s" % ("FAMILY", "TYPE", "STATE", "SOCKET", "ADDRESS"))
        for socket in list_objects(sockets.dereference()) if sockets is not None else ():
            family, kind = int(socket["domain_"]), int(socket["type_"])
            print("%-8s %-10s %-10s %-18s %s" % (
                FAMILIES.get(family, family), SOCKET_TYPES.get(kind, kind),
                "listening" if bool(socket["listening_"]) else "-", hex(int(socket)),
                std_string(socket["shown_address_"]) or "-"))


class IrqCommand(Command):
    """cb-irq: interrupt sources and how often each has fired."""

    name = "cb-irq"

    def run(self, _words):
        irq = static("cowbird::irq::Irq::made")
        if irq is None:
            print("The irq thread has not started yet.")
            return
        print("%10d timer" % int(irq["timer_count"]))
        print("%10d completions" % int(irq["post_count"]))
        word = gdb.lookup_type("unsigned long").pointer()
        watched = gdb.lookup_type("cowbird::irq::Watched").pointer()
        for value in tree_nodes(irq["watches"]):
            source = (value.cast(word) + 1).cast(watched)  # behind the key
            print("%10d %s" % (int(source["count"]), std_string(source["name"])))


gdb.printing.register_pretty_printer(None, build_printers(), replace=True)
TaskFunction()
CurrentFunction()
SockaddrFunction()
for kind in (PsCommand, DmesgCommand, MountsCommand, SocketsCommand, IrqCommand):
    kind()
