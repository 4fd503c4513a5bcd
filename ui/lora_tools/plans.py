"""What a tool will do, told before it does it: tables made from the files' headers alone. No gradio in here."""

from __future__ import annotations

import html
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trainer.demo import MODEL_DIR
from trainer.errors import Problem, UserError
from trainer.lora.contents import LoraContents, lora_contents
from trainer.lora.strengths import Strength
from trainer.runs.store import Workspace
from ui import picture_html
from ui.run_view import file_size

Row = Sequence[str]
_BYTES_BEYOND_TENSORS = 100
"""Per tensor in a file's header."""


@dataclass(frozen=True)
class Planned:
    """A LoRA that is to be used, and how strongly."""

    contents: LoraContents
    strength: Strength

    @property
    def layers(self) -> list[str]:
        """The layers on which it has an effect."""
        return [module for module in self.contents.layers if self.strength.of(module)]


def contents_of(path: Path) -> LoraContents:
    """A LoRA's contents, read once for each state of the file. Raises UserError."""
    try:
        stat = path.stat()
    except OSError:
        return lora_contents(path)
    return _contents(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _contents(path: Path, changed: int, size: int) -> LoraContents:
    return lora_contents(path)


def planned(path: str, strength: Strength) -> Planned:
    """A LoRA with its strength. Raises UserError for one that cannot be read or has not the named blocks."""
    contents = contents_of(Path(path))
    strength.check(contents.layers, contents.path.name)
    return Planned(contents, strength)


def lora_table(loras: Sequence[Planned]) -> str:
    """One line for each LoRA: what it is and how strongly it is used."""
    rows = [
        (
            each.contents.path.stem,
            " and ".join(each.contents.kinds),
            listed(each.contents.ranks) or "full",
            f"{len(each.layers)} of {len(each.contents.layers)}",
            str(each.strength).replace(",", ", ").replace(":", " "),
        )
        for each in loras
    ]
    return table(("LoRA", "Kind", "Rank", "Layers used", "Strength"), rows)


def merged_lora(loras: Sequence[Planned], mode: str, rank: int | None) -> list[tuple[str, str]]:
    """What merging them into one LoRA gives: layers, ranks and size, as facts."""
    used: dict[str, list[LoraContents]] = {}
    for each in loras:
        for module in each.layers:
            used.setdefault(module, []).append(each.contents)
    ranks, size = set(), 0
    for module, sources in used.items():
        layers = [source.layers[module] for source in sources]
        total = sum(layer.rank or 0 for layer in layers) or (rank or 0)
        result = min(rank, total) if rank else max(layer.rank or 0 for layer in layers) if mode == "kohya" else total
        ranks.add(result)
        width = max(source.bytes_per_number for source in sources)
        size += result * max(layer.values_per_rank for layer in layers) * width + 3 * _BYTES_BEYOND_TENSORS
    shared = sum(len(sources) > 1 for sources in used.values())
    count = f"{len(used)}" + (f", {shared} of them from more than one" if len(loras) > 1 else "")
    return [("Layers", count), ("Rank", listed(sorted(ranks))), ("Size", f"about {file_size(size)}")]


def changed_model(workspace: Workspace, loras: Sequence[Planned], model: str) -> list[tuple[str, str]]:
    """What merging them into a model means: layers changed, space needed and left."""
    modules = {module for each in loras for module in each.layers}
    facts = [("Layers changed", str(len(modules)))]
    size = model_bytes(model)
    if size is not None:
        facts.append(("Space needed", f"about {file_size(size)}; {file_size(free_bytes(workspace))} are free"))
    return facts


def family_problems(loras: Sequence[Planned]) -> list[Problem]:
    """What speaks against using them together."""
    families: dict[str, str] = {}
    for each in loras:
        if each.contents.family:
            families.setdefault(each.contents.family, each.contents.path.stem)
    if len(families) < 2:
        return []
    listing = " and ".join(f"{name} is for {family}" for family, name in families.items())
    return [
        Problem("merge.families", f"These are for different models: {listing}.", "Use LoRAs of one family together.")
    ]


def model_bytes(model: str) -> int | None:
    """How large a model's weights are on disk; None for one on the hub."""
    path = MODEL_DIR if model == "demo" else Path(model).expanduser()
    if path.is_file():
        return path.stat().st_size
    if not path.is_dir():
        return None
    return sum(file.stat().st_size for part in path.iterdir() if part.is_dir() for file in part.glob("*.safetensors"))


def free_bytes(workspace: Workspace) -> int:
    """Space left where results are written."""
    there = next(folder for folder in (workspace.models_dir, *workspace.models_dir.parents) if folder.exists())
    return shutil.disk_usage(there).free


def plan_html(parts: Sequence[str], problems: Sequence[Problem] = (), title: str = "What will happen") -> str:
    """The plan's place below the form: tables, then what speaks against it. Empty where there is nothing to tell."""
    told = [part for part in parts if part]
    if problems:
        told.append(problems_html(problems))
    return f'<div class="tool-plan"><h3>{title}</h3>{"".join(told)}</div>' if told else ""


def problems_html(problems: Sequence[Problem]) -> str:
    """Problems as a list."""
    return picture_html.problems([{"message": each.message, "hint": each.hint} for each in problems])


def refused(error: UserError) -> str:
    """A plan that cannot be made, and why."""
    return plan_html([], error.problems)


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values."""
    return picture_html.facts(rows)


def table(head: Row, rows: Sequence[Row]) -> str:
    """A table of text; the first cell of each row names it. Scrolls sideways by itself on a narrow screen."""
    names = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in head)
    body = "".join(_table_row(row) for row in rows)
    grid = f'<table class="plan-table"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>'
    label = html.escape(", ".join(name for name in head if name))
    return f'<div class="table-scroll" tabindex="0" role="region" aria-label="{label}">{grid}</div>'  # by keys too


def _table_row(row: Row) -> str:
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
    return f"<tr><th scope='row'>{html.escape(row[0])}</th>{cells}</tr>"


def listed(numbers: Sequence[int]) -> str:
    """``16``, ``4 and 8``, ``4 to 64``."""
    if len(numbers) > 3:
        return f"{numbers[0]} to {numbers[-1]}"
    return " and ".join(str(number) for number in numbers)
