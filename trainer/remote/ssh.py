"""A connection to another machine through the user's own OpenSSH and rsync. Never torch.

One connection is opened and used for all that follows (``ControlMaster``). It never asks anything: what OpenSSH would
ask for (an unknown machine, a password) is told as a problem, with what to do.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.files import parse_json
from trainer.remote.hosts import Host

Look = Callable[[str], None]
"""Called several times a second while something takes time, with the last words of it; may raise to end it."""

_OPTIONS = {
    "BatchMode": "yes",
    "ClearAllForwardings": "yes",
    "ConnectTimeout": "10",
    "ControlMaster": "auto",
    "ControlPersist": "60",
    "ForwardAgent": "no",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "5",
}
_RSYNC_OPTIONS = (
    "--recursive", "--times", "--protect-args", "--partial-dir=.partial", "--timeout=30", "--info=progress2",
)  # fmt: skip
_LOOK_SECONDS = 0.2
_NO_CONNECTION = 255
_RSYNC_LOST = (10, 12, 30, 35, _NO_CONNECTION)
"""Exit codes of rsync (its manual, "EXIT VALUES") for a connection that failed, went away or stood still."""
_REASONS = {
    "Host key verification failed": ("host_key", "Connect once by hand, so that this machine knows the other one."),
    "Permission denied": ("login", "Set up a key that needs no typing (ssh-copy-id, ssh-agent)."),
    "Could not resolve hostname": ("no_such_machine", "Correct the address, or ~/.ssh/config."),
    "Connection refused": ("refused", "Is there an SSH server, and is the port right?"),
}


class Unreachable(UserError):
    """There is no connection (any more)."""


class Refused(UserError):
    """A command there ended with a failure.

    Attributes:
        exit_code: the command's; None where it is another failure.
    """

    exit_code: int | None = None


class Connection:
    """Commands and files to and from one host. To be closed; an attempt that fails leaves it usable."""

    def __init__(self, host: Host, look: Look = lambda words: None) -> None:
        """Open nothing yet. ``look`` is called while things take time.

        Raises UserError where this machine lacks what is needed.
        """
        missing = [name for name in ("ssh", "rsync") if shutil.which(name) is None]
        if missing or os.name == "nt":
            message = f"This machine has no {' and no '.join(missing) or 'rsync that takes paths of Windows'}."
            raise UserError("remote.tools", message, "Install it; on Windows run LoRA Atelier within WSL.")
        self.host = host
        self._look = look
        self._sockets = Path(tempfile.mkdtemp(prefix="atelier-ssh-"))  # a short path: a socket's may have 100 letters

    def run(self, script: str, *arguments: str, seconds: float = 60) -> str:
        """What a script for ``sh`` writes on stdout. ``arguments`` are its ``$1`` and so on.

        Raises Unreachable, and Refused when it fails.
        """
        there = shlex.join(["sh", "-c", script, "sh", *arguments])
        return self._done([*self._ssh(), "--", self.host.address, there], (_NO_CONNECTION,), seconds)

    def send(self, sources: Sequence[str], target: str, *options: str, seconds: float | None = None) -> None:
        """Bring files and folders there, as rsync does: what is there already is not sent again."""
        self._rsync([*options, "--", *sources, f"{self.host.address}:{target}"], seconds)

    def fetch(self, source: str, target: Path, *options: str, seconds: float | None = None) -> None:
        """Bring a file, or what is in a folder, here; never a link, a device or a pipe."""
        self._rsync(["--no-links", *options, "--", f"{self.host.address}:{source}", str(target)], seconds)

    def close(self) -> None:
        """End the connection."""
        with suppress(OSError, subprocess.SubprocessError):
            if any(self._sockets.iterdir()):
                command = [*self._ssh(), "-O", "exit", "--", self.host.address]
                subprocess.run(command, capture_output=True, timeout=10, check=False)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _ssh(self) -> list[str]:
        own = ["-F", self.host.ssh_config] if self.host.ssh_config else []
        port = ["-p", str(self.host.port)] if self.host.port else []
        options = [f"-o{name}={value}" for name, value in _OPTIONS.items()]
        return ["ssh", *own, *port, *options, f"-oControlPath={self._sockets}/%C"]

    def _rsync(self, arguments: list[str], seconds: float | None) -> None:
        self._done(["rsync", *_RSYNC_OPTIONS, "--rsh", shlex.join(self._ssh()), *arguments], _RSYNC_LOST, seconds)

    def _done(self, command: list[str], lost: tuple[int, ...], seconds: float | None) -> str:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=said)
            try:
                self._wait(process, out.fileno(), seconds)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
            out.seek(0)
            said.seek(0)
            answer, words = out.read().decode(errors="replace"), said.read().decode(errors="replace").strip()
        if process.returncode in lost:
            raise self._unreachable(words)
        if process.returncode:
            refused = Refused("remote.refused", words or answer.strip())
            refused.exit_code = process.returncode
            raise refused
        return answer

    def _wait(self, process: subprocess.Popen[bytes], out: int, seconds: float | None) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while process.poll() is None:
            self._look(_end_of(out))
            if deadline is not None and time.monotonic() > deadline:
                raise self._unreachable(f"no answer for {seconds:.0f} s")
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)

    def _unreachable(self, words: str) -> Unreachable:
        host = self.host
        by_hand = " ".join(["ssh", *(["-p", str(host.port)] if host.port else []), host.address])
        lines = [line for line in words.splitlines() if line.strip() and not line.startswith("rsync")]
        for sign, (code, hint) in _REASONS.items():
            if sign in words:
                return Unreachable(f"remote.{code}", f"{host.name}: {sign}.", f"{hint} This must work: {by_hand}")
        said = lines[-1] if lines else "the connection was lost"
        return Unreachable("remote.connection", f"{host.name} cannot be reached: {said}.", f"This must work: {by_hand}")


def last_json(text: str) -> Any:
    """The JSON document that a command printed last, behind whatever the login there prints.

    Raises ValueError where there is none.
    """
    start = [match.start() for match in re.finditer(r"^\{", text, re.MULTILINE)]
    if not start:
        raise ValueError(f"no answer in {text[-200:]!r}")
    return parse_json(text[start[-1] :])


def _end_of(descriptor: int) -> str:
    """The last words a process has written so far, of a line that is written over or not."""
    size = os.fstat(descriptor).st_size
    last = os.pread(descriptor, 400, max(0, size - 400)).decode(errors="replace")
    return re.split(r"[\r\n]", last.strip())[-1].strip()
