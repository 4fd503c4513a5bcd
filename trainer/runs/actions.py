"""What a person can ask of a run, whatever state it is in: used by the page and by ``trainer runs``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

from trainer.checkpoint_folders import MANIFEST, checkpoint_at, checkpoints, is_valid, step_of
from trainer.config import SamplePrompt, SampleSettings
from trainer.config_io import parse_config, parse_section, save_config
from trainer.errors import UserError
from trainer.remote.hosts import check_place
from trainer.runs import control
from trainer.runs.bin import Bin, BinItem
from trainer.runs.control import Request
from trainer.runs.store import ALIVE, ENDED, Run, RunInfo
from trainer.runs.worker import enqueue, ensure_workers, requeue

NOTE_CHARACTERS = 2000


def ask(run: Run, request: Request) -> RunInfo:
    """Ask a running trainer for something, ``resume`` and ``stop`` also for runs that are not running.

    Raises UserError when it makes no sense in the run's state.
    """
    if request not in get_args(Request):
        raise UserError(
            "run.request", f"{request!r} cannot be asked of a run.", "Requests: " + ", ".join(get_args(Request))
        )
    if request == "stop":
        return stop(run)
    if request == "resume":
        return resume(run)
    info = run.status()
    if info.state not in ALIVE:
        raise UserError("run.not_running", f"The run {run.id} is {info.state}, not running.", "Resume it first.")
    control.ask(run.control_dir, request)
    return info


def stop(run: Run) -> RunInfo:
    """Take a queued run out of the queue, or ask a running one to save and end."""
    with run.lock():  # a worker takes a queued run under this lock
        info = run.status_locked()
        if info.state == "queued":
            return run.update_locked(state="stopped", ended=time.time())
    if info.state in ENDED:
        raise UserError("run.ended", f"The run {run.id} is {info.state} already.", "There is nothing to stop.")
    control.ask(run.control_dir, "stop")
    return info


def resume(run: Run) -> RunInfo:
    """Let a paused run go on, queue a stopped or failed one again, see to it that a queued one gets its worker.

    Raises UserError where there is nothing to resume, and where a queued one waits for a device that is not here.
    """
    info = run.status()
    if info.state == "paused":
        control.ask(run.control_dir, "resume")
    elif info.state in ("stopped", "failed"):
        requeue(run)
    elif info.state == "queued":
        check_place(run.workspace, info.wanted_device)
        ensure_workers(run.workspace)
    elif info.state == "finished":
        raise UserError("run.ended", f"The run {run.id} is finished.", "To go on, extend it: give it more steps.")
    else:
        raise UserError("run.alive", f"The run {run.id} is {info.state} already.", "There is nothing to resume.")
    return run.read()


def delete(run: Run) -> BinItem:
    """Move a run that is not running into the bin of its workspace. Raises UserError while it is."""
    with run.lock():
        info = run.status_locked()
        if info.state in ALIVE:
            raise UserError("run.alive", f"The run {run.id} is still going.", "Stop it first.")
        if info.host is not None:
            message = f"The run {run.id} goes on on {info.host}."
            hint = "Resume follows it; stop it then. `remote give-up` in a terminal if it is lost there."
            raise UserError("run.elsewhere", message, hint)
        if info.state == "queued":
            run.update_locked(state="stopped", ended=time.time())
    return Bin(run.workspace.dir).put(run.dir, "run", info.name)


def delete_checkpoint(run: Run, step: int) -> BinItem:
    """Move a checkpoint into the bin. Raises UserError when there is none of this step."""
    return Bin(run.workspace.dir).put(checkpoint_of(run, step), "checkpoint", f"{run.read().name}, step {step}")


def extended_to(info: RunInfo, more: int) -> int:
    """The step that a run ends at after so many steps more, counted from where it stands, as planned or not."""
    return info.step + more


def extend(run: Run, more: int) -> Run:
    """Queue an ended run again for so many steps more than it has done. Raises UserError for fewer than one."""
    if more < 1:
        raise UserError("run.extend", f"Steps more: {more} given, 1 or more are allowed.", "Type how many to add.")
    return requeue(run, max_steps=extended_to(run.read(), more))


def checkpoint_of(run: Run, step: int) -> Path:
    """The folder of a run's checkpoint. Raises UserError when there is none of this step."""
    folder = checkpoint_at(run.checkpoints_dir, step)
    if not (folder / MANIFEST).is_file():
        steps = ", ".join(str(step_of(path)) for path in checkpoints(run.checkpoints_dir)) or "none"
        message = f"The run {run.id} has no checkpoint of step {step}; it has {steps}."
        raise UserError("checkpoint.unknown", message, "Choose one of these.")
    return folder


def continue_from(run: Run, step: int, max_steps: int) -> Run:
    """Queue a new run that goes on from a checkpoint of this one, with its settings, up to ``max_steps``.

    It is trained exactly as this run would have been from there: optimizer, schedule and random draws go on. The run
    itself stays as it is. Raises UserError when the checkpoint is not there or not whole, or ``max_steps`` too few.
    """
    checkpoint = checkpoint_of(run, step)
    if not is_valid(checkpoint):
        raise UserError("checkpoint.damaged", f"The checkpoint of step {step} is damaged.", "Choose another one.")
    if max_steps <= step:
        message = f"Steps in all: {max_steps} given, and the checkpoint has {step} behind it."
        raise UserError("run.max_steps", message, f"Give more than {step}.", "train.max_steps")
    config = run.config()
    config.train.max_steps, config.train.epochs = max_steps, None
    return enqueue(run.workspace, config, checkpoint=checkpoint)


def rename(run: Run, name: str) -> RunInfo:
    """Give a run and its finished LoRA another name, in its config too. Raises UserError for one that cannot be."""
    with run.lock():
        info = run.status_locked()
        if info.state == "stopping":
            raise UserError("run.stopping", f"The run {run.id} is just being saved.", "Rename it in a moment.")
        config = parse_config(run.config().model_dump() | {"name": name})
        before, after = run.output_path, run.output_dir / f"{config.name}.safetensors"
        if after != before and after.exists():
            message = f"name: there is a file {after.name} in the run's output already."
            raise UserError("run.name_taken", message, "Choose another name, or move that file.", "name")
        if before.is_file():
            before.replace(after)
        save_config(config, run.config_path)
        return run.update_locked(name=config.name)


def note(run: Run, text: str) -> RunInfo:
    """Keep a note on a run, in place of the one before. Raises UserError when it is too long."""
    if len(text) > NOTE_CHARACTERS:
        message = f"note: {len(text)} characters given, at most {NOTE_CHARACTERS} are kept."
        raise UserError("run.note", message, "Shorten it.", "note")
    return run.update(note=text.strip())


def change_prompts(run: Run, prompts: list[str]) -> list[SamplePrompt]:
    """Draw other previews from now on: one prompt a line of text, see ``prompt_lines``.

    A run that is going is asked for it, and its config follows with the next step; else the config is changed at once.
    Raises UserError with every problem.
    """
    with run.lock():
        going = run.status_locked().state in ALIVE
        config = run.config()
        samples = parse_section(SampleSettings, config.samples.model_dump() | {"prompts": prompts})
        if going:
            control.give_prompts(run.control_dir, [prompt.model_dump() for prompt in samples.prompts])
        else:
            config.samples = samples
            save_config(config, run.config_path)
    return samples.prompts


def prompts_of(run: Run) -> list[SamplePrompt]:
    """The preview prompts that are drawn next: those of ``change_prompts`` that a going run has yet to take, too."""
    waiting = control.waiting_prompts(run.control_dir)
    samples = run.config().samples
    if waiting is None:
        return samples.prompts
    return parse_section(SampleSettings, samples.model_dump() | {"prompts": waiting}).prompts
