"""A training as a folder that runs on another machine with one command: program, settings, and what they name.

In it all paths are relative, so that it may be moved. What is not packed is to be put into its place there; the README
in the folder says what. Never torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from trainer.config import Config
from trainer.config_io import dump_changes, parse_config
from trainer.config_paths import paths_in, put_at
from trainer.errors import Problem, UserError
from trainer.files import write_text
from trainer.hub_names import HUB_ID, hub_file
from trainer.outputs import new_output
from trainer.outward_links import refuse_links
from trainer.pack_scripts import KUBERNETES, README, RUN, SLURM, job_name
from trainer.runs.events import EventSink

PROGRAM_DIR = Path(__file__).resolve().parent.parent
PROGRAM = ("launch.sh", "requirements.txt", "requirements-gpu.txt", "LICENSE", "trainer")
_MODELS = ("model.base", "model.vae")
_LORAS = ("lora.init_from", "lora.merge_before_training")
HIDDEN = (".*", "__pycache__")
"""Names, as in a shell, of what goes nowhere."""


@dataclass
class Packed:
    """What a packed folder holds.

    Attributes:
        config: the settings, with paths in the folder.
        copies: what was copied there, by its place in the folder.
        missing: what has to be put there, by its place.
    """

    config: Config
    copies: dict[str, Path] = field(default_factory=dict)
    missing: dict[str, Path] = field(default_factory=dict)


PlaceOf = Callable[[str, int], str]
"""The folder for a path, which may be the so-manieth."""


def planned(
    config: Config, *, with_data: bool, with_model: bool, place_of: PlaceOf = lambda path, number: str(number)
) -> Packed:
    """What would be packed. Raises UserError, all problems at once, for files and folders that are not there.

    Args:
        config: settings with full paths.
        with_data: whether pictures, captions, masks and LoRAs go along.
        with_model: whether a base model that is a file or folder of this machine does.
        place_of: a folder's name for what lies at a path.
    """
    values = config.model_dump(mode="json", exclude_defaults=True)
    packed = Packed(config)
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for name, path in list(paths_in(values)):
        if _is_elsewhere(name, path):
            continue
        if not Path(path).exists():
            problems.append(Problem("pack.missing", f"{name}: {path} is not there.", "Check the path.", name))
            continue
        folder = place_of(path, len(places) + 1)
        place = places.setdefault(path, f"{_folder_of(name)}/{folder}/{_own_name(path)}")
        goes = with_model if name in _MODELS else with_data
        (packed.copies if goes else packed.missing)[place] = Path(path)
        put_at(values, name, place)
    if problems:
        raise UserError.many(problems)
    packed.config = parse_config(values)
    return packed


def pack(packed: Packed, out: Path, events: EventSink) -> None:
    """Write the folder, whole or not at all.

    Raises UserError when ``out`` is there already, and for folders with links that lead out of them.
    """
    if out.exists():
        raise UserError("pack.exists", f"out: {out} exists already.", "Choose another name.", "out")
    refuse_links(packed.copies.values(), HIDDEN)
    with new_output(out) as folder:
        folder.mkdir()
        _copy_program(folder / "program")
        for number, (place, source) in enumerate(packed.copies.items()):
            events.emit("progress", what="copying", done=number, total=len(packed.copies))
            _copy(source, folder / place)
        for place in packed.missing:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", dump_changes(packed.config))
        for name, text in _scripts(packed).items():
            write_text(folder / name, text)
        (folder / "run.sh").chmod(0o755)
    events.emit("progress", what="copying", done=len(packed.copies), total=len(packed.copies))


def _is_elsewhere(name: str, path: str) -> bool:
    """Whether a setting names something that is got from the hub, or comes with the program."""
    if "://" in path or (name in _MODELS and path == "demo"):
        return True
    of_hub = HUB_ID.fullmatch(path) if name in _MODELS else name.startswith(_LORAS) and hub_file(path)
    return bool(of_hub) and not Path(path).exists()


def _folder_of(name: str) -> str:
    return "models" if name in _MODELS else "loras" if name.startswith(_LORAS) else "data"


def _own_name(path: str) -> str:
    """The last name of a path, a link's own one; never ``..``, which as a part of a place would lead out of it."""
    name = Path(path).name
    return name if name not in ("", "..") else Path(path).resolve().name or "files"


def _copy_program(target: Path) -> None:
    target.mkdir()
    for name in PROGRAM:
        _copy(PROGRAM_DIR / name, target / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*HIDDEN))
    else:
        shutil.copy2(source, target)


def _scripts(packed: Packed) -> dict[str, str]:
    values: dict[str, Any] = {"name": job_name(packed.config.name), "steps": packed.config.train.max_steps or "all"}
    missing = "\n".join(_missing_lines(packed)) or "Nothing has to be added."
    return {
        "run.sh": RUN,
        "job.sbatch": SLURM.format(**values),
        "job.yaml": KUBERNETES.format(**values),
        "README.md": README.format(**values, missing=missing),
    }


def _missing_lines(packed: Packed) -> Iterator[str]:
    if packed.missing:
        yield "Not packed: put these there first."
        yield ""
        for place, source in packed.missing.items():
            yield f"- `{place}`: {'the folder' if source.is_dir() else 'the file'} `{PurePath(place).name}`"
