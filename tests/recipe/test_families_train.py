"""Every family: training steps equal plain diffusers code, and the LoRA does in diffusers what it does here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from peft import LoraConfig
from PIL import Image, ImageDraw
from safetensors import safe_open
from torch import Tensor, nn

from tests.recipe.tiny_runs import Watcher, losses_of, of_type, stop_at, train_here
from tests.tiny_models import KINDS, plain_pipeline, tiny_model
from trainer.conditioning import caption_encoder
from trainer.config import Config, ModelSettings
from trainer.data.text_plan import plan_texts
from trainer.data.training_set import Batch, prepare_training_set
from trainer.devices import seeded_generator
from trainer.errors import UserError
from trainer.families import load_family
from trainer.generate import Painter
from trainer.lora.adapter import add_adapters
from trainer.lora.convert import Conversion, convert_lora
from trainer.lora.inspect import inspect_lora
from trainer.lora.merge_model import merge_into_model
from trainer.pictures import LoraUse
from trainer.recipe import Ingredients, batch_inputs, batch_losses
from trainer.runs.store import Run, Workspace

CPU = torch.device("cpu")
SEED = 3
PICTURE = (100, 70)  # scaled to 91 x 64, of which 13 columns are cut off on the left
SIZES = [70.0, 100.0, 0.0, 13.0, 64.0, 64.0]
WRITTEN = {
    "sd1": ("sd1", "sd_v1", "False", "stable-diffusion-v1/lora", "epsilon"),
    "sd2-v": ("sd2", "sd_v2_v", "True", "stable-diffusion-v2-768-v/lora", "v"),
    "sdxl": ("sdxl", "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora", "epsilon"),
    "sdxl-v": ("sdxl", "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora", "v"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_model(kind, folder / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def wide_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    for number in range(4):
        picture = Image.new("RGB", PICTURE, (40 + 60 * number, 200 - 50 * number, 90))
        ImageDraw.Draw(picture).ellipse([8, 8, 40 + 8 * number, 50], fill=(250, 30 * number, 0))
        picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a big red circle, number {number}")
    return folder


@pytest.fixture
def config_for(config_of: Any, models: dict[str, Path], wide_pictures: Path) -> Any:
    def make(kind: str, **changes: Any) -> Config:
        return config_of(
            model__base=str(models[kind]),
            dataset__sources=[{"path": str(wide_pictures)}],
            dataset__buckets={"enabled": False},
            train__seed=SEED,
            **changes,
        )

    return make


def fill(part: str, module: nn.Module) -> dict[str, nn.Parameter]:
    """Give all LoRA weights values that depend on their names only."""
    weights = {}
    for name, layer in module.named_modules():
        if hasattr(layer, "lora_A"):
            for which in ("lora_A", "lora_B"):
                weight = getattr(layer, which)["default"].weight
                weight.data = torch.randn(weight.shape, generator=seeded_generator(1, part, name, which)) * 0.1
                weights[f"{part}.{name}.{which}"] = weight
    return weights


def reference_gradients(folder: Path, batch: Batch) -> dict[str, Tensor | None]:
    """One step's gradients, by diffusers and PEFT alone."""
    pipeline = plain_pipeline(folder)
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    attention = {"unet": ["to_q", "to_k", "to_v", "to_out.0"]}
    attention["text_encoder"] = attention["text_encoder_2"] = ["q_proj", "k_proj", "v_proj", "out_proj"]
    weights: dict[str, nn.Parameter] = {}
    for part, layers in attention.items():
        if module := getattr(pipeline, part, None):
            module.requires_grad_(False)
            module.add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=layers))
            weights |= fill(part, module)
    noise = torch.randn(batch.latents.shape, generator=seeded_generator(SEED, 0, "noise"))
    timesteps = torch.randint(0, 1000, (len(noise),), generator=seeded_generator(SEED, 0, "timesteps"))
    encoded = pipeline.encode_prompt(
        batch.captions, device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    added = {}
    if len(encoded) == 4:
        added = {"text_embeds": encoded[2], "time_ids": torch.tensor([SIZES] * len(noise))}
    noisy = schedule.add_noise(batch.latents, noise, timesteps)
    answer = pipeline.unet(noisy, timesteps, encoder_hidden_states=encoded[0], added_cond_kwargs=added).sample
    velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(batch.latents, noise, timesteps) if velocity else noise
    (answer - target).square().mean().backward()
    return {name: weight.grad for name, weight in weights.items()}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_steps_gradients_are_those_of_plain_code(
    kind: str, checkpointing: bool, config_for: Any, models: dict[str, Path], tmp_path: Path
) -> None:
    config = config_for(kind, lora__target="attention", lora__train="both")
    family = load_family(config.model, device=CPU, dtype=torch.float32)
    add_adapters(family, config.lora, seed=SEED)
    parts = {"unet": family.denoiser, **family.text_encoders}
    weights = {name: weight for part, module in parts.items() for name, weight in fill(part, module).items()}
    if checkpointing:
        for module in parts.values():
            module.train()
        family.save_memory("all")
    events = Watcher()
    batch = prepare_training_set(config, family, tmp_path, events, lambda: None).batch(0)
    assert batch.sizes.tolist() == [[int(number) for number in SIZES]] * 2
    encode = caption_encoder(family, config, plan_texts(config, [], False, 0), tmp_path, events, lambda: None)
    ingredients = Ingredients(config, family, encode, CPU, torch.float32, family.alphas_cumprod)
    for loss in batch_losses(ingredients, batch_inputs(ingredients, batch, 0)):
        loss.backward()

    expected = reference_gradients(models[kind], batch)
    assert set(weights) == set(expected)
    unused = {name for name, gradient in expected.items() if gradient is None}
    assert {name.split(".lora")[0].split(".self_attn")[0] for name in unused} == (
        {"text_encoder.encoder.layers.2"} if kind.startswith("sdxl") else set()
    )  # SDXL does not read the last layer of its first text encoder
    for name, gradient in expected.items():
        if gradient is None:
            assert weights[name].grad is None
        else:
            assert gradient.norm() > 0
            assert (weights[name].grad - gradient).norm() / gradient.norm() < 5e-5, name


def trained(kind: str, config_for: Any, workspace: Workspace, **lora: Any) -> Run:
    """Three steps on everything that can be trained, previews and validation on the way, alpha different from rank."""
    config = config_for(
        kind,
        lora={"rank": 4, "alpha": 2, "conv_rank": 2, "conv_alpha": 1, "target": "full", "train": "both", **lora},
        train={"max_steps": 3, "batch_size": 2, "learning_rate": 2e-2, "seed": SEED},
        samples={"every_steps": 3, "at_start": False, "prompts": ["a red circle --n green --s 2"]},
        validation={"split": 0.3, "every_steps": 3},
    )
    run = workspace.create_run(config)
    train_here(run)
    return run


@torch.no_grad()
def drawn_here(model: Path, lora: Path | None) -> Tensor:
    painter = Painter(str(model), CPU)
    painter.use([LoraUse(path=str(lora))] if lora else [])
    family = painter.family
    prompt, negative = (
        family.encode_captions([text], max_token_length=75, clip_skip=1, weighted=False)
        for text in ("a red star", "green")
    )
    embedded = {"prompt_embeds": prompt.hidden_states, "negative_prompt_embeds": negative.hidden_states}
    if prompt.extra:
        embedded["pooled_prompt_embeds"] = prompt.extra["pooled"]
        embedded["negative_pooled_prompt_embeds"] = negative.extra["pooled"]
    return family.pipeline("euler")(**embedded, **drawing()).images


def drawn_by_diffusers(model: Path, lora: Path) -> Tensor:
    pipeline = plain_pipeline(model)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, use_safetensors=True)
    return pipeline("a red star", negative_prompt="green", **drawing()).images


def drawing() -> dict[str, Any]:
    start = torch.Generator().manual_seed(5)
    size = {"width": 64, "height": 64, "num_inference_steps": 3, "guidance_scale": 3.0}
    return {**size, "generator": start, "output_type": "latent"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_finished_lora_does_in_diffusers_what_it_does_here(
    kind: str, config_for: Any, models: dict[str, Path], workspace: Workspace
) -> None:
    run = trained(kind, config_for, workspace)
    assert not of_type(run, "warning")
    assert len(of_type(run, "sample")) == 1 and len(of_type(run, "validation")) == 2
    ours, theirs = drawn_here(models[kind], run.output_path), drawn_by_diffusers(models[kind], run.output_path)
    assert (ours - theirs).norm() / theirs.norm() < 1e-5
    assert (ours - drawn_here(models[kind], None)).norm() / ours.norm() > 0.01

    family, version, second, architecture, prediction = WRITTEN[kind]
    told = inspect_lora(run.output_path)
    assert told["family"] == family and not told["unknown_keys"]
    said = told["metadata"]
    assert (said["ss_base_model_version"], said["ss_v2"]) == (version, second)
    assert (said["modelspec.architecture"], said["modelspec.prediction_type"]) == (architecture, prediction)
    assert said["ss_zero_terminal_snr"] == str(kind == "sdxl-v")


@pytest.mark.parametrize(("kind", "adapter"), [("sd2-v", "lokr"), ("sdxl", "dora"), ("sdxl-v", "loha")])
def test_what_diffusers_cannot_load_draws_here_as_merged_into_the_model(
    kind: str, adapter: str, config_for: Any, models: dict[str, Path], workspace: Workspace, tmp_path: Path
) -> None:
    """The file in Generate against plain diffusers on the model that it was merged into; ``convert`` tells the loss."""
    path = trained(kind, config_for, workspace, type=adapter).output_path
    merged, sink = tmp_path / "merged", Watcher()
    merge_into_model(models[kind], [(path, 1.0)], merged, save_precision="float", events=sink)
    pipeline = plain_pipeline(merged)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    theirs = pipeline("a red star", negative_prompt="green", **drawing()).images
    ours = drawn_here(models[kind], path)
    assert (ours - theirs).norm() / theirs.norm() < 1e-4  # fp16 factors, and three steps of a random model
    assert (ours - drawn_here(models[kind], None)).norm() / ours.norm() > 0.01
    converted = tmp_path / "converted.safetensors"
    if adapter == "dora":  # a length for each input, as sd-scripts' LyCORIS trains it
        with pytest.raises(UserError, match="one for each input"):
            convert_lora(path, converted, Conversion("diffusers"), events=sink)
        assert not converted.exists()
    else:
        told = convert_lora(path, converted, Conversion("diffusers", rank=2), events=sink)
        assert told["error"]["layers"] and all(row["error"] >= 0 for row in told["error"]["layers"])


def test_files_for_sdxl_have_the_names_that_kohyas_tools_write(config_for: Any, workspace: Workspace) -> None:
    run = trained("sdxl", config_for, workspace)
    with safe_open(run.output_path, "pt") as file:
        layers = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q" in layers
    assert "lora_unet_output_blocks_2_2_conv" in layers
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj" in layers
    assert "lora_te2_text_model_encoder_layers_2_mlp_fc2" in layers
    assert {layer.split("_")[1] for layer in layers} == {"unet", "te1", "te2"}
    assert not [layer for layer in layers if "down_blocks" in layer or "mid_block_" in layer or "up_blocks" in layer]
    again = config_for("sdxl", lora={"rank": 4, "alpha": 2, "train": "both", "init_from": str(run.output_path)})
    family = load_family(ModelSettings(base=again.model.base), device=CPU, dtype=torch.float32)
    add_adapters(family, again.lora, seed=0)
    ups = [
        layer.lora_B["default"].weight
        for module in (family.denoiser, *family.text_encoders.values())
        for layer in module.modules()
        if hasattr(layer, "lora_B")
    ]
    assert sum(bool(up.any()) for up in ups) == len(ups) - 6  # those of the layer that SDXL does not read


def test_cached_captions_of_sdxl_train_as_those_encoded_each_time(config_for: Any, workspace: Workspace) -> None:
    losses = []
    for cached in (True, False):
        config = config_for("sdxl", train__max_steps=2, dataset__cache={"text": cached})
        run = workspace.create_run(config)
        train_here(run)
        losses.append(list(losses_of(run).values()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_sdxl_stopped_and_resumed_ends_with_the_same_bytes(config_for: Any, workspace: Workspace) -> None:
    """Both text encoders, mirrored pictures and random crops: what the sizes say depends on chance too."""
    config = config_for(
        "sdxl-v",
        lora__train="both",
        train__max_steps=4,
        dataset__cache={"latents": False},
        dataset__augment={"flip": True, "random_crop": True},
        output={"save_every_steps": 2, "precision": "float"},
    )
    whole, stopped = workspace.create_run(config), workspace.create_run(config)
    train_here(whole)
    stop_at(stopped, ("checkpoint", 2))
    train_here(stopped)
    assert losses_of(stopped) == losses_of(whole)
    assert stopped.output_path.read_bytes() == whole.output_path.read_bytes()
