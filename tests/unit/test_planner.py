"""The pre-flight: counts that training then keeps to, pictures worth a look, estimates, warnings, the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import ROOT
from tests.unit.dataset_samples import (
    Recorded,
    config_for,
    cut_off,
    never_stop,
    noise_picture,
    write_picture,
    write_pictures,
)
from trainer.__main__ import main
from trainer.config import Config, LoraSettings, ModelSettings
from trainer.data.epoch import lay_out, total_steps
from trainer.data.picture_notes import about_tokens
from trainer.data.training_set import prepare_training_set
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.estimates import training_memory
from trainer.families import load_family
from trainer.measurements import measured
from trainer.model_sizes import ModelSizes, model_sizes
from trainer.pace import Costs
from trainer.planner import Plan, arithmetic, plan
from trainer.runs.settings import AppSettings, write_settings
from trainer.runs.store import Workspace
from trainer.usual_models import USUAL_MODELS

XL, _, SD = (usual.units for usual in USUAL_MODELS)
SD15 = ModelSizes(859_520_964, 123_060_480, 83_653_863, 320, 768, 3_190_000, SD, known=True, adapted=266_977_280)
SDXL = ModelSizes(2_567_463_684, 817_720_320, 83_653_863, 320, 2048, 5_000_000, XL, known=True, adapted=2_207_744_000)
GIB = 2**30


def planned(folder: Path, **sections: Any) -> Plan:
    return plan(config_for(folder, **sections))


def codes(found: Plan) -> set[str]:
    return {warning.code for warning in found.warnings}


def sources(*given: tuple[Path, int] | tuple[Path, int, bool]) -> dict[str, Any]:
    return {
        "sources": [{"path": str(each[0]), "repeats": each[1], "is_regularization": len(each) > 2} for each in given]
    }


def test_the_arithmetic_of_an_epoch(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", [(64, 64)] * 24)
    write_pictures(tmp_path / "b", [(64, 64)] * 2)

    def line(dataset: dict[str, Any], **train: int) -> str:
        config = config_for(dataset=dataset, train=train)
        return arithmetic(config, lay_out(config))

    a, b = tmp_path / "a", tmp_path / "b"
    assert line(sources((a, 10)), batch_size=4) == "24 pictures x 10 repeats / 4 = 60 steps an epoch"
    assert line(sources((a, 10)), batch_size=4, gradient_accumulation_steps=2) == (
        "24 pictures x 10 repeats / (4 x 2) = 30 steps an epoch"
    )
    assert line(sources((a, 1)), batch_size=5) == (
        "24 pictures x 1 repeat / 5 = 5 steps an epoch, 1 short batch included"
    )
    assert line(sources((a, 1), (b, 3)), batch_size=2) == (
        "(24 pictures x 1 repeat + 2 pictures x 3 repeats) / 2 = 15 steps an epoch"
    )
    assert line(sources((b, 2), (a, 1, True))) == (
        "(2 pictures x 2 repeats + 4 regularization pictures x 1 repeat) / 1 = 8 steps an epoch"
    )
    assert line({**sources((b, 2)), "resolution": [64, 128]}) == (
        "2 pictures x 2 repeats x 2 resolutions / 1 = 8 steps an epoch"
    )


def test_training_keeps_to_the_plan(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "3_x", [(64, 64)] * 5 + [(200, 64)] * 4)
    config = config_for(
        tmp_path / "in",
        dataset={"resolution": 128, "augment": {"flip": True}},
        train={"batch_size": 4, "epochs": 2, "gradient_accumulation_steps": 3},
        validation={"split": 0.2},
    )
    found = plan(config)
    family = load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)
    data = prepare_training_set(config, family, tmp_path / "cache", Recorded(), never_stop)
    assert data.batches_per_epoch == found.batches_per_epoch == sum(bucket.batches for bucket in found.buckets)
    assert data.pictures == found.pictures == 7 and found.validation_pictures == 2
    assert found.max_steps == total_steps(config.train, data.batches_per_epoch)
    assert found.views_per_epoch == 21 == sum(bucket.views for bucket in found.buckets)
    sizes = {data.batch(index).latents.shape[:0:-1][:2] for index in range(data.batches_per_epoch)}
    assert sizes == {(bucket.width // 8, bucket.height // 8) for bucket in found.buckets}


def test_epochs_win_over_steps(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(64, 64)] * 10)
    found = planned(tmp_path, train={"max_steps": 77})
    assert (found.max_steps, found.epochs, found.steps_per_epoch) == (77, 7.7, 10)
    found = planned(tmp_path, train={"max_steps": 77, "epochs": 3})
    assert (found.max_steps, found.epochs) == (30, 3)


def test_pictures_worth_a_look_are_listed_by_name(tmp_path: Path) -> None:
    write_picture(tmp_path / "fine.png", 512, 512, caption="a dog")
    write_picture(tmp_path / "wide.png", 1000, 520, caption="a dog")  # 704 x 320 of 704 x 366
    write_picture(tmp_path / "strip.png", 2000, 100, caption="a dog")
    write_picture(tmp_path / "small.png", 200, 200, caption="a dog")
    write_picture(tmp_path / "mute.png", 512, 512)
    write_picture(tmp_path / "empty.png", 512, 512, caption=" \n")
    write_picture(tmp_path / "long.png", 512, 512, caption="word " * 90)
    cut_off(write_picture(tmp_path / "broken.png", 512, 512))
    found = planned(tmp_path, dataset={"resolution": 512, "buckets": {"upscale": True}})
    names = {field: [Path(note.path).name for note in getattr(found.notes, field)] for field in vars(found.notes)}
    assert names == {
        "skipped": ["broken.png"],
        "unused": [],
        "cropped": ["strip.png"],
        "enlarged": ["small.png", "strip.png"],
        "small": [],
        "without_caption": ["mute.png"],
        "empty_caption": ["empty.png"],
        "long_caption": ["long.png"],
    }
    assert found.notes.cropped[0].note.startswith("80% cut off (2000 x 100 trained at 1024 x 256")
    assert found.notes.enlarged[0].note == "2.6 times as large"
    assert codes(found) >= {
        "dataset.skipped_picture", "dataset.heavy_crop", "dataset.enlarged", "dataset.no_caption",
        "dataset.empty_caption", "dataset.long_caption",
    }  # fmt: skip
    kept = planned(tmp_path, dataset={"resolution": 512})
    assert [Path(note.path).name for note in kept.notes.small] == ["small.png", "strip.png"]
    assert kept.notes.enlarged == []


def test_a_clean_dataset_gives_no_warning(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(64, 64)] * 4, "a dog, {}".format)
    found = planned(tmp_path, train={"max_steps": 100})
    assert found.warnings == []


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ({"train": {"max_steps": 3}}, "train.less_than_an_epoch"),
        ({"train": {"lr_warmup_steps": 100, "max_steps": 100}}, "train.warmup"),
        ({"train": {"batch_size": 5}}, "dataset.thin_buckets"),
        ({"output": {"trigger": "sks"}}, "output.trigger_unused"),
        ({"dataset": {"buckets": {"step": 64}, "resolution": 120}}, "dataset.small"),
    ],
)
def test_warnings_about_settings(tmp_path: Path, sections: dict[str, Any], code: str) -> None:
    write_pictures(tmp_path, [(90, 70)] * 4, "a dog, {}".format)
    found = planned(tmp_path, **sections)
    warning = next(warning for warning in found.warnings if warning.code == code)
    assert warning.hint and warning.message and warning.field


def test_warnings_about_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path / "10_dog", [(64, 64)] * 2)
    assert "dataset.repeats_folder" in codes(planned(tmp_path / "10_dog"))
    assert "dataset.repeats_folder" not in codes(planned(tmp_path))
    write_pictures(tmp_path / "2024_summer", [(64, 64)])
    assert "dataset.many_repeats" in codes(planned(tmp_path))
    write_pictures(tmp_path / "prior", [(64, 64)] * 50)
    found = plan(config_for(dataset=sources((tmp_path / "10_dog", 1), (tmp_path / "prior", 1, True))))
    assert "dataset.unused_regularization" in codes(found) and found.regularization_pictures == 2
    lonely = planned(tmp_path / "2024_summer", validation={"split": 0.5})
    assert "validation.nothing" in codes(lonely)


def test_a_trigger_in_the_prefix_counts(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(64, 64)] * 2)
    found = planned(tmp_path, output={"trigger": "sks"}, dataset={"captions": {"prefix": "Sks"}})
    assert "output.trigger_unused" not in codes(found)


@pytest.mark.parametrize(
    ("caption", "least", "most"),
    [("", 0, 0), ("a dog", 2, 2), ("a dog, in the grass.", 7, 7), ("1234", 4, 4), ("extraordinarily", 2, 4)],
)
def test_tokens_are_guessed(caption: str, least: int, most: int) -> None:
    assert least <= about_tokens(caption) <= most


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    config = config_for(tmp_path / "nowhere", tmp_path, model={"base": "/no/such/model"})
    with pytest.raises(UserError) as caught:
        plan(config)
    assert [problem.code for problem in caught.value.problems] == [
        "dataset.missing_folder", "dataset.no_pictures", "model.not_found",
    ]  # fmt: skip
    with pytest.raises(UserError) as caught:
        model_sizes(ModelSettings(base=str(tmp_path)), LoraSettings())
    assert caught.value.problems[0].code == "model.not_a_model"


@pytest.mark.parametrize(
    "lora",
    [
        {"target": "attention", "rank": 4},
        {"target": "attention_ff", "rank": 8, "train": "both"},
        {"target": "full", "rank": 2, "conv_rank": 3, "train": "text_encoder"},
        {"target": "full", "rank": 2, "conv_rank": 3},
        {"target": "attention", "train": "both"},
        {"rank": 8, "train": "both", "block_ranks": {"^text_encoder": 2}, "exclude": ["^unet.mid_block"]},
    ],
)
def test_sizes_from_file_headers_are_those_of_the_loaded_model(lora: dict[str, Any]) -> None:
    settings = LoraSettings(**lora)
    sizes = model_sizes(ModelSettings(), settings)
    family = load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)
    text = family.text_encoders["text_encoder"]
    assert sizes.denoiser == sum(each.numel() for each in family.denoiser.parameters())
    assert sizes.text == sum(each.numel() for each in text.parameters())
    assert sizes.channels == 32 and sizes.known
    targets = family.adapter_targets(settings.target, conv=settings.conv_rank > 0)
    expected = 0
    for part, module in (("unet", family.denoiser), ("text_encoder", text)):
        if settings.train not in (part, "both"):
            continue
        for name in targets[part]:
            if settings.exclude and part == "unet" and name.startswith("mid_block"):
                continue
            weight = module.get_submodule(name).weight
            rank = settings.conv_rank if weight.ndim == 4 and weight.shape[-1] == 3 else settings.rank
            rank = 2 if settings.block_ranks and part == "text_encoder" else rank
            expected += rank * (weight[0].numel() + weight.shape[0])
    assert sizes.lora == expected


def test_text_encoders_count_only_while_they_are_needed(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(64, 64)])

    def weights(**sections: Any) -> int:
        return planned(tmp_path, **sections).estimate.vram_parts.weights

    text = model_sizes(ModelSettings(), LoraSettings()).text
    rest = weights(dataset={"cache": {"text": True}})
    for needed in (
        {"dataset": {"cache": {"text": False}}},
        {"dataset": {"captions": {"shuffle": True}}},
        {"lora": {"train": "both"}},
    ):
        assert weights(**needed) == rest + text * 2


def test_an_absent_hub_model_is_estimated_as_sd15(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(64, 64)])
    found = planned(tmp_path, model={"base": "nobody/not-on-this-machine"})
    assert "model.download" in codes(found) and "Stable Diffusion 1.5" in found.estimate.vram_note
    assert found.estimate.vram_bytes > 2 * GIB
    larger = planned(tmp_path, model={"base": "somebody/some-XL-model"})
    assert "Stable Diffusion XL" in larger.estimate.vram_note
    assert larger.estimate.vram_bytes > found.estimate.vram_bytes + 3 * GIB


@pytest.mark.parametrize(
    ("sizes", "side", "checkpointing", "measured"),
    [(SD15, 512, "off", 2.9), (SD15, 512, "all", 2.0), (SDXL, 1024, "off", 13.0), (SDXL, 1024, "all", 6.5)],
)
def test_memory_agrees_with_what_was_measured_elsewhere(
    sizes: ModelSizes, side: int, checkpointing: str, measured: float
) -> None:
    """GiB at batch 1 in 16 bit on an H100, text encoders and VAE put away (SimpleTuner's sweep, with PEFT's layers).

    A tenth less is expected: layers that share an input keep it once, and with checkpointing frozen convolutions none.
    """
    config = Config.model_validate(
        {"lora": {"target": "attention"}, "train": {"gradient_checkpointing": checkpointing}}
    )
    memory = training_memory(config, sizes, side * side, texts_rest=True)
    found = (memory.total - memory.overhead) / GIB
    assert found == pytest.approx(0.9 * measured, rel=0.1)


def test_memory_grows_with_what_makes_it_grow() -> None:
    def total(px: int = 512 * 512, lora: dict[str, Any] | None = None, **train: Any) -> int:
        config = Config.model_validate({"train": train, "lora": lora or {}})
        return training_memory(config, SD15, px).total

    base = total()
    assert total(px=1024 * 1024) > base and total(batch_size=4) == total(px=1024 * 1024)
    assert (
        total(gradient_checkpointing="all") < total(gradient_checkpointing="some") < base < total(mixed_precision="no")
    )
    assert total(optimizer="adamw8bit") < base < total(ema=0.99)
    assert total(lora={"target": "attention"}) < base
    rounded = SD15.lora * 2  # a LoRA's factors in 16 bits
    assert total(lora={"type": "loha"}) == base + SD15.adapted * 2 - rounded
    assert total(lora={"type": "loha"}, gradient_checkpointing="all") == total(gradient_checkpointing="all") - rounded


VALIDATION = {"split": 0.5, "every_steps": 25, "timesteps": 3, "noises": 2}


def make_run(workspace: Workspace, config: Config, steps_s: list[float], checkpoint_s: float = 0.0) -> str:
    run = workspace.create_run(config)
    events: list[dict[str, Any]] = [{"type": "state", "state": "training", "step": 0, "time": 0.0}]
    for step, seconds in enumerate(steps_s, 1):
        events.append({"type": "metric", "step": step, "time": events[-1]["time"] + seconds})
    events.append({**events[-1], "type": "checkpoint", "time": events[-1]["time"] + checkpoint_s})
    run.events_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return run.id


def test_time_comes_from_former_runs_of_the_same_kind(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [(64, 64)] * 4)
    rhythm = {"samples": {"every_steps": 0}, "output": {"save_every_steps": 20}}
    config = config_for(tmp_path / "in", train={"batch_size": 2, "max_steps": 50}, **rhythm)
    workspace = Workspace(tmp_path / "ws")
    assert plan(config, workspace).estimate.seconds is None
    other = config_for(tmp_path / "in", train={"batch_size": 4})
    make_run(workspace, other, [9.0] * 20)
    make_run(workspace, config, [5.0] * 3)  # ended while it was warming up
    assert measured(config, workspace) is None
    same = config_for(tmp_path / "in", name="other", train={"batch_size": 2, "max_steps": 7, "learning_rate": 1.0})
    run_id = make_run(workspace, same, [5.0, 0.9, 0.9, 0.9, 0.9, *[0.1, 0.3] * 10], checkpoint_s=1.5)
    found = measured(config, workspace)
    assert found is not None and found.source == f"in run {run_id}"
    assert found.costs == Costs(pytest.approx(0.2, rel=0.01), checkpoint=pytest.approx(1.5))
    estimate = plan(config, workspace).estimate  # 50 steps, three checkpoints
    assert estimate.seconds == pytest.approx(50 * 0.2 + 3 * 1.5, rel=0.01)
    assert estimate.seconds_note == f"200 ms a step, measured in run {run_id}"
    held_back = config_for(tmp_path / "in", train={"batch_size": 2, "max_steps": 50}, **rhythm, validation=VALIDATION)
    validated = plan(held_back, workspace).estimate  # first, after 25 steps, last: 2 pictures x 6 passes, 6 a step
    assert validated.seconds == pytest.approx(50 * 0.2 + 3 * 1.5 + 3 * 2 * 0.2, rel=0.01)


def test_disk_counts_caches_and_checkpoints(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(64, 64)] * 4)

    def disk(**dataset: Any) -> int:
        return planned(tmp_path, dataset=dataset, output={"keep_last": 1, "precision": "float"}).estimate.disk_bytes

    lora = model_sizes(ModelSettings(), LoraSettings()).lora
    assert disk(cache={"to_disk": False}) == lora * (4 + 12) + lora * 4
    best = {"keep_last": 1, "precision": "float", "keep_best": True}
    kept = planned(tmp_path, dataset={"cache": {"to_disk": False}}, output=best, validation={"split": 0.5})
    assert kept.estimate.disk_bytes == 2 * lora * (4 + 12) + lora * 4
    drawn = {"every_steps": 10, "at_start": True, "prompts": [{"prompt": "a", "width": 128, "height": 64}] * 2}
    seen = {"dataset": {"cache": {"to_disk": False}}, "output": {"keep_last": 1, "precision": "float"}}
    with_previews = planned(tmp_path, **seen, samples=drawn, train={"max_steps": 35}).estimate.disk_bytes
    assert with_previews - disk(cache={"to_disk": False}) == 2 * 5 * 128 * 64 * 2, (
        "two prompts at steps 0, 10, 20, 30, 35"
    )
    latents = disk(cache={"text": False}) - disk(cache={"to_disk": False})
    assert latents == 4 * 8 * 8 * 4 * 4
    assert disk(cache={"text": False}, augment={"flip": True}) == disk(cache={"text": False}) + latents


def test_the_plan_never_loads_torch_and_is_quick(tmp_path: Path) -> None:
    noise_picture(800, 600).save(tmp_path / "0.png", compress_level=1)
    for number in range(1, 500):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "0.png")
    code = (
        "import sys, time; from trainer.config import Config; from trainer.planner import plan\n"
        "config = Config.model_validate({'dataset': {'sources': [{'path': sys.argv[1]}]}})\n"
        "begun = time.process_time(); found = plan(config); spent = time.process_time() - begun\n"
        "assert 'torch' not in sys.modules and found.pictures == 500 and spent < 3, spent"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["plan", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def write_config(tmp_path: Path, **sections: Any) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"dataset": {"sources": [{"path": "in"}], "resolution": 64}, **sections}))
    return str(path)


def test_the_command_prints_one_json_document(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_ATELIER_WORKSPACE", str(tmp_path / "ws"))
    write_pictures(tmp_path / "in", [(64, 64)] * 24)
    config = write_config(tmp_path, train={"batch_size": 4})
    code, out, _ = command(capfd, config, "--json", "--set", "train.epochs=2")
    answer = json.loads(out)
    assert code == 0 and answer["pictures"] == 24 and answer["steps_per_epoch"] == 6 and answer["max_steps"] == 12
    assert answer["buckets"] == [
        {"width": 64, "height": 64, "pictures": 24, "views": 24, "batches": 6, "cropped_share": 0.0}
    ]
    assert answer["estimate"]["vram_bytes"] > 0 and answer["estimate"]["seconds"] is None and answer["warnings"] == []


def test_the_command_reads_well(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_ATELIER_WORKSPACE", str(tmp_path / "ws"))
    write_pictures(tmp_path / "in", [(64, 64)] * 4)
    cut_off(write_picture(tmp_path / "in" / "broken.png", 64, 64))
    code, out, _ = command(capfd, write_config(tmp_path))
    assert code == 0
    for expected in ("4 pictures", "4 pictures x 1 repeat / 1 = 4 steps an epoch", "1000 steps = 250 epochs",
                     "64 x 64", "memory: about", "fits in", "time:       unknown", "left out:",
                     "broken.png", "checkpoints: 4 times"):  # fmt: skip
        assert expected in out


def test_wrong_input_is_code_2_with_a_message_for_each(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_ATELIER_WORKSPACE", str(tmp_path / "ws"))
    code, out, err = command(capfd, write_config(tmp_path), "--json")
    assert code == 2 and json.loads(out)["error"][0]["field"] == "dataset.sources.0.path"
    assert err.count("error:") == 1 and "Traceback" not in err


def test_a_damaged_model_is_told(tmp_path: Path) -> None:
    for part in ("unet", "text_encoder", "vae"):
        (tmp_path / "model" / part).mkdir(parents=True)
    (tmp_path / "model" / "model_index.json").write_bytes((MODEL_DIR / "model_index.json").read_bytes())
    weights = (MODEL_DIR / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()[:100]
    (tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    with pytest.raises(UserError) as caught:
        model_sizes(ModelSettings(base=str(tmp_path / "model")), LoraSettings())
    assert caught.value.problems[0].code == "model.broken" and caught.value.problems[0].field == "model.base"


def test_an_optimizer_that_cannot_be_used_is_told_with_the_other_problems(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    write_pictures(tmp_path / "good", [(64, 64)])
    train = {"optimizer": "torch.optim.NAdam"}
    with pytest.raises(UserError) as caught:
        plan(config_for(tmp_path / "missing", train=train), workspace)
    assert {problem.field for problem in caught.value.problems} >= {"dataset.sources.0.path", "train.optimizer_class"}
    with pytest.raises(UserError, match="not allowed"):
        plan(config_for(tmp_path / "good", train=train), workspace)
    write_settings(workspace, AppSettings(allowed_optimizers=["torch.optim.NAdam"]))
    assert plan(config_for(tmp_path / "good", train=train), workspace).pictures == 1


def test_a_rate_beside_an_own_rate_is_warned_of(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(64, 64)])
    assert "optimizer.own_rate" in codes(planned(tmp_path, train={"optimizer": "prodigy"}))
    assert "optimizer.own_rate" not in codes(planned(tmp_path, train={"optimizer": "prodigy", "learning_rate": 1}))


def test_preserving_takes_no_more_memory() -> None:
    """Its backward pass comes after the other one's, see ``recipe.batch_losses``."""
    plain, preserving = (
        training_memory(Config.model_validate({"output": {"trigger": "a"}, "loss": loss}), SD15, 512 * 512)
        for loss in ({}, {"preserve": {"class_word": "dog"}})
    )
    assert preserving == plain


@pytest.mark.parametrize(("optimizer", "state"), [("adamw", 4), ("adamw8bit", 2), ("adafactor", 1)])
def test_a_lora_in_sixteen_bits_takes_less(optimizer: str, state: int) -> None:
    """Bytes a weight: 2 and 4 of its gradient, and half of the optimizer's where those are numbers."""
    train = {"optimizer": optimizer, "lora_precision": "bf16"}
    memory = training_memory(Config.model_validate({"train": train}), SD15, 512 * 512)
    assert (memory.lora, memory.gradients, memory.optimizer) == (2 * SD15.lora, 4 * SD15.lora, state * SD15.lora)


def test_fit_is_told_as_settings_to_take_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_ATELIER_WORKSPACE", str(tmp_path / "ws"))
    write_pictures(tmp_path / "in", [(1024, 1024)])
    config = write_config(tmp_path, model={"base": "somebody/some-XL-model"}, train={"batch_size": 2})
    wide = ("--set", "dataset.resolution=1024", "--memory", "8GB")
    code, out, _ = command(capfd, config, "--fit", *wide)
    assert code == 0 and "does not fit in 8.0 GiB" in out and "fitted: fits" in out
    settings = re.findall(r"--set '?([^ ']+)'?", out.splitlines()[-1])
    assert any(each.startswith("train.gradient_checkpointing=") for each in settings)
    sets = [part for setting in settings for part in ("--set", setting)]
    code, out, _ = command(capfd, config, "--json", *wide, *sets)
    answer = json.loads(out)
    assert answer["estimate"]["fits"] is True and "fitted" not in answer and "placed" not in answer
    code, out, err = command(capfd, config, "--memory", "lots", "--json")
    assert code == 2 and json.loads(out)["error"][0]["field"] == "memory" and "8GB" in err


def test_a_setting_of_one_folder_can_be_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "in", [(64, 64)])
    config, workspace = write_config(tmp_path), ("--workspace", str(tmp_path / "ws"))
    _, out, _ = command(capfd, config, "--json", *workspace, "--set", "dataset.sources.0.repeats=5")
    assert json.loads(out)["views_per_epoch"] == 5
    code, _, err = command(capfd, config, *workspace, "--set", "dataset.sources.3.repeats=5")
    assert code == 2 and "dataset.sources.3.repeats" in err
