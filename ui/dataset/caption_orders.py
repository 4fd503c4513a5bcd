"""What the page asks of a caption job, as arguments of the command, and what was asked last. No Gradio."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.captioners import CAPTIONERS
from trainer.captioners.weights import has_weights
from trainer.captioners.wording import Wording
from trainer.commands.model_arguments import as_options
from trainer.config_io import parse_section
from trainer.errors import UserError
from trainer.files import read_json, write_json
from ui.dataset.desk import DatasetDesk, View
from ui.fields import fields_of

HANDLINGS: dict[str, tuple[str, list[str]]] = {
    "missing": ("Keep them: only pictures without one get one", []),
    "overwrite": ("Replace them", ["--overwrite"]),
    "append": ("Add tags that are not there yet, behind", ["--append"]),
    "prepend": ("Add tags that are not there yet, in front", ["--prepend"]),
    "append-line": ("Add a line behind", ["--append", "--new-line"]),
    "prepend-line": ("Add a line in front", ["--prepend", "--new-line"]),
}
"""What becomes of captions that are there: label and options of the command."""

TRIED = 3
"""Pictures of a try."""

TRIGGER = next(field for field in fields_of(Wording, "wording.") if field.name == "wording.trigger")
"""The trigger word of captions: the one field that is kept with each dataset."""

_GROUPS = {"prose": "Sentences", "tags": "Tags", "text": "No model"}


@dataclass(frozen=True)
class CaptionRequest:
    """What somebody asks for.

    Attributes:
        captioner: its name.
        options: of the captioner, as plain values.
        wording: what becomes of its texts, as plain values.
        handling: one of ``HANDLINGS``.
        scope: ``all``, ``shown`` or ``selected``.
        times: texts per picture.
    """

    captioner: str
    options: Mapping[str, Any] = field(default_factory=dict)
    wording: Mapping[str, Any] = field(default_factory=dict)
    handling: str = "missing"
    scope: str = "all"
    times: float | None = 1

    def with_prompt(self, prompt: str) -> CaptionRequest:
        """The same with another prompt. Raises UserError where the captioner takes none."""
        kind = CAPTIONERS[_known(self.captioner)]
        if "prompt" not in kind.options.model_fields:
            message = f"{kind.label} takes no prompt."
            raise UserError(
                "caption.takes_no_prompt", message, "Leave it empty, or choose another captioner.", "prompt"
            )
        return CaptionRequest(
            self.captioner, {**self.options, "prompt": prompt}, self.wording, self.handling, self.scope, self.times
        )


def captioner_choices(models: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Captioners as (label, name), by what they write; those whose weights are on this machine say so.

    Args:
        models: folder or Hugging Face id that was chosen for a captioner, by its name.
    """
    order = list(_GROUPS)
    kinds = sorted(CAPTIONERS.items(), key=lambda item: order.index(item[1].style))
    return [(_label(name, (models or {}).get(name)), name) for name, _ in kinds]


def first_captioner() -> str:
    """The one to begin with: a model that is on this machine, the built-in one, or else the smallest."""
    with_model = [name for name, kind in CAPTIONERS.items() if "model" in kind.options.model_fields]
    here = [name for name in with_model if _is_here(name)]
    return next(name for name in (*here, "demo", "blip") if name in CAPTIONERS)


def start(
    desk: DatasetDesk, view: View, request: CaptionRequest, *, review: bool = False, limit: int | None = None
) -> None:
    """Start a caption job on pictures of the open folder.

    Args:
        desk: knows the folder.
        view: what the grid shows.
        request: what is asked for.
        review: whether drafts are made, to be looked over before they are written.
        limit: so many pictures at most.

    Raises UserError for wrong options, where no pictures are meant, and while a job is running.
    """
    names = [entry.name for entry in desk.scoped(view, request.scope)]
    start_for(desk, view, request, names, [*["--review"][:review], *([f"--limit={limit}"] if limit else [])])


def start_for(desk: DatasetDesk, view: View, request: CaptionRequest, names: list[str], more: list[str]) -> None:
    """Start a caption job on pictures by name, with further options of the command."""
    title = "Drafts of captions for" if "--review" in more else "Captions for"
    desk.start(view, ["caption"], title, [*arguments(desk, request), *more], {"names": names})


def command_line(desk: DatasetDesk, view: View, request: CaptionRequest) -> str:
    """The same as a command for a terminal; for a part of the pictures it names a list that is to be made."""
    listed = [] if request.scope == "all" else ["--names=LIST.txt"]
    command = ["python", "-m", "trainer", "caption", str(desk.folder(view)), *arguments(desk, request), *listed]
    return shlex.join(command)


def arguments(desk: DatasetDesk, request: CaptionRequest) -> list[str]:
    """The command's options. Raises UserError for wrong ones, with one problem per field."""
    kind = CAPTIONERS[_known(request.captioner)]
    if request.handling not in HANDLINGS:
        raise UserError("caption.handling", "Nothing is chosen for captions that are there.", "Choose.", "handling")
    options = kind.parse(request.options).model_dump(exclude_defaults=True)
    if "model" in options:
        options["model"] = desk.context.allowed_model(str(options["model"]))
    return [
        f"--captioner={request.captioner}",
        f"--workspace={desk.workspace.dir}",
        *(f"--set={name}={json.dumps(value, ensure_ascii=False)}" for name, value in options.items()),
        *HANDLINGS[request.handling][1],
        *([f"--times={request.times:g}"] if request.times and request.times != 1 else []),
        *as_options(parse_section(Wording, dict(request.wording))),
    ]


def report(result: dict[str, Any]) -> str:
    """What a caption job answered, in a sentence."""
    kept = f"{result['kept']} pictures left as they were." if result["kept"] else ""
    if result.get("drafts"):
        return f"{result['drafted']} captions drafted. Look them over below, then write them. {kept}".strip()
    return f"{result['written']} captions written. {kept}".strip()


def remember(desk: DatasetDesk, view: View, fields: Mapping[str, Any]) -> None:
    """Keep what stands in the panel, by field; the trigger word with the open dataset, as each has its own."""
    desk.memory.captioned_with(desk.folder(view), str(fields.get(TRIGGER.name) or ""))
    write_json(_memory(desk), {name: value for name, value in fields.items() if name != TRIGGER.name})


def remembered(desk: DatasetDesk) -> dict[str, Any]:
    """What stood in the panel when a job was last asked for; empty where nothing usable is kept."""
    try:
        kept = read_json(_memory(desk))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _memory(desk: DatasetDesk) -> Path:
    return desk.workspace.dir / "dataset_captions.json"


def _known(name: str) -> str:
    if name not in CAPTIONERS:
        raise UserError("caption.unknown", "No captioner is chosen.", "Choose one.", "captioner")
    return name


def _label(name: str, model: str | None) -> str:
    kind = CAPTIONERS[name]
    group = _GROUPS[kind.style]
    here = " (on this machine)" if "model" in kind.options.model_fields and _is_here(name, model) else ""
    return f"{group}: {kind.label}{here}"


def _is_here(name: str, model: str | None = None) -> bool:
    return has_weights(model or str(CAPTIONERS[name].options.model_fields["model"].default))
