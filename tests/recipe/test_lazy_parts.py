"""A run loads the parts of a model that it uses, each once, and learns the same whenever they come."""

from __future__ import annotations

import functools
import gc
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.recipe.tiny_runs import QUICK_PROMPT, Watcher, of_type, train_here
from tests.tiny_models import tiny_model
from trainer import recipe
from trainer.config import Config
from trainer.runs.store import Run, Workspace

UNET, VAE, TOKENIZER = UNet2DConditionModel, AutoencoderKL, CLIPTokenizer
TEXTS: dict[str, dict[type, int]] = {
    "sd1": {CLIPTextModel: 1, TOKENIZER: 1},
    "sdxl": {CLIPTextModel: 2, CLIPTextModelWithProjection: 1, TOKENIZER: 2},  # one with projection holds a plain one
}
LORA = {"rank": 2, "alpha": 2, "dropout": 0.2}
PREVIEWS: dict[str, Any] = {
    "samples__every_steps": 2,
    "samples__at_start": True,
    "samples__prompts": [QUICK_PROMPT, {**QUICK_PROMPT, "seed": 3}],
}
ConfigOf = Callable[..., Config]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_model(kind, folder / kind) for kind in TEXTS}


@contextmanager
def built() -> Iterator[Counter[type]]:
    """Counts what is made of the libraries' own classes inside, however it is done."""
    made: Counter[type] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for kind in (UNET, VAE, TOKENIZER, CLIPTextModel, CLIPTextModelWithProjection):
            patch.setattr(kind, "__init__", _counted(kind, made))
        yield made


def _counted(kind: type, made: Counter[type]) -> Callable[..., None]:
    real: Any = kind.__init__  # type: ignore[misc]

    @functools.wraps(real)  # the libraries look at its arguments
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        made[kind] += 1
        real(self, *arguments, **named)

    return init


def trained(workspace: Workspace, config: Config) -> tuple[Run, Counter[type]]:
    run = workspace.create_run(config)
    with built() as made:
        train_here(run)
    return run, made


def alive() -> Counter[type]:
    return Counter(type(each) for each in gc.get_objects() if type(each) in (UNET, VAE, CLIPTextModel))


def weights(run: Run) -> bytes:
    """The LoRA that the run ended with; the finished file tells of its settings, too."""
    return (max(run.checkpoints_dir.glob("step-*")) / "lora.safetensors").read_bytes()


@pytest.mark.parametrize("kind", TEXTS)
def test_a_run_whose_caches_are_full_loads_the_denoiser_alone(
    kind: str, models: dict[str, Path], config_of: ConfigOf, workspace: Workspace
) -> None:
    config = config_of(train__max_steps=4, model={"base": str(models[kind])}, lora=LORA)
    first, made = trained(workspace, config)
    assert made == {UNET: 1, VAE: 1, **TEXTS[kind]}
    second, made = trained(workspace, config)
    assert made == {UNET: 1}
    assert second.output_path.read_bytes() == first.output_path.read_bytes()


@pytest.mark.parametrize("prompts", [[], [QUICK_PROMPT]], ids=["no previews", "previews"])
def test_parts_that_filled_the_caches_are_gone_in_a_step_unless_previews_want_them(
    prompts: list[Any], config_of: ConfigOf, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Counter[type]] = []
    step = recipe.train_step

    def watched(*arguments: Any) -> Any:
        found.append(alive() - before)
        return step(*arguments)

    gc.collect()
    before = alive()
    monkeypatch.setattr(recipe, "train_step", watched)
    trained(workspace, config_of(train__max_steps=1, samples__prompts=prompts))
    assert found == [{UNET: 1, VAE: 1, CLIPTextModel: 1} if prompts else {UNET: 1}]


@pytest.mark.parametrize("kind", TEXTS)
def test_previews_load_each_part_once_and_change_nothing(
    kind: str, models: dict[str, Path], config_of: ConfigOf, workspace: Workspace
) -> None:
    plain = config_of(train__max_steps=4, model={"base": str(models[kind])}, lora=LORA)
    drawing = config_of(train__max_steps=4, model={"base": str(models[kind])}, lora=LORA, **PREVIEWS)
    late = drawing.model_copy(update={"samples": drawing.samples.model_copy(update={"at_start": False})})
    without, _ = trained(workspace, plain)
    runs = [trained(workspace, config) for config in (drawing, late)]
    for run, made in runs:
        assert made == {UNET: 1, VAE: 1, **TEXTS[kind]}
        assert weights(run) == weights(without)
    pictures = [{path.name: path.read_bytes() for path in run.samples_dir.glob("*.png")} for run, _ in runs]
    assert len(pictures[0]) == 2 * 3 and len(pictures[1]) == 2 * 2
    assert all(pictures[0][name] == picture for name, picture in pictures[1].items())


def test_a_part_that_is_used_in_each_step_is_loaded_once_and_disturbs_no_dropout(
    config_of: ConfigOf, workspace: Workspace
) -> None:
    """Each batch seeds the dropouts first, and has its captions encoded then."""
    one = {"train__max_steps": 4, "train__batch_size": 1, "lora": LORA}
    cached, _ = trained(workspace, config_of(**one))
    each_time, made = trained(workspace, config_of(**one, dataset__cache={"text": False}))
    assert made == {UNET: 1, **TEXTS["sd1"]}
    assert weights(each_time) == weights(cached)


@pytest.mark.parametrize("train", ["both", "text_encoder"])
def test_a_text_encoder_that_learns_is_loaded_without_the_vae(
    train: str, config_of: ConfigOf, workspace: Workspace
) -> None:
    config = config_of(train__max_steps=2, lora={"rank": 2, "alpha": 2, "train": train})
    first, _ = trained(workspace, config)
    second, made = trained(workspace, config)
    assert made == {UNET: 1, **TEXTS["sd1"]}
    assert second.output_path.read_bytes() == first.output_path.read_bytes()


def test_no_memory_for_a_part_leaves_these_previews_out(
    config_of: ConfigOf, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(train__max_steps=2, **PREVIEWS)
    whole, _ = trained(workspace, config)
    load, tries = VAE.from_pretrained, []

    def short(*arguments: Any, **options: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load(*arguments, **options)

    monkeypatch.setattr(VAE, "from_pretrained", short)
    run, made = trained(workspace, config)
    assert [(event["code"], event["step"]) for event in of_type(run, "warning")] == [("preview.memory", 0)]
    assert [event["step"] for event in of_type(run, "sample")] == [2, 2] and len(tries) == 2
    assert made == {UNET: 1, VAE: 1, **TEXTS["sd1"]} and weights(run) == weights(whole)


def test_one_that_breaks_on_the_way_costs_the_preview_alone(
    models: dict[str, Path], config_of: ConfigOf, workspace: Workspace, tmp_path: Path
) -> None:
    model = shutil.copytree(models["sd1"], tmp_path / "model")
    config = config_of(train__max_steps=4, model={"base": str(model)}, **PREVIEWS)
    whole, _ = trained(workspace, config)
    run = workspace.create_run(config)
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    train_here(run, Watcher({("training", 0): file.unlink}))
    told = [event for event in of_type(run, "warning") if event["code"] == "preview.failed"]
    assert len(told) == 2 * 3 and all("the vae of" in event["message"] for event in told)
    assert weights(run) == weights(whole) and run.read().state == "finished"
