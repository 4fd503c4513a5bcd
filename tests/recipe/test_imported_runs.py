"""Imported settings are trained as they say, and what the finished file tells of its training is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.single_steps import batch_of, made_of, values
from tests.recipe.tiny_runs import SIDE, make_pictures, of_type, train_here
from tests.tiny_models import tiny_model
from tests.unit.import_asked import ASKED
from tests.unit.import_samples import FOLDER, imported
from trainer.config import ModelSettings
from trainer.imports.draft import at
from trainer.imports.reading import import_path
from trainer.lora.file import read_lora
from trainer.recipe import train_step
from trainer.runs.store import Workspace


def test_a_kohya_file_trains_what_it_asks_for(tmp_path: Path, workspace: Workspace) -> None:
    """A sample of the imports on the demo model; its file then gives the same settings again."""
    folder = make_pictures(tmp_path / "img" / "2_ohwx girl").parent
    make_pictures(tmp_path / "reg" / "1_girl")
    values: dict[str, Any] = json.loads((FOLDER / "kohya_gui" / "sd15_character_reg.json").read_text())
    values |= {
        "pretrained_model_name_or_path": "demo",
        "train_data_dir": str(folder),
        "reg_data_dir": str(tmp_path / "reg"),
        "max_resolution": str(SIDE),
        "max_train_steps": 2,
        "max_token_length": 75,
        "mixed_precision": "no",
        "sample_every_n_epochs": 0,
        "sample_prompts": "",
        "save_every_n_epochs": 0,
        "min_bucket_reso": SIDE,
    }
    file = tmp_path / "kohya.json"
    file.write_text(json.dumps(values))
    config = import_path(file).config
    run = workspace.create_run(config)
    train_here(run)
    told = read_lora(run.output_path).metadata
    expected = {
        "ss_network_dim": "32",
        "ss_network_alpha": "16",
        "ss_learning_rate": "0.0001",
        "ss_text_encoder_lr": "5e-05",
        "ss_optimizer": "adamw(weight_decay=0.1,betas=[0.9, 0.99])",
        "ss_lr_scheduler": "cosine_with_restarts",
        "ss_lr_num_cycles": "3",
        "ss_min_snr_gamma": "5.0",
        "ss_prior_loss_weight": "0.8",
        "ss_clip_skip": "2",
        "ss_seed": "1234",
        "ss_num_reg_images": "6",
    }
    assert {key: told.get(key) for key in expected} == expected
    assert [event["step"] for event in of_type(run, "metric")] == [1, 2]
    _reads_back(run.output_path, config.model_dump(mode="json"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("sd1", tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    "sample",
    ["sd_scripts/with_dataset_config", "command_line/flags_only", "kohya_gui/old_with_bom_crlf",
     "onetrainer/loha_weights_and_noise", "ai_toolkit/sdxl_prodigy_te"],
)  # fmt: skip
def test_two_steps_of_a_file_of_each_kind(sample: str, model: Path) -> None:
    config = imported(*sample.split("/")).config
    config.model, config.lora.init_from, config.train.lr_warmup_steps = ModelSettings(base=str(model)), None, 0
    ingredients, learning, trainables = made_of(config)
    assert type(learning.optimizer).__name__ == ASKED[sample].optimizer
    before = [parameter.detach().clone() for parameter in values(trainables)]
    for _ in range(2):
        loss, norm, _ = train_step(ingredients, learning, batch_of).tolist()
        assert 0 < loss < 10
        assert 0 < norm < 1e4
    changed = [bool((old != new).any()) for old, new in zip(before, values(trainables), strict=True)]
    assert sum(changed) > 0.9 * len(changed)


def _reads_back(file: Path, wanted: dict[str, Any]) -> None:
    """All that a file of ours can tell: everything but where things lie and what does not change what is learned."""
    found = import_path(file).config.model_dump(mode="json")
    names = [f"{section}.{name}" for section in ("lora", "loss") for name in wanted[section]]
    names += [f"train.{name}" for name in wanted["train"] if name not in ("epochs", "text_encoder_learning_rate")]
    names += ["dataset.captions", "dataset.augment", "dataset.resolution", "output.title", "output.tags"]
    differing = {name: (at(found, name), at(wanted, name)) for name in names if at(found, name) != at(wanted, name)}
    assert differing == {}
