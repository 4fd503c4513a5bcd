"""An ear on Python itself: what is opened, listed, changed and started, where that is not allowed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READS = ("open", "os.listdir", "os.scandir", "glob.glob")
CHANGES = (
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime", "os.chmod",
)  # fmt: skip
NEVER = ("/etc/passwd", "/etc/shadow")


@dataclass
class Watch:
    """An audit hook, which cannot be taken out again (``sys.addaudithook``).

    Attributes:
        outside: what lies in this folder must not be touched; nothing is looked at while it is None.
        touched: told of each touch, as the event and what it named.
        started: told of each process that should have started; none does.
    """

    outside: Path | None
    touched: Callable[[str], Any]
    started: Callable[[str], Any] = lambda command: None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.outside is None:
            return
        if event == "subprocess.Popen":
            self.started(" ".join(map(str, arguments[1])))
            self._look_at(event, [part for word in arguments[1] for part in str(word).split("=")], follow=True)
            raise PermissionError("no processes in this test")
        if event in READS or event in CHANGES:
            self._look_at(event, arguments, follow=event in READS)

    def _look_at(self, event: str, values: Any, *, follow: bool) -> None:
        for value in values:
            if not isinstance(value, str | os.PathLike) or not str(value) or "\0" in str(value):
                continue
            path = Path(value)
            place = os.path.realpath(path) if follow else os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
            if Path(place).is_relative_to(str(self.outside)) or place in NEVER:
                self.touched(f"{event} {value}")
