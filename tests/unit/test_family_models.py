"""SD 1, SD 2 and SDXL models are told apart, and encode captions and pictures as diffusers' own pipelines do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import KINDS, plain_pipeline, tiny_model
from trainer.config import ModelSettings, Sampler, options
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.families import FAMILIES, load_family
from trainer.families.base import Family

CPU = torch.device("cpu")
CAPTIONS = ["a big red circle on a blue background", "", "red circle " * 60]
KNOWN = {
    "sd1": ("sd1", "sd_v1"),
    "sd2-v": ("sd2", "sd_v2_v"),
    "sdxl": ("sdxl", "sdxl_base_v1-0"),
    "sdxl-v": ("sdxl", "sdxl_base_v1-0"),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_model(kind, folder / kind) for kind in KINDS}


def load(base: Path | str, family: str = "auto", **options: Any) -> Family:
    settings = ModelSettings(base=str(base), family=family)  # type: ignore[arg-type]
    return load_family(settings, device=CPU, dtype=torch.float32, **options)


@torch.no_grad()
def encode(family: Family, captions: list[str], **changes: Any):
    return family.encode_captions(captions, **{"max_token_length": 75, "clip_skip": 1, "weighted": False, **changes})


@pytest.mark.parametrize("kind", KNOWN)
def test_the_family_is_found_by_the_models_own_files(models: dict[str, Path], kind: str) -> None:
    name, version = KNOWN[kind]
    family = load(models[kind])
    assert (family.name, family.base_model_version) == (name, version)
    assert load(models[kind], name).name == name
    assert family.prediction_type == ("v_prediction" if kind.endswith("-v") else "epsilon")


def test_the_demo_model_is_of_the_first_family_although_its_text_is_narrow() -> None:
    assert load("demo").name == "sd1"


def test_text_of_width_1024_makes_a_second_generation(models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models["sd1"], tmp_path / "model"))
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "cross_attention_dim": 1024}))
    assert [name for name, loader in FAMILIES.items() if loader.recognises(folder)] == ["sd2"]
    with pytest.raises(UserError):
        load(folder)  # its weights are not


@pytest.mark.parametrize(("kind", "wrong"), [("sd1", "sd2"), ("sd2-v", "sd1"), ("sdxl", "sd1"), ("sd1", "sdxl")])
def test_another_family_than_the_models_is_refused_with_its_name(
    models: dict[str, Path], kind: str, wrong: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(models[kind], wrong)
    (problem,) = caught.value.problems
    assert (problem.code, problem.field) == ("model.family", "model.family")
    assert f"{wrong} is set" in problem.message
    assert f"({KNOWN[kind][0]})" in problem.message
    assert KNOWN[kind][0] in problem.hint


def test_parts_of_different_widths_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models["sd1"], tmp_path / "model"))
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(MODEL_DIR / "text_encoder", folder / "text_encoder")
    with pytest.raises(UserError, match=r"width 32, its text encoder writes 64"):
        load(folder)


@pytest.mark.parametrize("kind", ["sd1", "sd2-v"])
def test_captions_are_encoded_as_the_pipeline_does(models: dict[str, Path], kind: str) -> None:
    family, pipeline = load(models[kind]), plain_pipeline(models[kind])
    theirs, _ = pipeline.encode_prompt(CAPTIONS, CPU, 1, False)
    ours = encode(family, CAPTIONS)
    assert torch.equal(ours.hidden_states, theirs)
    assert not ours.extra


@pytest.mark.parametrize("skip", [1, 2])
def test_captions_of_sdxl_are_encoded_as_the_pipeline_does(models: dict[str, Path], skip: int) -> None:
    family, pipeline = load(models["sdxl"]), plain_pipeline(models["sdxl"])
    states, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, None, CPU, 1, False, clip_skip=skip - 1)
    ours = encode(family, CAPTIONS, clip_skip=skip)
    assert torch.equal(ours.hidden_states, states)
    assert torch.equal(ours.extra["pooled"], pooled)
    assert ours.hidden_states.shape[-1] == 32 + 48 and pooled.shape == (3, 40)


@torch.no_grad()
def test_sdxl_reads_the_layer_before_the_last_without_the_final_norm(models: dict[str, Path]) -> None:
    pipeline = plain_pipeline(models["sdxl"])
    ids = pipeline.tokenizer(CAPTIONS[:2], padding="max_length", return_tensors="pt").input_ids
    states = pipeline.text_encoder.embeddings(ids)
    mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)[None, None]
    for layer in pipeline.text_encoder.encoder.layers[:-1]:
        states = layer(states, attention_mask=mask)
    found = encode(load(models["sdxl"]), CAPTIONS[:2]).hidden_states[..., :32]
    torch.testing.assert_close(found, states)


def test_long_captions_of_sdxl_are_summed_up_by_their_first_chunk(models: dict[str, Path]) -> None:
    family = load(models["sdxl"])
    long, short = encode(family, [CAPTIONS[2]], max_token_length=150), encode(family, [CAPTIONS[2]])
    assert long.hidden_states.shape == (1, 152, 80)
    torch.testing.assert_close(long.extra["pooled"], short.extra["pooled"])
    torch.testing.assert_close(long.hidden_states[:, :76], short.hidden_states[:, :76])


def test_clip_skip_beyond_the_shorter_text_encoder_is_refused(models: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="3 is more than the 2 layers"):
        encode(load(models["sdxl"]), CAPTIONS, clip_skip=3)


def test_an_sdxl_model_that_ends_in_pure_noise_says_so_itself(models: dict[str, Path]) -> None:
    family = load(models["sdxl-v"])
    assert family.prediction_type == "v_prediction"
    assert family.alphas_cumprod[-1] == 0
    assert load(models["sdxl"]).alphas_cumprod[-1] > 1e-3
    for sampler in options(Sampler):
        scheduler = family.pipeline(sampler).scheduler
        scheduler.set_timesteps(4)
        assert scheduler.config.prediction_type == "v_prediction"
        assert scheduler.alphas_cumprod[-1] < 1e-6
        assert scheduler.timesteps[0] == 999


def test_pure_noise_is_sampled_from_where_the_model_leaves_the_last_step_out(
    models: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models["sdxl-v"], tmp_path / "model"))
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "timestep_spacing": "leading"}))
    scheduler = load(folder).pipeline("euler").scheduler
    scheduler.set_timesteps(4)
    assert scheduler.timesteps[0] == 999


def test_sdxl_reads_sizes(models: dict[str, Path]) -> None:
    family, unet = load(models["sdxl"]), plain_pipeline(models["sdxl"]).unet
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sizes, times = torch.tensor([[3000, 2001, 0, 13, 64, 64], [64, 64, 0, 0, 64, 64]]), torch.tensor([10, 700])
    condition = encode(family, CAPTIONS[:2])
    added = {"text_embeds": condition.extra["pooled"], "time_ids": sizes.float()}
    with torch.no_grad():
        answer = family.predict(noisy, times, condition, sizes)
        expected = unet(noisy, times, encoder_hidden_states=condition.hidden_states, added_cond_kwargs=added).sample
        other = family.predict(noisy, times, condition, sizes + torch.tensor([0, 0, 0, 1, 0, 0]))
    assert torch.equal(answer, expected)
    assert not torch.equal(other, answer)


def test_an_sdxl_unet_that_does_not_fit_its_text_encoders_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models["sdxl"], tmp_path / "model"))
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / part)
        shutil.copytree(MODEL_DIR / part, folder / part)
    with pytest.raises(UserError, match="other widths"):
        load(folder)


def test_adapters_go_on_both_text_encoders_of_sdxl(models: dict[str, Path]) -> None:
    counts = {part: len(names) for part, names in load(models["sdxl"]).adapter_targets("full", conv=True).items()}
    unet = plain_pipeline(models["sdxl"]).unet
    inside = ("transformer_blocks", "attentions", "resnets", "samplers")
    expected = sum(
        isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and any(word in name for word in inside)
        for name, module in unet.named_modules()
    )
    assert counts == {"unet": expected, "text_encoder": 3 * 6, "text_encoder_2": 3 * 6}


def test_the_first_of_openclips_vocabulary_is_its_padding(models: dict[str, Path]) -> None:
    """The tiny models are worth testing with only if their padding differs, as that of the real ones does."""
    pads = [plain_pipeline(models[kind]).tokenizer.pad_token_id for kind in ("sd1", "sd2-v")]
    assert pads == [957, 0]


@pytest.mark.parametrize("kind", KNOWN)
def test_pixels_and_latents_are_the_vaes_own(models: dict[str, Path], kind: str) -> None:
    family, vae = load(models[kind]), plain_pipeline(models[kind]).vae
    pixels = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist.mode() * (0.13025 if kind.startswith("sdxl") else 0.18215)
        decoded = vae.decode(expected / vae.config.scaling_factor).sample
    assert torch.equal(family.encode_pixels(pixels), expected)
    assert torch.equal(family.decode_latents(expected), decoded)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_what_the_settings_say_of_the_noise_reaches_every_sampler(models: dict[str, Path], sampler: Sampler) -> None:
    """The model's file leaves prediction type and rescaling open: diffusers would then put its own defaults first."""
    scheduler = json.loads((models["sd1"] / "scheduler" / "scheduler_config.json").read_text())
    for name in ("prediction_type", "timestep_spacing"):
        scheduler.pop(name)
    folder = models["sd1"].parent / f"open-{sampler}"
    shutil.copytree(models["sd1"], folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    family = load(folder, prediction_type="v_prediction", zero_terminal_snr=True)
    assert family.alphas_cumprod[-1] == 0
    used = family.pipeline(sampler).scheduler
    assert used.config.prediction_type == "v_prediction"
    assert used.alphas_cumprod[-1] < 1e-6
    used.set_timesteps(4)
    assert used.timesteps[0] == 999  # pure noise, where sampling then starts
    plain = load(folder).pipeline(sampler).scheduler
    assert plain.config.prediction_type == "epsilon"
    assert plain.alphas_cumprod[-1] > 1e-3


@pytest.mark.parametrize(
    ("name", "unet", "text", "layers"),
    [  # parameters of the published models; layers of a LoRA file that sd-scripts makes for them
        ("sd1", 859_520_964, [123_060_480], [192, 72]),
        ("sd2", 865_910_724, [340_387_840], [192, 138]),
        ("sdxl", 2_567_463_684, [123_060_480, 694_659_840], [722, 72, 192]),
    ],
)
def test_random_models_of_full_size_are_as_large_as_the_real_ones(
    name: str, unet: int, text: list[int], layers: list[int]
) -> None:
    family = FAMILIES[name].random("full", device=torch.device("meta"), dtype=torch.bfloat16)
    assert family.name == name
    assert count(family.denoiser) == unet
    assert [count(encoder) for encoder in family.text_encoders.values()] == text
    assert [len(names) for names in family.adapter_targets("attention_ff", conv=False).values()] == layers


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
