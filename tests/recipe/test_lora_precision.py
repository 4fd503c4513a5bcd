"""LoRA weights in 16 bits in whole runs: what is on disk, resuming, and that they learn as float32 does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from tests.recipe.tiny_runs import losses_of, of_type, stop_at, train_here
from trainer.config import Config
from trainer.lora.file import read_lora
from trainer.runs.store import Run, Workspace

FEW = {"lora__target": "attention", "train__max_steps": 4, "output__save_every_steps": 2, "lora__rank_dropout": 0.2}


def change_of(run: Run) -> torch.Tensor:
    layers = read_lora(run.output_path).layers
    return torch.cat([layers[key].delta(torch.float64).flatten() for key in sorted(layers)])


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_stopped_run_in_sixteen_bits_ends_as_an_undisturbed_one(
    workspace: Workspace, config_of: Callable[..., Config], precision: str, dtype: torch.dtype
) -> None:
    drawn = {"samples__every_steps": 2, "samples__prompts": [{"prompt": "red", "steps": 1, "width": 64, "height": 64}]}
    kind = {"bf16": drawn, "fp16": {"lora__type": "lokr", "output__precision": "bf16"}}[precision]
    config = config_of(**FEW, **kind, train__lora_precision=precision)
    undisturbed, stopped = workspace.create_run(config), workspace.create_run(config)
    train_here(undisturbed)
    stop_at(stopped, ("checkpoint", 2))
    state = torch.load(stopped.checkpoints_dir / "step-000002" / "state.pt", weights_only=True)
    assert {parameter.dtype for parameter in state["parameters"]} == {dtype}
    assert {each["exp_avg_sq"].dtype for each in state["optimizer"]["state"].values()} == {torch.bfloat16}
    train_here(stopped)
    assert losses_of(stopped) == losses_of(undisturbed) and not of_type(undisturbed, "warning")
    assert stopped.output_path.read_bytes() == undisturbed.output_path.read_bytes()
    file = load_file(stopped.output_path)
    saved = {tensor.dtype for name, tensor in file.items() if not name.endswith(".alpha")}
    assert saved == {torch.bfloat16 if "output__precision" in kind else torch.float32}, "the file's own precision"


def test_sixteen_bits_learn_what_float32_learns(workspace: Workspace, config_of: Callable[..., Config]) -> None:
    """With steps far below what bfloat16 tells apart in the down factors."""
    changes = {"lora__target": "attention", "train__max_steps": 8, "train__learning_rate": 2e-4}
    runs = [workspace.create_run(config_of(**changes, train__lora_precision=each)) for each in ("float32", "bf16")]
    for run in runs:
        train_here(run)
    full, rounded = map(change_of, runs)
    assert float(full @ rounded / full.norm() / rounded.norm()) > 0.95
    assert float(rounded.norm() / full.norm()) == pytest.approx(1, abs=0.1)
    losses = [torch.tensor(list(losses_of(run).values())) for run in runs]
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0)
    assert not torch.equal(*losses)
