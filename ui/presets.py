"""Presets: the shipped files of ``presets/`` and those saved in the workspace. A preset holds what differs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trainer.config import Config
from trainer.config_io import PRESETS_DIR, dump_changes, parse_config, read_yaml
from trainer.errors import UserError
from trainer.files import write_text
from trainer.runs.store import Workspace

OWN = "own/"


@dataclass(frozen=True)
class Preset:
    """One preset file.

    Attributes:
        key: ``demo_style`` for a shipped one, ``own/my preset`` for one of the workspace.
        title: first line of its header comment, or its file name.
        about: the rest of the header comment.
    """

    key: str
    path: Path
    title: str
    about: str


def presets(workspace: Workspace) -> list[Preset]:
    """Shipped presets in the order of their names, then the workspace's own."""
    shipped = [_read(path, path.stem) for path in sorted(PRESETS_DIR.glob("*.yaml"))]
    own = [_read(path, f"{OWN}{path.stem}") for path in sorted(_own_folder(workspace).glob("*.yaml"))]
    return [*shipped, *own]


def find(workspace: Workspace, key: str) -> Preset:
    """The preset of this key. Raises UserError when there is none."""
    found = next((preset for preset in presets(workspace) if preset.key == key), None)
    if found is None:
        raise UserError("preset.unknown", f"There is no preset {key!r}.", "Choose one of the list.")
    return found


def load(preset: Preset) -> Config:
    """The complete config: the preset over the defaults. Raises UserError when the file is wrong."""
    return parse_config(read_yaml(preset.path))


def save(workspace: Workspace, name: str, config: Config) -> Preset:
    """Keep what differs from the defaults as an own preset; one of the same name is replaced. Raises UserError."""
    clean = name.strip()
    if not re.fullmatch(r"[\w][\w .()+-]{0,59}", clean):
        raise UserError(
            "preset.name",
            f"{name!r} cannot be a preset's name.",
            "Use up to 60 letters, digits, spaces, dots, dashes or underscores.",
        )
    path = _own_folder(workspace) / f"{clean}.yaml"
    write_text(path, f"# {clean}\n{dump_changes(config)}")
    return _read(path, f"{OWN}{clean}")


def _own_folder(workspace: Workspace) -> Path:
    return workspace.dir / "presets"


def _read(path: Path, key: str) -> Preset:
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    title = lines[0].rstrip(".") if lines else path.stem
    return Preset(key, path, title, " ".join(lines[1:]).strip())
