"""What the Train tab says: which files a config may name, step maths, command line, the plan as a report. No Gradio."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.config_paths import paths_in
from trainer.data.datasets_library import HUB_PREFIX
from trainer.errors import Problem, UserError
from trainer.files import write_text
from trainer.hub_names import hub_file
from trainer.remote.hosts import host_name
from trainer.runs.gpus import devices_of
from trainer.runs.store import Run
from trainer.single_file.cache import looks_like_a_file
from trainer.yaml_texts import YamlError, dump_yaml, load_yaml
from ui import presets
from ui.context import AppContext
from ui.presets import Preset
from ui.step_maths import StepMaths, step_maths

LAST_FORM = "last_form.yaml"
LAST_PRESET = "last_preset.txt"
BEFORE = "form_before.yaml"
_OF_RUN = "run/"
"""In front of a run's id, where its settings are the form's base in place of a preset's."""


def check_paths(context: AppContext, config: Config) -> None:
    """Raise UserError, all at once, for each folder or file that does not exist or is not open to the page."""
    problems: list[Problem] = []
    if not config.dataset.sources:
        problems.append(
            Problem("dataset.no_sources", "No folder with pictures is given.", "Add one.", "dataset.sources.0.path")
        )
    for field, path in _paths(config):
        try:
            allowed = context.allowed(path)
        except UserError as error:
            problems.extend(Problem(found.code, found.message, found.hint, field) for found in error.problems)
            continue
        if not allowed.exists():
            problems.append(Problem("path.missing", f"{path} does not exist.", "Check the path.", field))
    if problems:
        raise UserError.many(problems)


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    """Fields that name files or folders of this machine. A model may also be ``demo`` or a name on the hub."""
    for field, path in paths_in(config.model_dump(mode="json")):
        elsewhere = field.startswith("model.") and not looks_like_a_path(path)
        elsewhere = elsewhere or (field.startswith("lora.") and hub_file(path) is not None)
        if not elsewhere and not path.startswith(HUB_PREFIX):
            yield field, path


def looks_like_a_path(model: str) -> bool:
    """Whether a model is a place on this machine rather than ``demo`` or ``owner/name`` on the hub."""
    started = model.startswith((".", "~")) or Path(model).is_absolute()
    written_so = started or "\\" in model or model.count("/") > 1 or looks_like_a_file(model)
    return written_so or (model != "demo" and Path(model).exists())


def maths_html(config: Config, processes: int = 1) -> str:
    """The live line over the buttons, for so many processes that train together."""
    maths = step_maths(config, processes)
    if maths is None:
        return '<p class="maths">Choose a folder with pictures to see how many steps there are.</p>'
    return (
        f'<p class="maths"><strong>{maths.max_steps} steps</strong>, about {_epochs(maths)}.'
        f"<small>{html.escape(maths.sentence())}</small></p>"
    )


def _epochs(maths: StepMaths) -> str:
    if maths.epochs < 1:
        return f"{maths.epochs:.0%} of one pass over the pictures"
    return "1 pass over the pictures" if maths.epochs < 1.05 else f"{maths.epochs:.3g} passes over the pictures"


def command_line(config: Config, workspace: Path, device: str = "") -> str:
    """What starts the same run from a terminal, with the settings saved under the run's name."""
    file = shlex.quote(f"{config.name}.yaml")
    host = host_name(device)
    where = f" --on {host}" if host else f" --devices {device}" if len(devices_of(device)) > 1 else ""
    return f"./launch.sh trainer train {file} --workspace {shlex.quote(str(workspace))}{where}"


def save_last_form(context: AppContext, snapshot: dict[str, Any]) -> None:
    """Keep what stands in the form, right or wrong, for the next time the page is opened."""
    write_text(_last_form(context), dump_yaml(snapshot))


def read_last_form(context: AppContext) -> dict[str, Any]:
    """What stood in the form last; empty the first time, or when the file is damaged."""
    return _read(_last_form(context))


def replace_form(context: AppContext, snapshot: dict[str, Any], base: str | None = None) -> None:
    """Put other settings in the place of those in the form, and keep what stood there for a way back.

    ``base`` is the key of what they are compared with from then on; without, that stays as it is. Replacing settings by
    themselves is no change.
    """
    base = _last_key(context) if base is None else base
    if (read_last_form(context), _last_key(context)) != (snapshot, base):
        keep_before(context)
    save_last_preset(context, base)
    save_last_form(context, snapshot)


def keep_before(context: AppContext) -> None:
    """Keep what stands in the form, and what it is compared with, before all of it is replaced."""
    before = {"preset": _last_key(context), "form": read_last_form(context)}
    if before["form"]:
        write_text(context.workspace.dir / BEFORE, dump_yaml(before))


def can_go_back(context: AppContext) -> bool:
    """Whether ``take_before`` has something to bring back."""
    return (context.workspace.dir / BEFORE).exists()


def take_before(context: AppContext) -> dict[str, Any]:
    """The form as it stood before it was replaced; what stands in it now is kept in its place, for another way back."""
    before = _read(context.workspace.dir / BEFORE)
    keep_before(context)
    save_last_preset(context, str(before.get("preset") or ""))
    form = before.get("form")
    return form if isinstance(form, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YamlError):
        return {}
    return found if isinstance(found, dict) else {}


def save_last_preset(context: AppContext, key: str) -> None:
    """Remember which preset was chosen; with an empty key, that none is. See ``key_of_run``, too."""
    write_text(context.workspace.dir / LAST_PRESET, key)


def last_preset(context: AppContext) -> Preset | None:
    """The preset that was chosen last; None before the first, when it is no longer there, and for a run's settings."""
    try:
        return presets.find(context.workspace, _last_key(context))
    except (OSError, ValueError, UserError):
        return None


def key_of_run(run: Run) -> str:
    """What to remember in place of a preset's key where a run's settings are to be changed."""
    return f"{_OF_RUN}{run.id}"


def key_beside_runs(context: AppContext) -> str:
    """The key of the preset that was chosen last; empty where a run's settings are being changed."""
    key = _last_key(context)
    return "" if key.startswith(_OF_RUN) else key


def changed_run(context: AppContext) -> Run | None:
    """The run whose settings are being changed; None where there is none, or no longer."""
    key = _last_key(context)
    try:
        return context.workspace.run(key.removeprefix(_OF_RUN)) if key.startswith(_OF_RUN) else None
    except (OSError, ValueError, UserError):
        return None


def _last_key(context: AppContext) -> str:
    try:
        return (context.workspace.dir / LAST_PRESET).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _last_form(context: AppContext) -> Path:
    return context.workspace.dir / LAST_FORM
