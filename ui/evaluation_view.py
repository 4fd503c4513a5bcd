"""The evaluation of a run as the page shows it: progress, the table, the curves, the nearest pictures. No Gradio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.evaluating.results import BASE_STEP, Drawn, Evaluated, Evaluation, evaluation_of
from trainer.evaluating.settings import Metric, parse_evaluation
from trainer.jobs import JobInfo
from trainer.runs.settings import read_settings
from trainer.runs.store import Run, Workspace
from ui.job_progress import JobReader, Progress, told_job
from ui.media import evaluation_url
from ui.run_view import Checkpoint
from ui.runs.evaluation_time import costs

COLUMNS: dict[str, tuple[str, str]] = {
    "validation_loss": (
        "Validation loss",
        "Lower is better: mean squared error on the same pictures with the same noise.",
    ),
    "drift": ("Drift", "Lower is better: how far prompts without the trigger move away from the base model."),
    "image_similarity": ("Like the pictures", "Higher is more alike: mean cosine with the training pictures."),
    "prompt_similarity": ("Like the prompts", "Higher is better: mean cosine of pictures and their prompts."),
    "copies": ("Copies", "Pictures drawn that look the same as a training picture."),
}
"""Measures by their name in the results: what the page calls them, and what they mean."""

METRIC_WORDS: dict[Metric, tuple[str, str]] = {
    "validation": (
        "Validation loss",
        "On held-out pictures, always with the same noise; on training pictures where none are held out.",
    ),
    "drift": ("Drift", "How far prompts without the trigger move away from the base model."),
    "nearest": ("Copies", "Draws pictures, and finds the training picture that each is nearest to."),
    "similarity": (
        "Similarity",
        "Draws pictures, and tells how alike they and the training pictures are. Needs the model below.",
    ),
}
"""What can be measured: what the page calls it, and what it is."""


@dataclass(frozen=True)
class Now:
    """How an evaluation stands.

    Attributes:
        job: the newest job that evaluates the run, with its progress; None where there never was one.
        stamp: changes with the results.
    """

    job: tuple[JobInfo, Progress] | None
    stamp: int

    @property
    def running(self) -> bool:
        """Whether a job is at it."""
        return self.job is not None and self.job[0].state == "running"


class EvaluationReader:
    """Reads evaluations for all open pages."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._jobs = JobReader(workspace)

    def look(self, run: Run) -> Now:
        """How the evaluation of a run stands now; quick."""
        job = self._jobs.latest(run.dir, ["evaluate"])
        path = evaluation_of(run.dir).summary_path
        stamp = path.stat().st_mtime_ns if path.is_file() else 0
        return Now(None if job is None else self._jobs.read(job), stamp)

    def shown(self, run: Run, checkpoints: list[Checkpoint]) -> dict[str, Any]:
        """What the panel's script takes."""
        now, steps = self.look(run), sorted(each.step for each in checkpoints)
        found = evaluation_of(run.dir).read_summary()
        settings = found.settings if found else parse_evaluation({})
        return {
            "run": run.id,
            "steps": steps,
            "metrics": [
                {"name": name, "title": title, "about": about, "on": name in settings.metrics}
                for name, (title, about) in METRIC_WORDS.items()
            ],
            "costs": costs(run, found),
            "model": read_settings(self._workspace).looking_model,
            "pictures": settings.pictures,
            "job": None if now.job is None else told_job(*now.job),
            "result": None if found is None else self._result(run, found, steps),
        }

    def _result(self, run: Run, found: Evaluation, steps: list[int]) -> dict[str, Any]:
        measured = [name for name in COLUMNS if any(getattr(each, name) is not None for each in found.checkpoints)]
        pictures = f"{found.validated_pictures} {'held-out' if found.held_out else 'training'} pictures"
        return {
            "columns": [{"name": name, "title": COLUMNS[name][0], "about": COLUMNS[name][1]} for name in measured],
            "rows": [self._row(run, each, steps, found.best) for each in found.checkpoints],
            "best": found.best,
            "why": found.why,
            "hints": found.hints,
            "validated": pictures if "validation_loss" in measured else "",
        }

    def _row(self, run: Run, each: Evaluated, steps: list[int], best: int | None) -> dict[str, Any]:
        return {
            "step": each.step,
            "title": "Base model" if each.step == BASE_STEP else f"Step {each.step}",
            "base": each.step == BASE_STEP,
            "kept": each.step in steps,
            "best": each.step == best,
            "values": {name: getattr(each, name) for name in COLUMNS},
            "drawn": [self._drawn(run, drawn) for drawn in each.drawn],
        }

    def _drawn(self, run: Run, drawn: Drawn) -> dict[str, Any]:
        near = drawn.nearest
        return {
            "url": evaluation_url(self._workspace, run.id, drawn.picture),
            "prompt": drawn.prompt,
            "seed": drawn.seed,
            "nearest": None
            if near is None
            else {
                "url": evaluation_url(self._workspace, run.id, near.picture),
                "name": near.source.replace("\\", "/").rpartition("/")[2],
                "similarity": near.similarity,
                "copied": near.copied,
            },
        }
