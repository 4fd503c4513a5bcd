"""Command lines of sd-scripts, as they are pasted from Linux, Windows and PowerShell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.import_samples import check, files_of, imported, is_valid, note_of, told
from trainer.errors import UserError
from trainer.imports.kinds.command_line import parse_flags, split_command
from trainer.imports.reading import import_path, import_text

KIND = "command_line"
FILES = [path for path in files_of(KIND) if path.suffix == ".txt"]
EXPECTED: dict[str, dict[str, Any]] = {
    "linux": {
        "name": "my_lora",
        "model.base": "/models/sd 15.safetensors",
        "lora.rank": 32,
        "lora.alpha": 16,
        "train.optimizer": "adamw8bit",
        "train.optimizer_args": {"weight_decay": 0.1, "betas": [0.9, 0.99]},
        "train.learning_rate": 1e-4,
        "train.text_encoder_learning_rate": 5e-5,
        "train.lr_scheduler": "cosine",
        "train.lr_warmup_steps": 100,
        "train.max_steps": 2000,
        "train.mixed_precision": "fp16",  # the launcher's bf16 is overruled by the script's own
        "dataset.sources.0.path": "/data/img",
        "dataset.sources.1.path": "/data/reg pics",
        "dataset.sources.1.is_regularization": True,
        "dataset.resolution": 512,
    },
    "windows_caret": {
        "model.base": "D:\\models\\sd_xl_base_1.0.safetensors",
        "model.family": "sdxl",
        "lora.rank": 64,
        "lora.train": "unet",
        "train.optimizer": "prodigy",
        "train.optimizer_args": {"decouple": True, "weight_decay": 0.01, "d_coef": 2},
        "train.epochs": 10,
        "train.gradient_checkpointing": "all",
        "loss.min_snr_gamma": 5,
        "dataset.sources.0.path": "D:\\pics\\my girl\\img",
        "dataset.resolution": 1024,
    },
    "powershell": {
        "model.base": "D:\\m.ckpt",
        "lora.rank": 8,
        "train.clip_skip": 2,
        "dataset.sources.0.path": "D:\\pics",
        "dataset.captions.max_token_length": 225,
    },
    "flags_only": {"lora.rank": 16, "lora.alpha": 16, "train.max_steps": 500, "train.optimizer": "adamw"},
    "lycoris_one_line": {
        "lora.type": "lokr",
        "lora.rank": 8,
        "lora.alpha": 4,
        "lora.lokr_factor": 8,
        "lora.conv_rank": 4,
        "lora.dropout": 0.1,
        "lora.rank_stabilized": False,
        "train.learning_rate": 5e-4,
    },
    "config_file": {"name": "override", "model.base": "/m.safetensors", "lora.rank": 64, "lora.alpha": 4},
    "dataset_config": {
        "model.family": "sdxl",
        "train.epochs": 5,
        "train.batch_size": 3,
        "dataset.sources.0.path": "/data/x",
        "dataset.sources.0.repeats": 2,
        "dataset.caption_extension": ".txt",
        "dataset.resolution": 1024,
    },
    "missing_config_files": {"lora.rank": 16, "dataset.sources": []},
    "hyphens_and_secrets": {
        "lora.rank": 4,
        "dataset.sources.0.path": "/data",
        "dataset.captions.keep_tokens": 0,
    },
    "flux": {"model.family": "auto", "lora.rank": 4, "train.optimizer": "adamw8bit"},
    "escaped_blanks": {
        "dataset.sources.0.path": "/data/my pics",
        "dataset.captions.shuffle": True,
        "dataset.captions.keep_tokens_separator": "|||",
        "dataset.augment.flip": True,
        "loss.noise_offset": 0.05,
        "samples.every_steps": 100,
    },
    "repeated_and_empty": {
        "lora.rank": 12,
        "train.optimizer": "adamw8bit",
        "train.optimizer_args": {},
        "train.text_encoder_learning_rate": 1e-5,
        "train.lora_precision": "fp16",
        "dataset.sources": [],
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_are_what_the_command_asked_for(name: str) -> None:
    kind_of_files = {path.stem: path for path in FILES}
    assert kind_of_files[name].suffix == ".txt"
    assert is_valid(check(KIND, name, EXPECTED[name]).config)


def test_there_is_an_expectation_for_each_of_the_twelve_commands() -> None:
    assert {path.stem for path in FILES} == set(EXPECTED)
    assert len(EXPECTED) == 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_flag_is_told(path: Path) -> None:
    words = split_command(path.read_text())
    script = next((number for number, word in enumerate(words) if word.endswith(".py")), -1)
    keys = set(parse_flags(words[script + 1 :])) - {"network_args"}
    assert keys <= set(told(import_path(path).report))


def test_losses_are_told_with_their_reason() -> None:
    report = imported(KIND, "missing_config_files").report
    assert "import it by itself" in note_of(report.no_equivalent, "config_file")
    assert "not here" in note_of(report.no_equivalent, "dataset_config")
    report = imported(KIND, "hyphens_and_secrets").report
    assert "not a key that is known" in note_of(report.no_equivalent, "unknown_flag")
    assert "SECRET" not in str(report)
    assert "flux models cannot be trained" in note_of(imported(KIND, "flux").report.no_equivalent, "script")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("accelerate launch train_network.py --output_name 'abc --seed 1", "not closed"),
        ("accelerate launch sdxl_train.py --seed 1", "something else than a LoRA"),
        ("accelerate launch fine_tune.py --seed 1", "something else than a LoRA"),
    ],
)
def test_what_cannot_be_read_is_told(command: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        import_text(command, "the text")
