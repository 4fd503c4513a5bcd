"""The parts of the Runs tab as HTML, everything that people or files wrote escaped. No gradio in here."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence

from trainer.runs.store import ALIVE, RunInfo, about_newer
from ui.run_list import RunList
from ui.run_view import RunView, duration, file_size, speed

STATE_WORDS = {
    "queued": "Waiting",
    "starting": "Starting",
    "preparing": "Preparing",
    "training": "Training",
    "paused": "Paused",
    "stopping": "Stopping",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
}
NOTHING_YET = (
    '<div class="empty-state"><h2>No runs yet</h2><p>A run appears here when you press <b>Start training</b> on the '
    "Train tab. You can watch it learn, pause it, and try the LoRA when it is done. Runs go on when this page is "
    "closed.</p></div>"
)
_COMPARING = '<p class="quiet">Tick two to eight runs to compare them.</p>'


def run_list(runs: RunList, selected: str) -> str:
    """One button per run, and a line about those that cannot be listed."""
    items = "".join(_list_item(info, runs.queue, info.id == selected) for info in runs.infos)
    newer = f'<p class="quiet" role="note">{about_newer(runs.newer)}</p>' if runs.newer else ""
    return f'<div class="run-list">{_COMPARING if len(runs.infos) > 1 else ""}{items}{newer}</div>'


def head_line(view: RunView) -> str:
    """Name, state, how far, how fast, how long still."""
    info = view.info
    facts = "".join(f"<span>{html.escape(fact)}</span>" for fact in _facts(view))
    words = f'<p class="facts" role="status">{html.escape(info.host_words)}</p>' if info.host_words else ""
    error = f'<p class="problems" role="alert">{html.escape(info.error)}</p>' if info.error else ""
    return (
        f'<div class="run-head"><div class="run-title"><h2>{html.escape(info.name)}</h2>{_pill(info)}</div>'
        f'{_bar(info, view.progress)}<p class="facts">{facts}</p>{words}{error}</div>'
    )


def time_left(view: RunView) -> str:
    """How long the run still takes, in words: the first tenth of a run tells little of the rest."""
    if view.seconds_left is None:
        return "working out the time left"
    rough = view.info.max_steps is None or view.info.step < view.info.max_steps / 10
    return f"{'about ' if rough else ''}{duration(view.seconds_left)} left"


def notes(view: RunView) -> str:
    """Warnings and errors; empty without any."""
    if not view.notes:
        return ""
    items = "".join(
        f'<li class="{note.kind}"><b>Step {note.step}</b> {html.escape(note.message)} '
        f"<span>{html.escape(note.hint)}</span></li>"
        for note in reversed(view.notes)
    )
    return f'<ul class="notes">{items}</ul>'


def together(info: RunInfo, device: str) -> str:
    """The devices of a run that one of them names: ``2 x NVIDIA L4``."""
    return f"{info.processes} x {device}" if info.processes > 1 else device


def _facts(view: RunView) -> list[str]:
    info = view.info
    facts = [f"step {info.step} of {info.max_steps}" if info.max_steps else f"step {info.step}"]
    if info.state == "finished" and info.step < (info.max_steps or 0):
        facts.append("ended early, as validation got no better")
    if view.steps_per_second and info.state == "training":
        facts.append(speed(view.steps_per_second))
    if info.state == "training":
        facts.append(time_left(view))
    if "loss" in view.latest:
        facts.append(f"loss {view.latest['loss']:.4f}")
    if view.latest.get("vram_bytes"):
        facts.append(f"{file_size(int(view.latest['vram_bytes']))} GPU memory")
    if info.device:
        device = together(info, info.device)
        facts.append(f"{device} on {info.host}" if info.host else device)
    if info.started and info.ended and info.ended > info.started:
        facts.append(f"took {duration(info.ended - info.started)}")
    return facts


def _list_item(info: RunInfo, queue: Sequence[str], selected: bool) -> str:
    share = _share(info)
    detail = f"{info.step} of {info.max_steps} steps" if info.max_steps else f"{info.step} steps"
    if info.id in queue:
        place = queue.index(info.id)
        detail = "next in the queue" if place == 0 else f"number {place + 1} in the queue"
    when = time.strftime("%d %b %H:%M", time.localtime(info.created))
    bar = f'<i class="bar"><i style="width:{share:.1%}"></i></i>' if info.state in ALIVE else ""
    run_id, name = html.escape(info.id), html.escape(info.name)
    return (
        f'<div class="run-entry"><label><input type="checkbox" data-compare="{run_id}" aria-label="Compare {name}">'
        f"</label>"
        f'<button type="button" class="run-item{" selected" if selected else ""}" data-pick="{run_id}" '
        f'aria-pressed="{str(selected).lower()}"><b>{name}</b>{_pill(info)}'
        f"<span>{detail}</span><span>{when}</span>{bar}</button></div>"
    )


def _pill(info: RunInfo) -> str:
    return f'<span class="pill {info.state}">{STATE_WORDS[info.state]}</span>'


def _bar(info: RunInfo, progress: tuple[str, int, int] | None) -> str:
    share, words = _share(info), ""
    if progress is not None and info.state in ("starting", "preparing"):
        what, done, total = progress
        share, words = (done / total if total else 0.0), f"{what} {done} of {total}"
    shown = html.escape(words)
    return (
        f'<div class="progress" role="progressbar" aria-valuenow="{round(share * 100)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-label="{shown or "Training"}"><i style="width:{share:.1%}"></i></div>'
        + (f'<p class="quiet">{shown}</p>' if shown else "")
    )


def _share(info: RunInfo) -> float:
    return min(1.0, info.step / info.max_steps) if info.max_steps else 0.0
