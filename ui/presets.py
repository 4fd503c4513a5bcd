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
GROUPS = {"demo": "Demo", "sd1": "SD 1.5", "sd2": "SD 2", "sdxl": "SDXL"}
"""The first part of a shipped file's name, and how people call it; in the order of the list."""
_OWN_GROUP = "My own"
_FILE_NAME = re.compile(r"(?P<family>[a-z0-9]+)_(?P<goal>.+?)(?:_(?P<gigabytes>\d+)gb)?")


@dataclass(frozen=True)
class Preset:
    """One preset file.

    Attributes:
        key: ``demo_style`` for a shipped one, ``own/my preset`` for one of the workspace.
        title: first line of its header comment, or its file name.
        about: the rest of the header comment.
        group: what it is listed under: a kind of model, or ``My own``.
        goal: ``anime character``; of an own one its name.
        gigabytes: of GPU memory that it is made for; 0 where it does not matter.
    """

    key: str
    path: Path
    title: str
    about: str
    group: str
    goal: str
    gigabytes: int

    @property
    def label(self) -> str:
        """As it stands in the list: its group in front."""
        return self.title if self.title.startswith(self.group) else f"{self.group}: {self.title}"


def presets(workspace: Workspace) -> list[Preset]:
    """Shipped presets by kind of model, goal and memory, then the workspace's own by name."""
    shipped = [_read(path, path.stem) for path in sorted(PRESETS_DIR.glob("*.yaml"))]
    groups = list(GROUPS.values())
    shipped.sort(key=lambda preset: (groups.index(preset.group), preset.goal, preset.gigabytes))
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
    about = " ".join(lines[1:]).strip()
    named = _FILE_NAME.fullmatch(path.stem)
    if key.startswith(OWN) or named is None:
        return Preset(key, path, title, about, _OWN_GROUP, path.stem, 0)
    goal, gigabytes = named["goal"].replace("_", " "), int(named["gigabytes"] or 0)
    return Preset(key, path, title, about, GROUPS[named["family"]], goal, gigabytes)
