"""Steps that are replayed from graphs equal called ones to the bit: the very code of a GPU, with graphs of the CPU."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.recipe.single_steps import made_of, values
from tests.recipe.tiny_runs import Watcher, losses_of, of_type, states_of, stop_at, train_here
from tests.tiny_models import tiny_model
from tests.unit.capture_checker import RecordedGraph
from trainer import late_numbers, recipe, step_calls
from trainer.bench import measure
from trainer.config import Config
from trainer.config_io import parse_config
from trainer.data.training_set import Batch
from trainer.graphs import GraphMaker
from trainer.learning import Learning
from trainer.processor_graph import ProcessorGraph
from trainer.recipe import train_step
from trainer.runs import control
from trainer.runs.events import read_events
from trainer.runs.store import Run, Workspace
from trainer.step_calls import Calls

STEPS = 3
"""The first is called, the second captured and replayed."""


def recording() -> GraphMaker:
    """A maker of graphs of the CPU, in which torch's own generator may be drawn from."""
    return functools.partial(RecordedGraph, draws=True)


def batch_of(index: int, height: int = 8) -> Batch:
    """Two random pictures."""
    generator = torch.Generator().manual_seed(100 + index)
    return Batch(
        latents=torch.randn(2, 4, height, 8, generator=generator),
        captions=[f"a sks {index}", "sks, blue"],
        loss_weights=torch.rand(2, generator=generator),
        sizes=torch.randint(64, 999, (2, 6), generator=generator),
        paths=[],
        masks=torch.rand(2, 1, height, 8, generator=generator),
    )


def steps_of(
    config: Config,
    replayed: bool,
    batches: Callable[[int], Batch] = batch_of,
    steps: int = STEPS,
    makers: Callable[[], GraphMaker] = recording,
) -> tuple[list[list[float]], list[Tensor], dict[str, Any]]:
    """Numbers of some steps, the values they end with, and the saved state."""
    ingredients, learning, trainables = made_of(config)
    told: list[str] = []
    calls = Calls(learning, makers, told.append) if replayed else Calls()
    numbers = []
    for _ in range(steps):
        numbers.append(train_step(ingredients, learning, batches, calls).tolist())
        learning.heard(numbers[-1][1])
    assert told == [] and (calls.graphs > 0) == replayed
    return numbers, [each.detach().clone() for each in values(trainables)], learning.state()


def check_same(config: Config, **options: Any) -> list[list[float]]:
    """Called and replayed steps have the same numbers, values and states; returns the numbers."""
    called, replayed = steps_of(config, False, **options), steps_of(config, True, **options)
    assert str(replayed[0]) == str(called[0])  # as words: NaN is not NaN
    assert all(torch.equal(*pair) for pair in zip(called[1], replayed[1], strict=True))
    for name in ("scaler", "skipped", "optimizer", "ema"):
        assert_alike(called[2][name], replayed[2][name])
    return called[0]


def assert_alike(one: Any, other: Any) -> None:
    """Nested states are the same to the bit, but for the sign of zero."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list | tuple):
        for pair in zip(one, other, strict=True):
            assert_alike(*pair)
    else:
        assert one == other


CONFIGS: dict[str, dict[str, Any]] = {
    "everything": {
        "lora__train": "both",
        "lora__dropout": 0.3,
        "lora__rank_dropout": 0.3,
        "lora__module_dropout": 0.3,
        "lora__max_norm": 0.5,
        "train__ema": 0.9,
        "train__gradient_accumulation_steps": 2,
        "train__loraplus_lr_ratio": 4,
        "train__optimizer_args": {"weight_decay": 0.3, "amsgrad": True},
        "loss__type": "huber",
        "loss__huber_schedule": "snr",
        "loss__min_snr_gamma": 5,
        "loss__noise_offset": 0.1,
        "loss__input_perturbation": 0.1,
        "loss__preserve": {"class_word": "dog", "weight": 0.7},
        "output__trigger": "sks",
        "dataset__captions": {"weighted": True, "max_token_length": 150},
    },
    "dora": {"lora__type": "dora"},
    "nf4": {"model__quantize": "nf4", "train__gradient_checkpointing": "some"},
    "int8": {"model__quantize": "int8", "train__gradient_checkpointing": "all"},
    "loha": {"lora__type": "loha", "train__max_grad_norm": 0},
    "lokr": {"lora__type": "lokr", "train__gradient_checkpointing": "all"},
    "sixteen bits": {"train__lora_precision": "bf16"},
    "lion": {"train__optimizer": "lion"},
    "prodigy": {"train__optimizer": "prodigy", "train__learning_rate": 1.0},
    "sgd": {"train__optimizer": "sgd", "train__optimizer_args": {"momentum": 0.9}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_replayed_step_is_the_called_one(config_of: Callable[..., Config], name: str) -> None:
    numbers = check_same(config_of(**{"lora__target": "attention", **CONFIGS[name]}))
    assert len({loss for loss, *_ in numbers}) == STEPS


@pytest.mark.parametrize("kind", ["sd2-v", "sdxl"])
def test_so_it_is_of_other_families(config_of: Callable[..., Config], kind: str, tmp_path: Path) -> None:
    model = str(tiny_model(kind, tmp_path / kind))
    check_same(config_of(model__base=model, lora__target="attention", lora__train="both"))


@pytest.mark.parametrize(
    "options",
    [
        {"lora__target": "full", "lora__dropout": 0.3, "train__gradient_checkpointing": "all"},
        {"lora__target": "attention", "lora__rank_dropout": 0.3, "lora__type": "loha"},
    ],
    ids=["checkpoints", "loha"],
)
def test_what_is_drawn_again_in_the_backward_pass_is_the_same_on_a_processor(
    config_of: Callable[..., Config], options: dict[str, Any]
) -> None:
    check_same(config_of(**options), makers=lambda: ProcessorGraph)


@pytest.mark.parametrize("name", ["everything", "int8", "loha", "prodigy"])
def test_so_is_a_step_that_a_processor_replays(config_of: Callable[..., Config], name: str) -> None:
    check_same(config_of(**{"lora__target": "attention", **CONFIGS[name]}), makers=lambda: ProcessorGraph)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_and_one_of_sdxl_on_a_processor(config_of: Callable[..., Config], precision: str, tmp_path: Path) -> None:
    model = str(tiny_model("sdxl", tmp_path / "sdxl"))
    options = {"lora__target": "full", "train__mixed_precision": precision}
    check_same(config_of(model__base=model, **options), makers=lambda: ProcessorGraph)


def test_a_run_on_a_processor_is_the_same_to_the_byte_when_it_is_replayed(
    config_of: Callable[..., Config], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_calls, "CALLED_FIRST_ON_CPU", 2)
    made: list[Calls] = []
    find = recipe.calls_of
    monkeypatch.setattr(recipe, "calls_of", lambda *given, **more: made.append(find(*given, **more)) or made[-1])
    runs = [
        workspace.create_run(config_of(lora__target="attention", train__max_steps=6, train__compile=how))
        for how in ("off", "auto")
    ]
    for run in runs:
        train_here(run)
    assert made[0].graphs == 0 and made[1].graphs >= 2  # an update, and batches of one or more sizes
    assert str(losses_of(runs[0])) == str(losses_of(runs[1]))
    assert runs[0].output_path.read_bytes() == runs[1].output_path.read_bytes()


def test_sizes_by_turns_and_a_step_without_finite_gradient(config_of: Callable[..., Config]) -> None:
    """The step leaves weights, averages and counts as they are, and the device says so by itself."""

    def batches(index: int) -> Batch:
        batch = batch_of(index, 10 if index % 4 == 2 else 8)
        return replace(batch, latents=batch.latents * math.nan) if index == 4 else batch

    config = config_of(lora__target="attention", train__ema=0.9, lora__max_norm=0.5)
    numbers = check_same(config, batches=batches, steps=8)
    assert [step for step, (_, norm, _) in enumerate(numbers) if not math.isfinite(norm)] == [4]


class WithoutPlace(Learning):
    """A fault: gradients that begin anew in other memory."""

    def _forget(self, gradients: Any) -> None:
        self.stays_in_place = False
        super()._forget(gradients)


def test_gradients_that_lie_elsewhere_end_the_replays(config_of: Callable[..., Config]) -> None:
    ingredients, learning, _ = made_of(config_of(lora__target="attention"))
    told: list[str] = []
    calls = Calls(learning, recording, told.append)
    learning.__class__ = WithoutPlace  # type: ignore[assignment]
    for _ in range(STEPS):
        train_step(ingredients, learning, batch_of, calls)
    assert len(told) == 1 and calls.graphs == 0 and learning.step == STEPS


@pytest.fixture
def replaying(monkeypatch: pytest.MonkeyPatch) -> list[Calls]:
    """Runs within are replayed, and their numbers are read late; the calls of each run."""
    made: list[Calls] = []

    def calls_of(config: Config, learning: Learning, *others: Any, **more: Any) -> Calls:
        made.append(Calls(learning, recording))
        return made[-1]

    monkeypatch.setattr(recipe, "calls_of", calls_of)
    monkeypatch.setattr(late_numbers, "steps_ahead", lambda device: 2)
    return made


def poisoned(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A batch that has no finite gradient."""
    inputs = recipe.batch_inputs

    def watched(ingredients: recipe.Ingredients, batch: Batch, index: int) -> Any:
        found = inputs(ingredients, batch, index)
        return replace(found, noise=found.noise * math.nan) if index == at else found

    monkeypatch.setattr(recipe, "batch_inputs", watched)


def told(run: Run) -> list[tuple[str, int]]:
    """What happened at which step, in the order of the file."""
    kinds = ("metric", "checkpoint", "validation", "warning")
    return [(event["type"], event["step"]) for event in read_events(run.events_path) if event["type"] in kinds]


def test_whole_runs_end_with_the_same_bytes(
    config_of: Callable[..., Config], workspace: Workspace, monkeypatch: pytest.MonkeyPatch, replaying: list[Calls]
) -> None:
    """Disturbed ones too: a step without finite gradient, a pause, a stop and going on."""
    poisoned(monkeypatch, at=3)
    validation = {"validation__split": 0.34, "validation__every_steps": 3}
    config = config_of(lora__target="attention", train__ema=0.9, train__max_steps=7, **validation)
    plain, replayed, disturbed = (workspace.create_run(config) for _ in range(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "calls_of", lambda *_, **__: Calls())
        patch.setattr(late_numbers, "steps_ahead", lambda device: 0)
        train_here(plain)
    train_here(replayed)
    assert replaying[-1].graphs == 2
    assert str(losses_of(replayed)) == str(losses_of(plain)) and told(replayed) == told(plain)
    assert ("warning", 4) in told(plain)

    stop_at(disturbed, ("checkpoint", 3))
    pause = {("metric", 4): lambda: control.ask(disturbed.control_dir, "pause")}
    watcher = Watcher({**pause, ("paused", 6): lambda: control.ask(disturbed.control_dir, "resume")})
    train_here(disturbed, watcher)
    assert "paused" in states_of(disturbed)
    assert str(losses_of(disturbed)) == str(losses_of(plain))
    for run in (replayed, disturbed):
        assert run.output_path.read_bytes() == plain.output_path.read_bytes()
    steps = [event["step"] for event in of_type(replayed, "metric")]
    assert steps == list(range(1, 8))


@pytest.mark.skipif(os.environ.get("LORA_ATELIER_MEASURE") != "1", reason="takes minutes")
def test_two_hundred_steps_are_the_same_to_the_bit(config_of: Callable[..., Config]) -> None:
    check_same(config_of(lora__target="attention", train__ema=0.99), steps=200)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_on_a_gpu_too(
    config_of: Callable[..., Config], workspace: Workspace, precision: str, deterministic: bool
) -> None:
    """Bit-equal in the deterministic mode, within the format's noise without it."""
    changes = {"train__deterministic": deterministic, "train__mixed_precision": precision, "train__max_steps": 200}
    runs = [
        workspace.create_run(config_of(lora__dropout=0.2, lora__train="both", train__compile=how, **changes))
        for how in ("off", "auto")
    ]
    for run in runs:
        train_here(run)
    called, replayed = (losses_of(run) for run in runs)
    assert not [event for event in of_type(runs[1], "warning") if event["code"] == "train.compile"]
    if deterministic:
        assert replayed == called and runs[0].output_path.read_bytes() == runs[1].output_path.read_bytes()
    else:
        assert [replayed[step] for step in called] == pytest.approx(list(called.values()), rel=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(os.environ.get("LORA_ATELIER_MEASURE") != "1", reason="asks for the speed of one H200")
@pytest.mark.parametrize(("family", "resolution", "steps_per_s"), [("sd1", 512, 60), ("sdxl", 1024, 14)])
def test_steps_are_as_fast_as_they_should_be(family: str, resolution: int, steps_per_s: float) -> None:
    """LoRA of rank 16 in bf16 at batch 1, cached latents and texts, random weights of the usual size."""
    settings = {
        "model": {"family": family},
        "dataset": {"resolution": resolution},
        "train": {"max_steps": 40, "mixed_precision": "bf16"},
    }
    watcher = Watcher()
    measured = measure(parse_config(settings), size="full", model_given=False, events=watcher)
    assert not [event for event in watcher.events if event.get("code") == "train.compile"]
    assert measured.images_per_s >= steps_per_s
