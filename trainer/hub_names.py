"""Names of repositories and files on the Hugging Face Hub, told from places on this machine. Never torch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""``owner/name``."""
HUB_NAME = f"^{HUB_ID.pattern}$"
"""The same for a setting."""

_FILE = re.compile(rf"(?P<repo>{HUB_ID.pattern})(?:/(?P<file>[^@]+\.safetensors))?(?:@(?P<revision>[\w./-]+))?")
_WEIGHTS = (".safetensors", ".ckpt")


@dataclass(frozen=True)
class HubFile:
    """A weight file on the hub.

    Attributes:
        repo: ``owner/name``.
        file: its name there; None for the only one of the repository.
        revision: branch, tag or commit; None for the main branch.
    """

    repo: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        """The name that ``hub_file`` reads."""
        file, revision = f"/{self.file}" if self.file else "", f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{file}{revision}"


def hub_file(text: str) -> HubFile | None:
    """What ``owner/name``, ``owner/name/file.safetensors`` and either with ``@revision`` name; None for other texts.

    What is there on this machine is never meant to be the hub's.
    """
    found = _FILE.fullmatch(text.strip())
    if found is None or found["repo"].lower().endswith(_WEIGHTS):
        return None
    if any(part in ("", ".", "..") for part in text.strip().split("/")):
        return None
    if os.path.exists(text):  # noqa: PTH110 - Path.exists raises for names that none can have
        return None
    return HubFile(found["repo"], found["file"], found["revision"])
