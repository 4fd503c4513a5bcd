"""Model folders made of single files: the same tensors as diffusers makes of them; once, whole, or not at all."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.recipe.tiny_runs import Watcher
from tests.unit.single_file_samples import (
    Weights,
    ldm_vae,
    save_folder,
    sd1_pipeline,
    sd1_weights,
    small_unet,
    small_vae,
    text_config,
    write_file,
)
from trainer.config import LoraSettings, ModelSettings
from trainer.errors import UserError
from trainer.families import load_family, model_folder
from trainer.model_sizes import model_sizes
from trainer.single_file import convert
from trainer.single_file.cache import cache_dir, converted_folder
from trainer.single_file.configs import part_configs
from trainer.single_file.convert import model_folder_of, vae_folder_of

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def sd1_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("single") / "model.safetensors", sd1_weights(sd1_pipeline()))


def weights_of(folder: Path) -> Weights:
    return {
        name.removeprefix("text_model."): tensor
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


def assert_same(given: Weights, expected: Weights) -> None:
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        assert given[name].dtype == tensor.dtype and torch.equal(given[name], tensor), name


def test_diffusers_converts_the_sample_to_the_model_it_was_made_of() -> None:
    """The judge: were our samples named otherwise than real files, diffusers' converter would not understand them."""
    pipeline = sd1_pipeline()
    weights = sd1_weights(pipeline)
    assert_same(convert_ldm_unet_checkpoint(dict(weights), pipeline.unet.config), pipeline.unet.state_dict())
    assert_same(convert_ldm_vae_checkpoint(dict(weights), pipeline.vae.config), pipeline.vae.state_dict())
    text = convert_ldm_clip_checkpoint(weights)
    text.pop("text_model.embeddings.position_ids")
    assert_same({name.removeprefix("text_model."): tensor for name, tensor in text.items()}, text_weights(pipeline))


def text_weights(pipeline: Any, part: str = "text_encoder") -> Weights:
    return {name.removeprefix("text_model."): tensor for name, tensor in getattr(pipeline, part).state_dict().items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_the_folder_holds_the_files_weights_in_their_format(tmp_path: Path, suffix: str) -> None:
    pipeline = sd1_pipeline()
    folder = model_folder_of(write_file(tmp_path / f"model{suffix}", sd1_weights(pipeline)))
    assert_same(weights_of(folder / "unet"), pipeline.unet.state_dict())
    assert_same(weights_of(folder / "vae"), pipeline.vae.state_dict())
    assert_same(weights_of(folder / "text_encoder"), text_weights(pipeline))


def test_the_folder_draws_what_diffusers_draws_from_the_file(sd1_file: Path, tmp_path: Path) -> None:
    """diffusers reads the file with the configs of the model it was made of; ours were read off the weights."""
    configs = save_folder(sd1_pipeline(), tmp_path / "configs")
    theirs = StableDiffusionPipeline.from_single_file(
        str(sd1_file), config=str(configs), local_files_only=True, safety_checker=None, torch_dtype=torch.float32
    )
    ours = StableDiffusionPipeline.from_pretrained(model_folder_of(sd1_file), torch_dtype=torch.float32)
    latents = [
        pipeline(
            "a photo of a cat",
            num_inference_steps=2,
            width=64,
            height=64,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
        ).images
        for pipeline in (ours, theirs)
    ]
    assert torch.isfinite(latents[0]).all() and torch.equal(*latents)


def test_real_sd15_has_the_published_configs() -> None:
    """Shapes only: the configs that are read off SD 1.5's weights build SD 1.5."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=512,
        )
    text = {
        "text_model.embeddings.token_embedding.weight": (49408, 768),
        "text_model.embeddings.position_embedding.weight": (77, 768),
        **{f"text_model.encoder.layers.{layer}.mlp.fc1.weight": (3072, 768) for layer in range(12)},
    }
    shapes = {
        part: {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for part, model in (("unet", unet), ("vae", vae))
    }
    found = part_configs("sd1", {**shapes, "text_encoder": text})
    for part, model in (("unet", unet), ("vae", vae)):
        rebuilt = type(model).from_config(found[part]).config if part == "vae" else on_meta(found[part])
        published = {name: value for name, value in model.config.items() if not name.startswith("_")}
        assert {name: as_list(rebuilt[name]) for name in published} == {k: as_list(v) for k, v in published.items()}
    expected = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    assert found["text_encoder"].items() >= {**expected, "vocab_size": 49408, "hidden_act": "quick_gelu"}.items()


def on_meta(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config).config


def as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_a_file_is_converted_once_and_again_when_it_changes(sd1_file: Path, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(sd1_file, tmp_path / "model.safetensors"))
    watcher = Watcher()
    folder = model_folder(str(path), None, events=watcher)
    progress = [event for event in watcher.events if event["type"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == len(progress)
    assert converted_folder(path) == folder and folder.parent == cache_dir()
    assert json.loads((folder / "single_file.json").read_text()) == {"made_of": str(path.resolve())}

    watcher = Watcher()
    assert model_folder(str(path), None, events=watcher) == folder and not watcher.events
    moved = path.rename(tmp_path / "renamed.safetensors")
    assert model_folder(str(moved), None, events=watcher) == folder and not watcher.events

    weights = load_file(moved)
    weights["model.diffusion_model.out.2.bias"] += 1
    other = model_folder_of(write_file(moved, weights))
    assert other != folder
    assert torch.equal(weights_of(other / "unet")["conv_out.bias"], weights["model.diffusion_model.out.2.bias"])


def test_nothing_half_made_is_ever_used(sd1_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_tokenizer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model_folder_of(sd1_file)
    assert converted_folder(sd1_file) is None
    assert not list(cache_dir().glob("*")) or all(path.suffix == ".lock" for path in cache_dir().iterdir())

    folder = model_folder_of(sd1_file)
    (folder / "model_index.json").unlink()  # someone cleaned up by hand, and a killed process left its folder
    left = folder.parent / f".{folder.name}.0123.tmp"
    left.mkdir()
    assert model_folder_of(sd1_file) == folder and (folder / "model_index.json").is_file() and not left.exists()


def test_two_at_once_make_one_folder(sd1_file: Path) -> None:
    """Two threads stand for two processes: each locks with a file handle of its own."""
    start, watchers = Barrier(2), [Watcher(), Watcher()]

    def convert(watcher: Watcher) -> Path:
        start.wait()
        return model_folder_of(sd1_file, events=watcher)

    with ThreadPoolExecutor() as pool:
        folders = set(pool.map(convert, watchers))
    assert folders == {converted_folder(sd1_file)}
    assert sorted(bool(watcher.events) for watcher in watchers) == [False, True]  # one worked, one waited
    assert_same(weights_of(folders.pop() / "vae"), sd1_pipeline().vae.state_dict())


def problem(path: Path) -> Any:
    with pytest.raises(UserError) as caught:
        model_folder_of(path)
    found = caught.value.problems[0]
    assert found.field == "model.base" and found.hint
    return found


def test_a_full_disk_is_told_before_anything_is_written(sd1_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(ROOT)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    found = problem(sd1_file)
    assert found.code == "model.disk_full" and "GB" in found.message
    assert converted_folder(sd1_file) is None


def test_an_incomplete_model_is_told_by_what_is_missing(tmp_path: Path) -> None:
    weights = sd1_weights(sd1_pipeline())
    del weights["model.diffusion_model.middle_block.1.proj_in.weight"]
    found = problem(write_file(tmp_path / "model.safetensors", weights))
    assert found.code == "model.broken" and "mid_block.attentions.0.proj_in.weight" in found.message
    del weights["model.diffusion_model.input_blocks.1.0.out_layers.3.weight"]
    assert "down_blocks.0.resnets.0.conv2" in problem(write_file(tmp_path / "model.safetensors", weights)).message
    assert not [path for path in cache_dir().iterdir() if path.suffix != ".lock"]


def test_another_vocabulary_needs_a_folder_with_its_tokenizer(tmp_path: Path) -> None:
    weights = sd1_weights(sd1_pipeline())
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    weights[name] = weights[name][:1000]
    found = problem(write_file(tmp_path / "model.safetensors", weights))
    assert "1000" in found.message and "49408" in found.message and "tokenizer" in found.hint


def test_compressed_number_formats_are_refused(tmp_path: Path) -> None:
    weights = sd1_weights(sd1_pipeline())
    name = "model.diffusion_model.out.2.weight"
    weights[name] = weights[name].to(torch.float8_e4m3fn)
    assert name in problem(write_file(tmp_path / "model.safetensors", weights)).message


def test_the_scheduler_follows_what_the_file_says(tmp_path: Path) -> None:
    weights = sd1_weights(sd1_pipeline())

    def scheduler(extra: Weights, metadata: dict[str, str] | None = None) -> dict[str, Any]:
        folder = model_folder_of(write_file(tmp_path / "model.safetensors", {**weights, **extra}, metadata))
        return json.loads((folder / "scheduler" / "scheduler_config.json").read_text())

    assert scheduler({})["prediction_type"] == "epsilon"
    assert scheduler({}, {"modelspec.prediction_type": "v"})["prediction_type"] == "v_prediction"
    marked = scheduler({"v_pred": torch.empty(0), "ztsnr": torch.empty(0)})
    assert marked["prediction_type"] == "v_prediction"
    assert marked["rescale_betas_zero_snr"] is True and marked["timestep_spacing"] == "trailing"


@pytest.mark.parametrize("naming", ["original", "diffusers", "old diffusers", "whole model"])
def test_a_vae_may_be_a_file_too(sd1_file: Path, tmp_path: Path, naming: str) -> None:
    torch.manual_seed(1)
    vae = small_vae()
    plain = vae.state_dict()
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = {"original": ldm_vae(vae), "diffusers": plain, "old diffusers": plain, "whole model": plain}[naming]
    if naming == "old diffusers":
        for new, former in old.items():
            weights = {name.replace(new, former): tensor for name, tensor in weights.items()}
    if naming == "whole model":
        weights = {f"first_stage_model.{name}": tensor for name, tensor in ldm_vae(vae).items()}
    path = write_file(tmp_path / "vae.safetensors", {**weights, "loss.logvar": torch.zeros(1)})
    family = load_family(ModelSettings(base=str(sd1_file), vae=str(path)), device=CPU, dtype=torch.float32)
    assert_same(family.vae.state_dict(), plain)  # type: ignore[attr-defined]


def test_a_vae_file_takes_over_the_models_latent_scale(tmp_path: Path) -> None:
    path = write_file(tmp_path / "vae.safetensors", ldm_vae(small_vae()))
    for scale in (0.18215, 0.13025):
        config = json.loads((vae_folder_of(path, scale) / "config.json").read_text())
        assert config["scaling_factor"] == scale


def test_what_is_no_vae_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no VAE") as caught:
        vae_folder_of(write_file(tmp_path / "x.safetensors", {"a": torch.zeros(2)}), 0.18215)
    assert caught.value.problems[0].field == "model.vae"


def test_the_sizes_of_a_file_are_those_of_its_folder(sd1_file: Path, tmp_path: Path) -> None:
    unread = model_sizes(ModelSettings(base=str(sd1_file)), LoraSettings())
    assert unread.known and converted_folder(sd1_file) is None
    folder = model_folder_of(sd1_file)
    assert model_sizes(ModelSettings(base=str(folder)), LoraSettings()) == unread
    assert unread.denoiser == sum(each.numel() for each in small_unet().parameters())

    pickled = write_file(tmp_path / "model.ckpt", sd1_weights(sd1_pipeline()))
    assert not model_sizes(ModelSettings(base=str(pickled)), LoraSettings()).known
    model_folder_of(pickled)
    assert model_sizes(ModelSettings(base=str(pickled)), LoraSettings()) == unread


def test_old_files_without_the_text_model_level(tmp_path: Path) -> None:
    pipeline = sd1_pipeline()
    weights = {name.replace(".text_model.", "."): tensor for name, tensor in sd1_weights(pipeline).items()}
    folder = model_folder_of(write_file(tmp_path / "model.safetensors", weights))
    assert_same(weights_of(folder / "text_encoder"), text_weights(pipeline))
    assert text_config().hidden_size == json.loads((folder / "text_encoder" / "config.json").read_text())["hidden_size"]
