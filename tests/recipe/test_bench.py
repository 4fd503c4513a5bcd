"""``trainer bench``: the promised keys, from the recipe's own step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.__main__ import command_parser
from trainer.bench import Measurement, measure
from trainer.commands import bench
from trainer.config import Config
from trainer.config_io import parse_config
from trainer.devices import compute_dtype
from trainer.errors import UserError
from trainer.families import FAMILIES
from trainer.families.base import Conditioning
from trainer.profiling import growth
from trainer.profiling import profile as profile_module
from trainer.runs.events import Events

KEYS = (
    "step_ms_median step_ms_p90 images_per_s load_s compile_s first_step_s peak_vram_bytes peak_rss_bytes steps "
    "family size resolution batch rank precision device torch"
)


def test_the_answer_has_the_promised_keys_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = {"max_steps": 4, "batch_size": 2, "gradient_checkpointing": True}
    config = parse_config({"dataset": {"resolution": 64, "cache": {"to_disk": True}}, "train": train})
    answer = measure(config, size="demo", model_given=False, events=Events())
    assert list(vars(answer)) == KEYS.split()
    assert isinstance(answer, Measurement) and answer.steps == 4 and answer.batch == 2 and answer.resolution == 64
    assert 0 < answer.step_ms_median <= answer.step_ms_p90
    assert answer.images_per_s > 0 and answer.peak_rss_bytes > 2**20
    assert "step_ms_median" in bench.describe(vars(answer))
    assert not list(tmp_path.iterdir())


def test_a_model_that_no_files_stand_for() -> None:
    """The demo's folder has one text encoder, SDXL two."""
    settings = {"model": {"family": "sdxl"}, "dataset": {"resolution": 64}, "train": {"max_steps": 1}}
    assert measure(parse_config(settings), size="demo", model_given=False, events=Events()).family == "sdxl"


def asked(*options: str) -> dict[str, Any]:
    """What the command answers on the smallest pictures."""
    args = command_parser("bench", bench).parse_args(["--resolution", "64", "--steps", "4", *options])
    return bench.run(args, Events())


def test_a_profile_stands_beside_the_promised_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "PROFILED_STEPS", 1)
    trace = tmp_path / "trace.json"
    answer = asked("--profile", "--trace", str(trace))
    assert list(answer) == [*KEYS.split(), "profile"]
    profile = answer["profile"]
    json.dumps(answer)
    phases = {phase["name"]: phase["ms"] for phase in profile["phases"]}
    assert set(phases) >= {"data", "inputs", "forward", "loss", "backward", "clipping", "optimizer"}
    assert phases["forward"] + phases["backward"] > 0.5 * profile["profiled_step_ms"]
    assert 0 < profile["matrix_share"] < 1 and profile["kernels"] is None and profile["operations"] > 1000
    memory = profile["memory"]
    assert memory["gradients"] == memory["lora"] and memory["optimizer"] >= 2 * memory["lora"]
    assert memory["activations"] > 0 and memory["peak"] >= memory["denoiser"] + memory["activations"]
    assert json.loads(trace.read_text())["traceEvents"]
    assert "attn" in bench.describe(answer) and "layer" in bench.describe(answer)
    with pytest.raises(UserError, match="is there already"):
        asked("--trace", str(trace))


def test_the_table_of_a_growing_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_BATCHES", (2,))
    monkeypatch.setattr(growth, "_SIDES", (2,))
    ranks = [changes["lora.rank"] for _, changes in growth.variations(Config()) if "lora.rank" in changes]
    assert ranks == [4, 64, 128], "each is measured against the default of 16"
    monkeypatch.setattr(growth, "_RANKS", ())
    answer = asked("--table")
    rows = {row["what"]: row for row in answer["rows"]}
    assert list(rows) == ["batch 1, rank 16, 64 x 64", "batch 2", "128 x 128"]
    assert rows["batch 2"]["flops"] == pytest.approx(2.0, rel=0.05) and rows["128 x 128"]["flops"] > 3.5
    assert rows["128 x 128"]["operations"] == pytest.approx(1.0, abs=0.05)
    assert rows["128 x 128"]["memory"] > 1.1
    assert "128 x 128" in bench.describe(answer)


def test_gradient_checkpointing_and_precision_change_only_rounding() -> None:
    """Random weights of the demo's size, the same each time, on the same question."""
    answers = []
    for dtype, checkpointing in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, False)):
        torch.manual_seed(0)
        family = FAMILIES["sd1"].random("demo", device=torch.device("cpu"), dtype=dtype)
        family.denoiser.train()
        if checkpointing:
            family.save_memory("all")
        generator = torch.Generator().manual_seed(1)
        noisy = torch.randn(1, 4, 8, 8, generator=generator)
        states = torch.randn(1, 77, 64, generator=generator, requires_grad=True)
        answer = family.predict(noisy, torch.tensor([10]), Conditioning(states, {}), torch.zeros(1, 6))
        answer.float().sum().backward()
        answers.append((answer.detach().float(), states.grad))
    plain, checkpointed, half = answers
    torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-6)
    assert (half[0] - plain[0]).abs().max() < 0.1 * plain[0].abs().max()


def test_precision_by_name() -> None:
    cpu = torch.device("cpu")
    names = {name: compute_dtype(name, cpu) for name in ("auto", "no", "fp16", "bf16")}
    assert names == {"auto": torch.float32, "no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
