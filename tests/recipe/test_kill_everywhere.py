"""Killed at any change of a file, and again while it goes on, a run resumes and ends as if never interrupted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forked
from tests.file_operations import CAN_WATCH, KILL, Answer, Operation, Watched
from tests.recipe.kill_states import Files, Moment, Moments, contents, moments_of
from tests.recipe.tiny_runs import QUICK_PROMPT, losses_of, of_type, quick_settings
from tests.tiny_models import tiny_model
from trainer.checkpoint_folders import checkpoints, is_valid, step_of
from trainer.config import Config
from trainer.config_io import save_config
from trainer.errors import UserError
from trainer.runs.events import EventTail
from trainer.runs.store import Run

pytestmark = pytest.mark.skipif(not CAN_WATCH, reason="needs Linux' answers to system calls")

ASKED = os.environ.get("LORA_ATELIER_FAULTS", "")
"""``all``: each moment of a run of 30 steps; a number: each so-manieth; without, a few of a run of 6."""
STEPS = 30 if ASKED else 6
TRIED_OF_A_FEW, TRIED_OF_A_RESUMED = 12, 5
ONE_EACH_SESSION = (".lock", "train.log", "events.jsonl", "run.json")


@pytest.fixture(scope="module")
def configured(config_of: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints, of which old ones go, previews, validation and caches."""
    folder = tmp_path_factory.mktemp("configured")
    changes: dict[str, Any] = {
        **quick_settings(tiny_model("sd1", folder / "model"), STEPS),
        "samples": {"every_steps": STEPS // 2, "at_start": True, "prompts": [QUICK_PROMPT]},
        "validation": {"split": 0.34, "every_steps": STEPS // 2},
        "output": {"save_every_steps": STEPS // 3, "keep_last": 2, "precision": "float"},
    }
    save_config(config_of(**changes), folder / "config.yaml")
    return folder / "config.yaml"


def arguments(configured: Path, workspace: Path) -> tuple[str, ...]:
    return ("train", str(configured), "--workspace", str(workspace), "--run-dir", str(workspace / "runs" / "one"))


@pytest.fixture(scope="module")
def whole(configured: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The run that nobody touches."""
    folder = tmp_path_factory.mktemp("whole")
    command = arguments(configured, folder / "workspace")
    found = moments_of(folder / "workspace", [configured.parent, pictures], folder / "copies", *command)
    return Whole(Run(folder / "workspace" / "runs" / "one"), found, configured)


@dataclass(frozen=True)
class Whole:
    """A run that came to its end, its moments, and its settings."""

    run: Run
    found: Moments
    configured: Path

    @cached_property
    def lasting(self) -> Files:
        """What a run that was resumed must leave, too."""
        return _lasting(contents(self.run.workspace.dir))


def test_killed_at_any_change_of_a_file(whole: Whole) -> None:
    try_all(whole.found, whole, TRIED_OF_A_FEW)


def test_resumed_and_killed_at_any_change_of_a_file(whole: Whole, pictures: Path, tmp_path: Path) -> None:
    """Killed while it saves its second checkpoint; then again at any change of the run that goes on."""
    run = Run(tmp_path / "workspace" / "runs" / "one")
    step = 2 * (STEPS // 3)

    def answer(operation: Operation) -> Answer:
        return KILL if operation.path.match(f".unfinished-step-{step:06d}/state.pt") else None

    first = Watched([run.workspace.dir], answer, *arguments(whole.configured, run.workspace.dir))
    assert first.wait() == -9
    others = [whole.configured.parent, pictures]
    found = moments_of(run.workspace.dir, others, tmp_path / "copies", "resume", str(run.dir))
    compare(run, whole)
    try_all(found, whole, TRIED_OF_A_RESUMED)


def try_all(found: Moments, whole: Whole, few: int) -> None:
    """Resume from each moment, from ``few`` of them where not all are asked for, and expect the untouched run."""
    stride = 1 if ASKED == "all" else int(ASKED or len(found.moments) // few)
    tried = found.moments[::stride]
    with ThreadPoolExecutor(2) as pool:
        problems = list(pool.map(lambda moment: problem_after(moment, whole), tried))
    failed = [problem for problem in problems if problem is not None]
    counts = f"{found.changes} changes, {len(found.moments)} different states, {len(tried)} tried, {len(failed)} failed"
    print(f"\n{counts}")  # noqa: T201
    assert len(found.moments) > 100 and tried
    assert not failed, "\n".join(failed)


def problem_after(moment: Moment, whole: Whole) -> str | None:
    """What is wrong after a kill at a moment and a resumed run; None where all is well."""
    try:
        resume_from(moment, whole.configured)
        compare(Run(moment.workspace / "runs" / "one"), whole)
    except (AssertionError, OSError, UserError) as error:
        return f"{moment}: {error}"[:2000]
    return None


def resume_from(moment: Moment, configured: Path) -> None:
    """Start the run again, as its user would, and see that nothing told up to the last checkpoint is lost."""
    run = Run(moment.workspace / "runs" / "one")
    if run.info_path.is_file():
        if run.read().state == "finished":
            return
        assert run.status().state == "failed", "a run whose process is gone is not running"
        command = ("resume", str(run.dir))
    else:
        assert not run.dir.exists(), "a run is there with all it needs, or not at all"
        command = arguments(configured, moment.workspace)
    before = run.events_path.read_bytes() if run.events_path.exists() else b""
    saved = max((step_of(path) for path in checkpoints(run.checkpoints_dir) if is_valid(path)), default=0)
    told = {event["step"] for event in EventTail(run.events_path).read() if event["type"] == "metric"}
    assert told >= set(range(1, saved + 1)), f"steps up to the checkpoint {saved} were not told"
    process = forked.start(*command, "--json", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    assert process.wait() == 0, process.communicate()
    assert run.events_path.read_bytes().startswith(before), "events are only ever added"


def compare(run: Run, whole: Whole) -> None:
    """The same files with the same bytes, the same losses, and every preview and checkpoint told."""
    assert run.read().state == "finished"
    assert losses_of(run) == losses_of(whole.run)
    for kind, key in (("sample", "path"), ("checkpoint", "path"), ("validation", "step")):
        told, should = ({event[key] for event in of_type(each, kind)} for each in (run, whole.run))
        assert told == should, f"{kind} events: {told ^ should}"
    mine, others = _lasting(contents(run.workspace.dir)), whole.lasting
    assert mine.keys() == others.keys(), f"files: {mine.keys() ^ others.keys()}"
    differing = [name for name in mine if mine[name] != others[name]]
    assert not differing, f"other contents: {differing}"


def _lasting(files: Files) -> Files:
    """Files but those that tell when something was, or of which process."""
    compared = {name: data for name, data in files.items() if not name.endswith((".lock", ".holder", ".wanted"))}
    return {name: _content(name, data) for name, data in compared.items()}


def _content(name: str, data: bytes) -> bytes:
    """What has to be the same: of a training state its values, as pickling depends on which strings are one object.

    Not the time at which the run's length was asked for, nor the order in which threads have read pictures.
    """
    if name.endswith(ONE_EACH_SESSION):
        return b""
    if name.endswith("state.pt"):
        return repr(_plain(torch.load(BytesIO(data), weights_only=True))).encode()
    if "/latents/files/" in name and name.endswith(".json"):
        return repr(sorted(json.loads(data).items())).encode()
    if name.endswith("manifest.json"):
        return re.sub(rb'"state.pt": {[^}]*}', b"", data)
    return data


def _plain(value: Any) -> Any:
    """Tensors within dictionaries and lists as their bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "asked"}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("call", ["rename", "write"])
def test_a_process_that_is_killed_leaves_just_that(call: str, configured: Path, tmp_path: Path) -> None:
    """What the copies stand for: a process that is really killed, while it saves its first checkpoint."""
    folder = tmp_path / "killed"
    moments: list[Operation] = []

    def answer(operation: Operation) -> Answer:
        moments.append(operation)
        return KILL if operation.call == call and ".unfinished-" in str(operation.path) else None

    watched = Watched([folder], answer, *arguments(configured, folder / "workspace"))
    assert watched.wait() == -9
    there = contents(folder / "workspace")
    copy = Moment(moments[-1], False, folder / "workspace")
    assert any(".unfinished-" in name for name in there), sorted(there)
    resume_from(copy, configured)
    assert Run(folder / "workspace" / "runs" / "one").read().state == "finished"
    assert not any(".unfinished-" in name for name in contents(folder / "workspace"))
