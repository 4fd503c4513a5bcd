"""Watches over readers of broken files: how long they take, what memory they ask for, and where they write.

Where Python tells of it, that is by its audit events, writing outside the allowed folder is refused before it happens,
and so are new processes and connections.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST_SECONDS = 10.0
"""Of the processor's time, so that a busy machine changes nothing."""
MOST_BYTES = 3 << 30
"""Of memory on top of what is there before."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS: dict[str, tuple[tuple[int, int], ...]] = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, -1),),
    "os.chmod": ((0, 2),),
    "os.utime": ((0, 3),),
}
"""Which arguments of an event are a path, and the open folder that it starts from."""
_NEVER = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.bind"}


class OutsideError(BaseException):
    """A reader tried what no reader may; no ``except Exception`` hides it."""


class Guard:
    """One for the whole process: audit hooks stay. It looks only while it is on, and not at threads of before."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._others: set[int | None] = set()
        self.tried: list[str] = []
        sys.addaudithook(self._heard)

    @contextlib.contextmanager
    def over(self, folder: Path) -> Iterator[None]:
        """Refuse everything outside of ``folder`` meanwhile; what was tried is in ``tried``."""
        before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        self._others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        self._folder, self.tried = os.path.realpath(folder), []
        try:
            with _memory_bounded():
                yield
        finally:
            self._folder, sys.dont_write_bytecode = None, before

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._folder is None or threading.get_ident() in self._others:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self._check(event, path)
        elif event in _PATHS:
            for path, start in _PATHS[event]:
                self._check(event, arguments[path], arguments[start] if start > 0 else -1)
        elif event in _NEVER:
            self._refuse(event, arguments[0])

    def _check(self, event: str, path: Any, start: int = -1) -> None:
        if isinstance(path, int) or path == os.devnull:
            return
        base = Path(f"/proc/self/fd/{start}").readlink() if start >= 0 else Path()
        real, folder = os.path.realpath(base / os.fsdecode(path)), self._folder
        if real != folder and not real.startswith(f"{folder}{os.sep}"):
            self._refuse(event, path)

    def _refuse(self, event: str, what: Any) -> None:
        self.tried.append(f"{event} of {what!r}")
        raise OutsideError(self.tried[-1])


GUARD = Guard()


@contextlib.contextmanager
def _memory_bounded() -> Iterator[None]:
    """What needs more raises MemoryError, where the system can tell and bound it."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
