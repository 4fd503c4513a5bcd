"""The evaluations of several runs beside each other: the best of each measure. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.evaluating.results import BASE_STEP, Evaluation, evaluation_of
from trainer.runs.store import Run
from ui.evaluation_view import COLUMNS

NOT_MEASURED = "–"
_HIGHER_IS_BETTER = ("image_similarity", "prompt_similarity")
_UNLIKE = (
    "They were not measured in the same way, on other pictures or with other settings: compare their best steps, "
    "not their numbers."
)


def compared(runs: Sequence[Run]) -> dict[str, Any]:
    """The evaluations as the script takes them.

    ``rows`` have a label, what it means, and a text for each run; there are none where no run was evaluated. ``note``
    says why numbers should not be compared; empty where they may be.
    """
    found = [evaluation_of(run.dir).read_summary() for run in runs]
    measured = [each for each in found if each is not None]
    if not measured:
        return {"rows": [], "note": ""}
    best = [NOT_MEASURED if each is None or each.best is None else f"step {each.best}" for each in found]
    rows = [{"label": "Best checkpoint", "about": "By the rule that the evaluation of a run states.", "values": best}]
    for name, (label, about) in COLUMNS.items():
        values = [_best_of(each, name) for each in found]
        if set(values) != {NOT_MEASURED}:
            rows.append({"label": label, "about": about, "values": values})
    return {"rows": rows, "note": _UNLIKE if len({_way(each) for each in measured}) > 1 else ""}


def stamp_of(run: Run) -> int:
    """Changes when a run is evaluated; one look at the disk, as it is asked for every run there is."""
    try:
        return evaluation_of(run.dir).summary_path.stat().st_mtime_ns
    except OSError:
        return 0


def _best_of(found: Evaluation | None, name: str) -> str:
    """The best value of a measure among the checkpoints, and its step."""
    told = [
        (getattr(each, name), each.step)
        for each in (found.checkpoints if found else [])
        if each.step != BASE_STEP and getattr(each, name) is not None
    ]
    if not told:
        return NOT_MEASURED
    sign = -1 if name in _HIGHER_IS_BETTER else 1
    value, step = min(told, key=lambda pair: (sign * pair[0], pair[1]))
    return f"{_written(name, value)} at step {step}"


def _written(name: str, value: float) -> str:
    if name == "drift":
        return f"{value * 100:.3g} %"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _way(found: Evaluation) -> tuple[str, bool, int]:
    """What must be the same for numbers of two evaluations to be compared."""
    return found.settings.model_dump_json(exclude={"metrics"}), found.held_out, found.validated_pictures
