"""A client of the debug agent (core/debug_agent/protocol.hpp), for tests without gdb."""
import collections
import socket
import struct

MAGIC = 0x47424443
COMMANDS = ["hello", "processes", "threads", "attach", "detach", "kill", "get_registers", "set_registers",
            "read_memory", "write_memory", "insert_breakpoint", "remove_breakpoint", "auxv", "executable",
            "set_options", "catch_syscalls", "pass_signals", "freeze", "thaw", "set_non_stop", "request_stop",
            "resume", "get_signal_info", "set_signal_info", "open_file", "read_file", "stat_file", "close_file",
            "read_link"]
NUMBER = {name: index + 1 for index, name in enumerate(COMMANDS)}
STOPPED = 0x100
KINDS = ["signal", "breakpoint", "step", "syscall_entry", "syscall_return", "fork", "vfork", "vfork_done", "exec",
         "thread_created", "thread_exited", "process_exited", "requested"]
REGISTERS = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
             "fs_base gs_base ds es fs gs").split()
FORK_EVENTS, EXEC_EVENTS, THREAD_EVENTS = 1, 2, 4

Stop = collections.namedtuple("Stop", "pid tid kind frozen vcpu signal address number child sequence")
Thread = collections.namedtuple("Thread", "pid tid state flags vcpu syscall name wait_channel")


class Refused(Exception):
    def __init__(self, error, words):
        super().__init__(f"error {error}: {words}")
        self.error = error
        self.words = words


class Agent:
    def __init__(self, path, timeout=30, greet=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.stops = collections.deque()
        self.id = 0
        self.seen = 0
        if greet:
            self.call("hello", numbers=[2])

    def close(self):
        self.socket.close()

    def _receive(self, size):
        data = b""
        while len(data) < size:
            got = self.socket.recv(size - len(data))
            if not got:
                raise EOFError("the agent has closed the connection")
            data += got
        return data

    def _message(self):
        magic, size, command, error, ident = struct.unpack("<IIHHI", self._receive(16))
        assert magic == MAGIC
        body = self._receive(size)
        if command == STOPPED:
            pid, tid, kind, frozen, vcpu, signal, address, number, child, _, sequence = struct.unpack(
                "<iiBBhiQQiiQ", body)
            self.stops.append(
                Stop(pid, tid, KINDS[kind], bool(frozen), vcpu, signal, address, number, child, sequence))
            return None
        return ident, error, body

    def call(self, name, pid=0, tid=0, address=0, length=0, flags=0, numbers=(), data=b""):
        self.id += 1
        body = struct.pack("<iiQQII", pid, tid, address, length, flags, len(numbers))
        body += b"".join(struct.pack("<Q", number) for number in numbers) + data
        try:
            self.socket.sendall(struct.pack("<IIHHI", MAGIC, len(body), NUMBER[name], 0, self.id) + body)
        except BrokenPipeError:
            pass  # the reason is there to be read
        while True:
            got = self._message()
            if got is not None:
                ident, error, reply = got
                assert ident == self.id or error
                if error:
                    raise Refused(error, reply.decode())
                return reply

    def stop(self):
        """The next stop."""
        while not self.stops:
            self._message()
        stop = self.stops.popleft()
        self.seen = stop.sequence
        return stop

    def registers(self, tid):
        data = self.call("get_registers", tid=tid)
        values = dict(zip(REGISTERS, struct.unpack("<27Q", data[:216])))
        values["xstate"] = data[216:]
        return values

    def set_registers(self, tid, values):
        data = struct.pack("<27Q", *(values[name] for name in REGISTERS))
        self.call("set_registers", tid=tid, data=data + values.get("xstate", b""))

    def read(self, pid, address, length):
        return self.call("read_memory", pid=pid, address=address, length=length)

    def write(self, pid, address, data):
        return struct.unpack("<Q", self.call("write_memory", pid=pid, address=address, data=data))[0]

    def resume(self, *actions):
        """Each action: (pid, tid, "continue"|"step"|"hold", dict of signal, step_over, low, high)."""
        data = b""
        for pid, tid, kind, *more in actions or [(-1, -1, "continue")]:
            how = more[0] if more else {}
            data += struct.pack("<iiBBHiQQ", pid, tid, ["continue", "step", "hold"].index(kind),
                                how.get("step_over", 0), 0, how.get("signal", 0), how.get("low", 0),
                                how.get("high", 0))
        self.call("resume", address=self.seen, data=data)

    def threads(self, pid=0):
        data = self.call("threads", pid=pid)
        found = []
        for at in range(0, len(data), 64):
            pid_, tid, state, flags, vcpu, _, call, name, channel = struct.unpack("<iicBhIQ16s24s", data[at:at + 64])
            found.append(Thread(pid_, tid, state.decode(), flags, vcpu, call, name.rstrip(b"\0").decode(),
                                channel.rstrip(b"\0").decode()))
        return found

    def processes(self):
        data = self.call("processes")
        found = {}
        for at in range(0, len(data), 32):
            pid, parent, threads, traced, zombie, _, name = struct.unpack("<iiIBBH16s", data[at:at + 32])
            found[pid] = (name.rstrip(b"\0").decode(), parent, threads, traced, zombie)
        return found

    def read_file(self, pid, path):
        handle = struct.unpack("<Q", self.call("open_file", pid=pid, data=path.encode()))[0]
        content = b""
        while True:
            piece = self.call("read_file", address=handle, length=65536, numbers=[len(content)])
            if not piece:
                break
            content += piece
        stat = self.call("stat_file", address=handle)
        self.call("close_file", address=handle)
        return content, struct.unpack("<5Q4I3q", stat)
