"""Presets: the shipped files of ``presets/`` and those saved in the workspace. A preset holds what differs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.config_io import PRESETS_DIR, dump_changes, parse_config, read_yaml
from trainer.errors import Problem, UserError
from trainer.files import write_text
from trainer.runs.store import Workspace

OWN = "own/"
DELETED = "deleted"
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
    def is_own(self) -> bool:
        """Whether it is one of the workspace."""
        return self.key.startswith(OWN)

    @property
    def label(self) -> str:
        """As it stands in the list: its group in front."""
        return self.title if self.title.startswith(self.group) else f"{self.group}: {self.title}"


def presets(workspace: Workspace) -> list[Preset]:
    """Shipped presets by kind of model, goal and memory, then the workspace's own by name."""
    shipped = [_read(path, path.stem) for path in sorted(PRESETS_DIR.glob("*.yaml"))]
    groups = list(GROUPS.values())
    shipped.sort(key=lambda preset: (groups.index(preset.group), preset.goal, preset.gigabytes))
    own = [_own(path) for path in sorted(_own_folder(workspace).glob("*.yaml"))]
    return [*shipped, *own]


def find(workspace: Workspace, key: str) -> Preset:
    """The preset of this key. Raises UserError when there is none."""
    found = next((preset for preset in presets(workspace) if preset.key == key), None)
    if found is None:
        raise UserError("preset.unknown", f"There is no preset {key!r}.", "Choose one of the list.")
    return found


def find_own(workspace: Workspace, key: str) -> Preset:
    """The own preset of this key. Raises UserError when there is none, and for shipped ones."""
    preset = find(workspace, key or "")
    if not preset.is_own:
        raise UserError("preset.shipped", f"{preset.title} came with the program and stays.", "Save one of your own.")
    return preset


def load(preset: Preset) -> Config:
    """The complete config: the preset over the defaults. Raises UserError when the file is wrong."""
    return parse_config(read_yaml(preset.path))


def load_what_fits(preset: Preset) -> tuple[Config, list[Problem]]:
    """The complete config without settings that are not known, or not allowed, in this version, and what those are.

    Raises UserError when the file cannot be read, or its settings do not go together.
    """
    config, left_out = _what_fits(preset.path, preset.path.stat().st_mtime_ns)
    return config.model_copy(deep=True), list(left_out)


def own_settings(preset: Preset) -> set[str]:
    """The settings that stay as they are when this preset is used: name and folders, unless it has its own."""
    values = read_yaml(preset.path)
    sources = (values.get("dataset") or {}).get("sources")
    return {name for name, given in (("name", values.get("name")), ("dataset.sources", sources)) if not given}


def save(workspace: Workspace, name: str, config: Config, *, replace: bool = False) -> Preset:
    """Keep what differs from the defaults as an own preset.

    Raises UserError for names that cannot be one, and ``preset.exists`` unless one of that name may be replaced.
    """
    path = _path(workspace, name)
    if path.exists() and not replace:
        raise UserError(
            "preset.exists", f"You have a preset {path.stem} already.", "Replace it, or take another name.", "preset"
        )
    write_text(path, f"# {path.stem}\n{dump_changes(config)}")
    return _own(path)


def rename(workspace: Workspace, preset: Preset, name: str) -> Preset:
    """Give an own preset another name. Raises UserError for a name that is taken or cannot be one."""
    path = _path(workspace, name)
    if path.exists():
        raise UserError("preset.exists", f"You have a preset {path.stem} already.", "Take another name.", "preset")
    text = preset.path.read_text(encoding="utf-8")
    write_text(path, f"# {path.stem}\n" + "".join(text.splitlines(keepends=True)[1 if text.startswith("#") else 0 :]))
    preset.path.unlink()
    return _own(path)


def delete(workspace: Workspace, preset: Preset) -> None:
    """Put an own preset aside; ``bring_back`` undoes it."""
    bin_folder = _own_folder(workspace) / DELETED
    bin_folder.mkdir(exist_ok=True)
    kept = preset.path.rename(bin_folder / preset.path.name)
    os.utime(kept)  # the newest one is brought back first


def last_deleted(workspace: Workspace) -> str:
    """Name of the own preset that was deleted last and can be brought back; empty for none."""
    deleted = (_own_folder(workspace) / DELETED).glob("*.yaml")
    return max(deleted, key=lambda path: path.stat().st_mtime_ns, default=Path()).stem


def bring_back(workspace: Workspace, name: str) -> Preset:
    """Undo a deletion. Raises UserError when there is none of this name, or a new one has taken its place."""
    path = _path(workspace, name)
    deleted = path.parent / DELETED / path.name
    if not deleted.exists():
        raise UserError("preset.unknown", f"There is no deleted preset {name!r}.", "Reload the page.")
    if path.exists():
        raise UserError("preset.exists", f"There is a new preset {path.stem}.", "Rename that one first.", "preset")
    deleted.rename(path)
    return _own(path)


def import_file(workspace: Workspace, file: Path) -> Preset:
    """Add a preset file of another machine under its own name, or a free one like it. Raises UserError."""
    config = parse_config(read_yaml(file))
    stem = re.sub(r"[^\w .()+-]", " ", file.stem).strip(" .")[:50] or "Imported"
    taken = {preset.goal for preset in presets(workspace)}
    names = [stem, *(f"{stem} ({number})" for number in range(2, len(taken) + 3))]
    return save(workspace, next(name for name in names if name not in taken), config)


def _without(values: dict[str, Any], name: str) -> bool:
    """Take one setting out of nested plain values; a whole section is left in. Returns whether it was there."""
    *parents, last = name.split(".")
    place: Any = values
    for part in parents:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
        return False
    del place[last]
    return True


def _path(workspace: Workspace, name: str) -> Path:
    clean = name.strip()
    if not re.fullmatch(r"[\w][\w .()+-]{0,59}", clean):
        raise UserError(
            "preset.name",
            f"{name!r} cannot be a preset's name.",
            "Use up to 60 letters, digits, spaces, dots, dashes or underscores.",
            "preset",
        )
    return _own_folder(workspace) / f"{clean}.yaml"


def _own(path: Path) -> Preset:
    return _read(path, f"{OWN}{path.stem}")


@lru_cache(maxsize=64)
def _what_fits(path: Path, mtime_ns: int) -> tuple[Config, tuple[Problem, ...]]:
    """Read once as long as the file does not change: the form is compared with it at every key that is pressed."""
    values = read_yaml(path)
    left_out: list[Problem] = []
    while True:
        try:
            return parse_config(values), tuple(left_out)
        except UserError as error:
            newer = any(problem.code == "config.newer" for problem in error.problems)
            wrong = [] if newer else [problem for problem in error.problems if _without(values, problem.field)]
            if not wrong:
                raise
            left_out += wrong


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
