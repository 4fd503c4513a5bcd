"""The config model: every field explained, every choice built, limits that hold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from trainer.config import (
    Config,
    LrScheduler,
    Multires,
    Optimizer,
    SamplePrompt,
    Sampler,
    Section,
    Source,
    TrainSettings,
    options,
)
from trainer.config_io import parse_config
from trainer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DESIGN_KEYS = {
    "model": "base family vae revision quantize",
    "dataset": "sources resolution caption_extension buckets captions augment cache",
    "lora": "type rank alpha conv_rank conv_alpha dropout rank_dropout module_dropout target "
    "include exclude block_ranks init_from train",
    "train": "max_steps epochs batch_size gradient_accumulation_steps learning_rate text_encoder_learning_rate "
    "optimizer optimizer_args lr_scheduler lr_warmup_steps max_grad_norm mixed_precision gradient_checkpointing "
    "compile seed clip_skip ema prior_loss_weight",
    "loss": "type min_snr_gamma debiased_estimation noise_offset multires_noise input_perturbation zero_terminal_snr "
    "prediction_type timestep_sampling min_timestep max_timestep masked",
    "samples": "every_steps at_start prompts",
    "validation": "split every_steps",
    "output": "save_every_steps keep_last precision formats trigger title author license hub_repo",
}


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        yield f"{prefix}{name}", info
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fields(inner, f"{prefix}{name}.")


ALL_FIELDS = [
    *_fields(Config),
    *_fields(Source, "source."),
    *_fields(SamplePrompt, "prompt."),
    *_fields(Multires, "m."),
]
BY_NAME = dict(ALL_FIELDS)


def _is_section(info: FieldInfo) -> bool:
    return isinstance(info.annotation, type) and issubclass(info.annotation, Section)


@pytest.mark.parametrize("name", [name for name, info in ALL_FIELDS if not _is_section(info)])
def test_every_setting_is_explained(name: str) -> None:
    description = BY_NAME[name].description
    assert description, f"{name} has no docstring"
    assert description.rstrip().endswith((".", "`")), f"{name}: a sentence ends with a full stop"


@pytest.mark.parametrize("name", [name for name, info in ALL_FIELDS if info.json_schema_extra])
def test_every_form_field_has_a_label(name: str) -> None:
    extra = BY_NAME[name].json_schema_extra
    assert isinstance(extra, dict)
    assert extra["label"]


def test_names_that_checks_rely_on_exist() -> None:
    for section, names in DESIGN_KEYS.items():
        model: Any = Config.model_fields[section].annotation
        assert set(names.split()) <= set(model.model_fields), section


def test_the_defaults_are_a_valid_config() -> None:
    assert Config.model_validate(Config().model_dump()) == Config()
    assert Config.model_validate(Config().model_dump(mode="json")) == Config()


def test_every_optimizer_is_built() -> None:
    from trainer.optimizer_classes import OPTIMIZERS

    assert set(options(Optimizer)) == {*OPTIMIZERS, "custom"}  # each is made and used in test_optimizers.py


def test_every_learning_rate_schedule_is_built() -> None:
    from trainer.schedulers import learning_rate_factor

    for name in options(LrScheduler):
        factor = learning_rate_factor(TrainSettings(lr_scheduler=name, lr_warmup_steps=2), 10)
        assert 0 <= factor(5) <= 1


def test_every_sampler_is_built() -> None:
    from trainer.samplers import make_scheduler

    base = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    for name in options(Sampler):
        scheduler = make_scheduler(name, base)
        scheduler.set_timesteps(4)
        assert len(scheduler.timesteps) >= 4


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("model", {"share_out": True, "offload": 0.5}),
        ("lora", {"rank": 0}),
        ("lora", {"rank": True}),
        ("lora", {"alpha": 0}),
        ("lora", {"dropout": 1}),
        ("lora", {"include": ["("]}),
        ("lora", {"block_ranks": {"(": 4}}),
        ("lora", {"block_ranks": {"a": -1}}),
        ("train", {"learning_rate": float("nan")}),
        ("train", {"learning_rate": -1}),
        ("train", {"epochs": 0}),
        ("train", {"seed": 2**63}),
        ("train", {"ema": 1.0}),
        ("train", {"lr_warmup_steps": 1.5}),
        ("train", {"lr_warmup_steps": -1}),
        ("train", {"lr_decay_steps": 0.0, "lr_min_ratio": 1.0}),
        ("loss", {"min_timestep": 500, "max_timestep": 500}),
        ("loss", {"debiased_estimation": True, "min_snr_gamma": 5}),
        ("dataset", {"resolution": 100}),
        ("dataset", {"resolution": [[512, 100]]}),
        ("dataset", {"caption_extension": "txt"}),
        ("validation", {"split": 1.0}),
        ("validation", {"split": 0.1, "path": "x"}),
        ("validation", {"early_stop_patience": 3}),
        ("validation", {"split": 0.1, "early_stop_patience": 0}),
        ("loss", {"unmasked_weight": 0.1}),
        ("output", {"keep_best": True}),
        ("output", {"use_best": True}),
        ("output", {"save_at": [0]}),
        ("output", {"keep_last": 0}),
    ],
)
def test_impossible_values_are_refused(section: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({section: values})


def test_the_best_checkpoint_needs_a_validation_and_is_kept_where_something_needs_it() -> None:
    with pytest.raises(UserError) as caught:
        parse_config({"output": {"use_best": True}, "validation": {"early_stop_patience": 2}})
    assert [problem.field for problem in caught.value.problems] == ["validation"], "what it hangs on is told first"
    with pytest.raises(
        UserError, match=r"output: use_best needs a validation: set validation.split or validation.path"
    ):
        parse_config({"output": {"use_best": True}})
    validated = {"split": 0.2}
    assert not parse_config({"validation": validated}).keeps_best
    assert parse_config({"validation": validated, "output": {"keep_best": True}}).keeps_best
    assert parse_config({"validation": validated, "output": {"use_best": True}}).keeps_best
    assert parse_config({"validation": {"path": "x", "early_stop_patience": 1}}).keeps_best


def test_zero_is_a_value() -> None:
    config = Config.model_validate(
        {"train": {"learning_rate": 0, "max_grad_norm": 0, "prior_loss_weight": 0, "text_encoder_learning_rate": 0}}
    )
    assert config.train.learning_rate == 0
    assert config.train.text_encoder_learning_rate == 0
    assert Config.model_validate(config.model_dump()) == config


def test_an_empty_section_has_its_defaults() -> None:
    assert Config.model_validate({"lora": None, "dataset": {"buckets": None}}) == Config()


@pytest.mark.parametrize("resolution", [512, [512, 768], [[512, 768]]])
def test_resolution_takes_its_three_forms(resolution: Any) -> None:
    dumped = Config.model_validate({"dataset": {"resolution": resolution}}).model_dump(mode="json")
    assert dumped["dataset"]["resolution"] == resolution


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "a\\b", " a", "a ", "a:b", "a\nb", "", "x" * 81])
def test_names_that_cannot_be_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Config(name=name)


def test_options_are_the_values_of_a_choice() -> None:
    assert options(Optimizer) == get_args(Optimizer)


@pytest.mark.parametrize(
    "module",
    ["trainer.config", "trainer.config_io", "trainer.jobs", "trainer.processes", "trainer.runs.store",
     "trainer.runs.events", "trainer.runs.control", "trainer.runs.worker", "trainer.runs.actions", "trainer.__main__",
     "trainer.commands.runs", "trainer.commands.worker", "trainer.commands.job", "trainer.commands.merge"],
)  # fmt: skip
def test_light_modules_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(' '.join({{'torch', 'diffusers', 'gradio'}} & set(sys.modules)) or 0)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"captions": {"shuffel": True}}, "'shuffel' is not a setting of a folder"),
        ({"captions": {"max_token_length": 150}}, "'max_token_length' is not a setting of a folder"),
        ({"captions": {"dropout": 2}}, "dropout: "),
        ({"augment": {"flip": "perhaps"}}, "flip: "),
        ({"augment": {"rotate": True}}, "flip, color, random_crop"),
    ],
)
def test_what_a_folder_cannot_set_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Source.model_validate({"path": "x", **given})
    [error] = caught.value.errors()
    assert told in error["msg"] and error["loc"] == (next(iter(given)),)


def test_a_folders_settings_lie_over_the_datasets() -> None:
    dataset = Config.model_validate(
        {
            "dataset": {
                "captions": {"prefix": "all", "dropout": 0.5},
                "augment": {"flip": True},
                "sources": [{"path": "a"}, {"path": "b", "captions": {"dropout": 0}, "augment": {"flip": False}}],
            }
        }
    ).dataset
    assert dataset.captions_of(0) == dataset.captions and dataset.augment_of(0) == dataset.augment
    assert dataset.captions_of(1) == dataset.captions.model_copy(update={"dropout": 0.0})
    assert not dataset.augment_of(1).flip
    assert Config.model_validate(Config(dataset=dataset).model_dump(mode="json")).dataset == dataset


@pytest.mark.parametrize(
    ("masked", "mask_path", "told"),
    [
        ("mask", None, "no folder of dataset.sources has a mask_path"),
        (False, "masks", "dataset.sources.0 has a mask_path"),
        ("alpha", "masks", "dataset.sources.0 has a mask_path"),
        ("mask", "masks", None),
        ("alpha", None, None),
    ],
)
def test_masks_and_the_loss_go_together(masked: Any, mask_path: str | None, told: str | None) -> None:
    values = {"dataset": {"sources": [{"path": "a", "mask_path": mask_path}]}, "loss": {"masked": masked}}
    if told is None:
        assert Config.model_validate(values).loss.masked == masked
        return
    with pytest.raises(ValidationError, match=told) as caught:
        Config.model_validate(values)
    assert caught.value.errors()[0]["loc"] == ("loss",)
