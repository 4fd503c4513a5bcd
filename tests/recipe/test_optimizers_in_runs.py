"""Optimizers in whole runs: what is saved, resumed, reported and refused."""

from __future__ import annotations

import pytest
import torch

from tests.recipe.tiny_runs import losses_of, of_type, stop_at, train_here
from trainer.__main__ import main
from trainer.errors import UserError
from trainer.lora.file import read_lora
from trainer.runs import control
from trainer.runs.settings import AppSettings, write_settings
from trainer.runs.store import Workspace

MODULES = {"schedule_free_adamw": "schedulefree", "prodigy": "prodigyopt"}


@pytest.mark.parametrize("name", MODULES)
def test_a_stopped_run_ends_as_an_undisturbed_one(workspace: Workspace, config_of, name: str) -> None:
    """With a save asked for on the way: it must change nothing."""
    pytest.importorskip(MODULES[name], reason=f"the package {MODULES[name]} is not installed")
    settings = {"train__optimizer": name, "train__lr_scheduler": "constant", "train__learning_rate": 1.0}
    config = config_of(**settings | ({} if name == "prodigy" else {"train__learning_rate": 1e-3}), train__max_steps=5)
    undisturbed, stopped = workspace.create_run(config), workspace.create_run(config)
    train_here(undisturbed)
    control.ask(stopped.control_dir, "save")
    stop_at(stopped, ("checkpoint", 3))
    train_here(stopped)
    assert losses_of(stopped) == losses_of(undisturbed)
    assert stopped.output_path.read_bytes() == undisturbed.output_path.read_bytes()
    assert any(event["step"] == 1 for event in of_type(stopped, "checkpoint"))


def test_the_saved_lora_is_the_mean_of_a_schedule_free_run(workspace: Workspace, config_of) -> None:
    pytest.importorskip("schedulefree", reason="the package schedulefree is not installed")
    changes = {"train__optimizer": "schedule_free_adamw", "train__lr_scheduler": "constant", "train__max_steps": 4}
    run = workspace.create_run(config_of(**changes, output__save_every_steps=0))
    train_here(run)
    state = torch.load(run.checkpoints_dir / "step-000004" / "state.pt", weights_only=True)
    ups = torch.cat([layer.up.flatten() for layer in read_lora(run.output_path).layers.values()]).sort().values
    pairs = list(zip(state["parameters"], state["optimizer"]["state"].values(), strict=True))[1::2]  # y = .1 z + .9 x
    trained_at = torch.cat([y.flatten() for y, _ in pairs]).sort().values
    mean = torch.cat([((y - 0.1 * values["z"]) / 0.9).flatten() for y, values in pairs]).sort().values
    torch.testing.assert_close(ups, mean, rtol=1e-5, atol=1e-9)
    assert not torch.allclose(ups, trained_at, rtol=1e-3, atol=0)


def test_prodigys_own_rate_is_reported_and_a_small_one_is_warned_of(workspace: Workspace, config_of) -> None:
    pytest.importorskip("prodigyopt", reason="the package prodigyopt is not installed")
    changes = {"train__optimizer": "prodigy", "train__lr_scheduler": "constant", "train__learning_rate": 0.5}
    run = workspace.create_run(
        config_of(**changes, train__max_steps=8, train__optimizer_args={"d0": 1e-5, "d_coef": 50.0})
    )
    train_here(run)
    rates = [event["lr"] for event in of_type(run, "metric")]
    assert rates[0] == pytest.approx(0.5e-5) and rates[-1] > rates[0]
    assert "optimizer.own_rate" in [event["code"] for event in of_type(run, "warning")]


def test_only_what_the_workspace_allows_is_loaded(workspace: Workspace, config_of) -> None:
    config = config_of(train__optimizer="torch.optim.NAdam", train__max_steps=2)
    refused = workspace.create_run(config)
    with pytest.raises(UserError, match="Settings"):
        train_here(refused)
    assert refused.read().state == "failed" and not of_type(refused, "metric")
    write_settings(workspace, AppSettings(allowed_optimizers=["torch.optim.NAdam"]))
    allowed = workspace.create_run(config)
    train_here(allowed)
    assert read_lora(allowed.output_path).metadata["ss_optimizer"] == "torch.optim.NAdam"


def test_an_extended_run_follows_the_longer_schedule(workspace: Workspace, config_of) -> None:
    """REX, the rate times 2 (1 - z) / (2 - z): three steps of three, then on to six."""
    run = workspace.create_run(config_of(train__lr_scheduler="rex", train__learning_rate=1e-3, train__max_steps=3))
    train_here(run)
    assert main(["resume", str(run.dir), "--max-steps", "6", "--json"]) == 0
    shares = [0, 1 / 3, 2 / 3, 3 / 6, 4 / 6, 5 / 6]
    rates = [event["lr"] for event in of_type(run, "metric")]
    assert rates == pytest.approx([1e-3 * 2 * (1 - z) / (2 - z) for z in shares])
