"""What a merge is to be: the command it becomes, what will happen, what came out. No gradio in here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from trainer.errors import Problem
from trainer.lora.merge_settings import RANKED, SPARSE, Mode
from trainer.pictures import LoraUse
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.lora_choices import RowUse, check_loras, check_model
from ui.lora_tools import plans
from ui.lora_tools.desk import Order, name_problems, saved

Target = Literal["lora", "file", "folder"]
DORA_HINT = "A DoRA's effect depends on the model it was trained on."


class MergeHow(BaseModel):
    """How LoRAs are to be merged, and what the result is to be."""

    target: Target = "lora"
    mode: Mode = "exact"
    rank: int | None = None
    conv_rank: int | None = None
    density: float | None = None
    seed: int | None = None
    save_precision: str = ""
    name: str


class Merge(MergeHow):
    """What is to be saved. ``is_exact``: it does what the LoRAs do together, but for rounding."""

    loras: list[LoraUse]
    model: str
    replace: bool = False

    @property
    def is_exact(self) -> bool:
        return self.target != "lora" or self.mode == "exact"


def merge_of(context: AppContext, values: Sequence[Any], model: Any, uses: Sequence[RowUse]) -> Merge:
    """What the fields of the form say, of the LoRAs in the rows. Raises UserError."""
    loras, base = check_loras(context, uses), check_model(context, model)
    return Merge(loras=loras, model=base, replace=bool(values[-1]), **how_of(values).model_dump())


def how_of(values: Sequence[Any]) -> MergeHow:
    """What the fields of the form say, the LoRAs and the model aside. Raises ValueError for what is half typed."""
    target, mode, rank, conv_rank, density, seed, precision, name, _ = values
    return MergeHow(
        target=target,
        mode=mode,
        rank=rank and int(rank),
        conv_rank=int(conv_rank) if conv_rank else None,
        density=density,
        seed=int(seed or 0),
        save_precision=precision or "",
        name=str(name or "").strip(),
    )


def fields_of(how: MergeHow) -> list[Any]:
    """Values of the form's fields that say so. That a file may be replaced is said each time."""
    ranks = [how.rank, how.conv_rank or 0]
    return [how.target, how.mode, *ranks, how.density, how.seed, how.save_precision, how.name, False]


def out_path(workspace: Workspace, merge: Merge) -> Path:
    """Where the result goes."""
    name = merge.name if merge.target == "folder" else f"{merge.name}.safetensors"
    return workspace.models_dir / name


def merge_order(workspace: Workspace, merge: Merge) -> Order:
    """The job that writes it."""
    out = out_path(workspace, merge)
    problems = [*merge_problems(merge), *name_problems(merge.name)]
    return Order(merge_command(merge, out), f"Merge {merge.name}", out, merge.replace, problems)


def merge_command(merge: Merge, out: Path) -> list[str]:
    """The trainer command that does it."""
    command = ["merge"]
    for use in merge.loras:
        command += ["--lora", f"{use.path}={use.strength}"]
    command += ["--out", str(out)]
    if merge.replace:
        command.append("--overwrite")
    if merge.save_precision:
        command += ["--save-precision", merge.save_precision]
    if merge.target != "lora":
        return [*command, "--base", merge.model]
    command += ["--mode", merge.mode]
    if merge.mode in RANKED:
        command += ["--rank", str(merge.rank)]
        if merge.conv_rank is not None:
            command += ["--conv-rank", str(merge.conv_rank)]
    if merge.mode in SPARSE:
        command += ["--density", f"{merge.density:g}"]
    if merge.mode == "dare":
        command += ["--seed", str(merge.seed)]
    return [*command, "--dora-base", merge.model] if _has_dora(merge) else command


def _has_dora(merge: Merge) -> bool:
    return any("DoRA" in kind for use in merge.loras for kind in plans.contents_of(Path(use.path)).kinds)


def merge_plan(workspace: Workspace, merge: Merge) -> str:
    """HTML of what saving this would do."""
    if not merge.loras:
        return ""
    loras = [plans.planned(use.path, use.strength) for use in merge.loras]
    problems = plans.family_problems(loras)
    if merge.target == "lora":
        result = plans.merged_lora(loras, merge.mode, merge.rank if merge.mode in RANKED else None)
        if _has_dora(merge):
            result.append(("DoRA", f"{DORA_HINT} {merge.model} is used."))
    else:
        result = plans.changed_model(workspace, loras, merge.model)
    out = out_path(workspace, merge)
    if out.exists():
        result.append(("Written to", f"{out.name}, which exists{' and is replaced' if merge.replace else ' already'}"))
    else:
        result.append(("Written to", out.name))
    return plans.plan_html([plans.lora_table(loras), plans.facts(result)], problems)


def merge_report(result: dict[str, Any]) -> str:
    """What the finished command answered, and what was left out."""
    rows = [("How", str(result["mode"]))] if "base" not in result else []
    for use in result.get("loras", []):
        if "layers_used" in use:
            rows.append((Path(use["file"]).stem, f"{use['ratio']}, {use['layers_used']} layers"))
    for kind, words in (("left_out", "Not in the model"), ("unknown_keys", "Not understood")):
        found = result.get(kind) or {}
        rows += [(f"{words}: {Path(file).stem}", ", ".join(names[:5])) for file, names in found.items()]
    return saved(result, rows)


def merge_problems(merge: Merge) -> list[Problem]:
    """What speaks against it, the name aside."""
    problems = []
    if not merge.loras:
        problems.append(Problem("merge.no_loras", "No LoRA is chosen.", "Choose one or more.", "loras"))
    if merge.target == "lora" and merge.mode in RANKED and not merge.rank:
        problems.append(Problem("merge.rank", "Rank is empty.", "Give the rank of the result.", "rank"))
    return problems
