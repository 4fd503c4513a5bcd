"""The evaluation of a run's checkpoints from start to end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.checkpoint_folders import LORA, checkpoints, is_valid, read_manifest, step_of
from trainer.config import Config
from trainer.data.epoch import lay_out
from trainer.devices import device_held, is_out_of_memory, pick_device
from trainer.errors import UserError
from trainer.evaluating.examiner import Examiner
from trainer.evaluating.results import BASE_STEP, Evaluated, Evaluation, EvaluationFolder, evaluation_of
from trainer.evaluating.settings import EvaluationSettings
from trainer.evaluating.verdict import best_of, hints_of
from trainer.runs.events import EventSink, read_events
from trainer.runs.store import Run, Workspace
from trainer.tracking.evaluations import track_evaluation


def evaluate(
    run: Run,
    settings: EvaluationSettings,
    steps: Sequence[int],
    *,
    workspace: Workspace,
    events: EventSink,
    share_gpu: bool = False,
) -> Evaluation:
    """Measure checkpoints of a run, those that were measured already only if something changed, and compare them all.

    Args:
        run: the run; it may be going on.
        settings: what to measure.
        steps: which checkpoints; empty for all there are.
        workspace: whose caches are used.
        events: get ``progress``, and an ``evaluation`` event for each checkpoint.
        share_gpu: whether to compute beside whatever has the GPU instead of waiting.

    Raises UserError when there is no such checkpoint, when the run is being evaluated already, or when model, pictures
    or memory do not suffice.
    """
    config, folder = run.config(), evaluation_of(run.dir)
    chosen = {step_of(path): path for path in _chosen(run, steps)}
    key = evaluation_key(config, settings)
    lock = folder.lock()
    try:
        known = _still_true(folder.known(key), run)
        wanted = {BASE_STEP: None, **chosen}
        missing = {step: path for step, path in wanted.items() if step not in known}
        summary = folder.read_summary()
        if missing or summary is None or summary.key != key:
            device = pick_device()
            with device_held(device, workspace, f"evaluation of {run.read().name}", events, share=share_gpu):
                lora = next(iter(chosen.values())) / LORA
                with _memory_told():
                    examiner = Examiner(
                        config, settings, folder, lora=lora, cache_dir=workspace.cache_dir, device=device, events=events
                    )
                    known |= _examined(examiner, key, missing, folder, events)
            facts = {"held_out": examiner.held_out, "validated_pictures": examiner.validated_pictures}
        else:
            facts = {"held_out": summary.held_out, "validated_pictures": summary.validated_pictures}
        evaluation = _compared(run, settings, key, list(known.values()), facts)
        folder.write_summary(evaluation)
        if missing:
            track_evaluation(run.dir, config, evaluation, events)
        return evaluation
    finally:
        lock.release()


def evaluation_key(config: Config, settings: EvaluationSettings) -> str:
    """A hash of everything that the numbers depend on, but for the LoRA: settings, the run's settings, its pictures."""
    values = config.model_dump(mode="json")
    for name in ("name", "samples", "output", "trackers", "tracking"):
        values.pop(name, None)
    values["train"] = {name: values["train"][name] for name in ("seed", "clip_skip", "mixed_precision", "batch_size")}
    layout = lay_out(config)
    entries = [entry for group in (layout.training, layout.validation) for entry in group]
    pictures = sorted({(entry.key, *_stamp(entry.picture.path), entry.picture.caption) for entry in entries})
    prompts = [prompt.model_dump() for prompt in config.samples.prompts]
    everything = [settings.model_dump(), values, prompts, config.output.trigger, pictures]
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _chosen(run: Run, steps: Sequence[int]) -> list[Path]:
    """The checkpoints to measure. Raises UserError for a step without one, and for a run without any."""
    saved = [path for path in checkpoints(run.checkpoints_dir) if is_valid(path)]
    if not saved:
        message = f"The run {run.id} has no checkpoint to evaluate."
        raise UserError("evaluation.no_checkpoint", message, "Wait until it saves one, or press Save now.")
    there = {step_of(path): path for path in saved}
    unknown = [step for step in steps if step not in there]
    if unknown:
        message = f"checkpoint: the run has none of step {', '.join(map(str, unknown))}."
        hint = f"There are: {', '.join(map(str, there))}."
        raise UserError("evaluation.checkpoint", message, hint, "checkpoint")
    return [path for step, path in there.items() if not steps or step in steps]


def _still_true(known: dict[int, Evaluated], run: Run) -> dict[int, Evaluated]:
    """Without results of LoRAs that have changed since. Those of checkpoints that are gone stay."""
    now = {step_of(path): _lora_hash(path) for path in checkpoints(run.checkpoints_dir)}
    return {step: each for step, each in known.items() if now.get(step, each.lora_sha256) == each.lora_sha256}


def _lora_hash(checkpoint: Path) -> str:
    try:
        return str(read_manifest(checkpoint)["files"][LORA]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _examined(
    examiner: Examiner, key: str, missing: dict[int, Path | None], folder: EvaluationFolder, events: EventSink
) -> dict[int, Evaluated]:
    """Measure one after the other; each is kept as soon as it is done."""
    found: dict[int, Evaluated] = {}
    done, total = 0, examiner.pieces * len(missing)

    def tell() -> None:
        nonlocal done
        done += 1
        events.emit("progress", what="evaluating", done=done, total=total)

    for step, checkpoint in missing.items():
        try:
            found[step] = examiner.examine(key, step, checkpoint, tell)
        except (OSError, UserError) as error:
            folder.check_run()
            if checkpoint is None or (checkpoint / LORA).is_file():
                raise
            message = f"The checkpoint of step {step} was removed meanwhile: {error}"
            events.emit("warning", step, code="evaluation.gone", message=message, hint="The others are evaluated.")
            continue
        folder.write(found[step])
        events.emit("evaluation", step, **found[step].model_dump(include=_TOLD))
    return found


_TOLD = {"validation_loss", "drift", "image_similarity", "prompt_similarity", "copies", "seconds"}


def _compared(
    run: Run, settings: EvaluationSettings, key: str, known: list[Evaluated], facts: dict[str, Any]
) -> Evaluation:
    """All that is known under these settings side by side; the best one is one that is still there."""
    known = sorted(known, key=lambda each: each.step)
    there = {step_of(path) for path in checkpoints(run.checkpoints_dir)} | {BASE_STEP}
    kept = [each for each in known if each.step in there]
    best, why = best_of(kept, held_out=facts["held_out"], marked=_marked_best(run))
    hints = hints_of(known, held_out=facts["held_out"])
    return Evaluation(key=key, settings=settings, checkpoints=known, best=best, why=why, hints=hints, **facts)


def _marked_best(run: Run) -> int | None:
    """The step that training marked as its best; None where it marks none."""
    saved = [event for event in read_events(run.events_path) if event["type"] == "checkpoint"]
    return next((int(event["step"]) for event in reversed(saved) if event.get("best")), None)


@contextmanager
def _memory_told() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = "The memory does not suffice for the evaluation."
        raise UserError("evaluation.memory", message, "End other programs, or lower train.batch_size.") from error
