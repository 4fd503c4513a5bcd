"""Every change that a process makes to files, seen one by one before it happens, and let happen or not.

Linux asks a supervisor about each system call that a seccomp filter names, and the caller waits for the answer
(seccomp_unotify(2)). So the calls of C and Rust libraries and of other threads are seen too. What is written through
mapped memory needs no call and is not seen: nothing here writes so.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests import forked

CAN_WATCH = sys.platform == "linux" and platform.machine() == "x86_64"
"""The numbers of system calls below are those of this kind of machine."""

_WRITES = {1: "write", 18: "pwrite64", 20: "writev", 77: "ftruncate", 74: "fsync", 75: "fdatasync", 285: "fallocate"}
_PATHS = {2: "open", 76: "truncate", 82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat", 87: "unlink"}
_PATHS_IN_FOLDERS = {257: "openat", 258: "mkdirat", 263: "unlinkat", 264: "renameat", 316: "renameat2"}
_LINKS = {86: "link", 88: "symlink", 265: "linkat", 266: "symlinkat"}
_COPIES = {40: "sendfile", 326: "copy_file_range"}
_NAMES = _WRITES | _PATHS | _PATHS_IN_FOLDERS | _LINKS | _COPIES
_FOLDER_OF_PROCESS = -100
_CREATES_OR_CUTS = os.O_CREAT | os.O_TRUNC

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # ioctls of the listener
_SECCOMP, _NEW_LISTENER, _GO_ON = 317, 8, 1
_ASK, _ALLOW, _X86_64 = 0x7FC00000, 0x7FFF0000, 0xC000003E


@dataclass(frozen=True)
class Operation:
    """A change about to be made.

    Attributes:
        number: counted from 1, over all threads of the process.
        call: the system call.
        path: the file; of a rename, what is renamed.
        position: where a write begins; -1 at the end, and for other calls.
        data: what a write would write.
    """

    number: int
    call: str
    path: Path
    position: int = -1
    data: bytes = b""


@dataclass(frozen=True)
class Fail:
    """An answer: the call fails with an error of ``errno``, and nothing is changed."""

    number: int


KILL = "kill"
"""An answer: the process ends at once, and nothing is changed."""

Answer = Fail | str | None
"""None lets a change happen. An answer that takes its time is a slow disk."""


class Watched:
    """A trainer command, see ``forked.start``, whose changes of files below some folders are asked about.

    Attributes:
        command: the command under way.
        operations: what was asked about up to now.
    """

    def __init__(self, folders: Sequence[Path], answer: Callable[[Operation], Answer], *arguments: str) -> None:
        self.operations: list[Operation] = []
        self._folders = [folder.resolve() for folder in folders]
        self._answer = answer
        with tempfile.TemporaryDirectory(prefix="watched-") as place, socket.socket(socket.AF_UNIX) as server:
            address = str(Path(place, "socket"))
            server.bind(address)
            server.listen()
            server.settimeout(300)
            environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            self.command = forked.start(*arguments, "--json", first=partial(_be_watched, address), **environment)
            connection, _ = server.accept()
            with connection:
                _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        self._listener = descriptors[0]
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def wait(self) -> int:
        """The exit code, negative for a signal, once the process has ended and all is answered."""
        code = self.command.wait()
        self._thread.join(60)
        return code

    def _supervise(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not poll.poll()[0][1] & select.POLLHUP:  # told when no process with the filter is left
            with suppress(OSError):  # the caller was killed while it waited
                self._answer_one()
        os.close(self._listener)

    def _answer_one(self) -> None:
        asked = bytearray(80)
        fcntl.ioctl(self._listener, _RECEIVE, asked)
        identifier, thread, _, number, _, _, *arguments = struct.unpack("QIIiIQ6Q", asked)
        error, flags = 0, _GO_ON
        operation = self._operation(thread, number, arguments)
        if operation is not None:
            self.operations.append(operation)
            answer = self._answer(operation)
            if answer == KILL:
                os.kill(self.command.pid, signal.SIGKILL)
            elif isinstance(answer, Fail):
                error, flags = -answer.number, 0
        fcntl.ioctl(self._listener, _SEND, bytearray(struct.pack("QqiI", identifier, 0, error, flags)))

    def _operation(self, thread: int, number: int, arguments: list[int]) -> Operation | None:
        """What a call is about to change below the folders; None for nothing there."""
        call, process = _NAMES[number], Path("/proc", str(thread))
        if number in _PATHS_IN_FOLDERS or number in _PATHS or number in _LINKS:
            offset = 1 if number in _PATHS_IN_FOLDERS else {86: 1, 88: 1, 265: 3, 266: 2}.get(number, 0)
            if call in ("open", "openat") and not arguments[offset + 1] & _CREATES_OR_CUTS:
                return None
            base = arguments[offset - 1] if call.endswith(("at", "at2")) else None
            path, position, data = _named(process, base, arguments[offset]), -1, b""
        else:
            descriptor = arguments[2] if call == "copy_file_range" else arguments[0]
            path, position, data = _written(process, call, descriptor, arguments)
        if not any(path.is_relative_to(folder) for folder in self._folders):
            return None
        return Operation(len(self.operations) + 1, call, path, position, data)


def _named(process: Path, descriptor: int | None, address: int) -> Path:
    """The path that a call names, from the folder it is relative to."""
    here = descriptor is None or ctypes.c_int(descriptor).value == _FOLDER_OF_PROCESS
    folder = process / "cwd" if here else process / "fd" / str(descriptor)
    name = _memory(process, address, 4096).split(b"\0", 1)[0]
    return Path(os.path.normpath(os.path.join(folder.readlink(), os.fsdecode(name))))  # noqa: PTH118


def _written(process: Path, call: str, descriptor: int, arguments: list[int]) -> tuple[Path, int, bytes]:
    """The file of a descriptor, and what is written where."""
    path = (process / "fd" / str(descriptor)).readlink()
    if call not in ("write", "pwrite64") or not path.is_absolute():
        return path, -1, b""
    lines = (process / "fdinfo" / str(descriptor)).read_text().splitlines()
    facts = {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
    position = arguments[3] if call == "pwrite64" else int(facts["pos"])
    at_end = int(facts["flags"], 8) & os.O_APPEND
    return path, -1 if at_end else position, _memory(process, arguments[1], arguments[2])


def _memory(process: Path, address: int, most_bytes: int) -> bytes:
    with (process / "mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        try:
            return memory.read(most_bytes)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            memory.seek(address)
            return memory.read(4096 - address % 4096)  # up to the end of what is mapped


def _be_watched(address: str) -> None:
    """Put this process under a filter that asks a supervisor, and hand it the listener."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        libc = ctypes.CDLL(None, use_errno=True)
        program = _filter()
        code = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
        libc.prctl(38, 1, 0, 0, 0)  # no new privileges: without it only root may have a filter
        listener = libc.syscall(_SECCOMP, 1, _NEW_LISTENER, ctypes.create_string_buffer(head, len(head)))
        if listener < 0:
            raise OSError(ctypes.get_errno(), "no filter of system calls")
        socket.send_fds(connection, [b"x"], [listener])
    os.close(listener)


def _filter() -> bytes:
    """A program of the kernel's packet filter: ask about the calls that are named, allow all others."""

    def line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    load, jump_equal, give = 0x20, 0x15, 0x06
    program = [line(load, 4), line(jump_equal, _X86_64, 1, 0), line(give, _ALLOW), line(load, 0)]
    for number in _NAMES:
        program += [line(jump_equal, number, 0, 1), line(give, _ASK)]
    return b"".join([*program, line(give, _ALLOW)])
