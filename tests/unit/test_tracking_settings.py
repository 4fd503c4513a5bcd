"""What trackers are told of a run's settings."""

from __future__ import annotations

import pytest

from trainer.config_io import parse_config
from trainer.config_paths import PATH_FIELDS
from trainer.errors import UserError
from trainer.tracking.plain_settings import plain_settings

HOME = "/home/somebody/private"


def config_with_paths(**tracking: object):
    """A private path in every setting that takes one."""
    return parse_config(
        {
            "model": {"base": f"{HOME}/base.safetensors", "vae": f"{HOME}/vae"},
            "dataset": {
                "sources": [
                    {"path": f"{HOME}/pictures", "mask_path": f"{HOME}/masks", "metadata_file": f"{HOME}/a.json"}
                ]
            },
            "loss": {"masked": "mask"},
            "validation": {"path": f"{HOME}/held-out"},
            "lora": {
                "init_from": f"{HOME}/first.safetensors",
                "merge_before_training": [{"path": f"{HOME}/x.safetensors"}],
            },
            "trackers": ["tensorboard"],
            "tracking": tracking,
        }
    )


def test_paths_are_private_unless_asked_for() -> None:
    sent = plain_settings(config_with_paths())
    assert "somebody" not in repr(sent)
    assert (sent["model.base"], sent["dataset.sources.0.path"]) == ("base.safetensors", "pictures")
    assert sent["lora.merge_before_training.0.path"] == "x.safetensors"
    asked = plain_settings(config_with_paths(paths=True))
    named = [name for name, value in asked.items() if HOME in str(value)]
    assert len(named) == len(PATH_FIELDS) and asked["validation.path"] == f"{HOME}/held-out"


def test_everything_is_sent_flat() -> None:
    sent = plain_settings(parse_config({"model": {"base": "owner/name"}, "samples": {"prompts": ["a cat"]}}))
    assert sent["train.learning_rate"] == 1e-4 and sent["model.base"] == "owner/name"
    assert sent["samples.prompts.0.prompt"] == "a cat" and sent["dataset.sources"] == "[]"
    assert all(isinstance(value, str | int | float | bool | None) for value in sent.values())


def test_trackers_that_nobody_knows_are_told() -> None:
    with pytest.raises(UserError) as caught:
        parse_config({"trackers": ["mlflow"]})
    problem = caught.value.problems[0]
    assert problem.field == "trackers.0" and "'tensorboard', 'wandb' or 'trackio'" in problem.message
    assert parse_config({}).trackers == []
