"""Model folders made of single files: the same tensors as diffusers makes of them; once, whole, or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tests.conftest import ROOT
from tests.recipe.tiny_runs import Watcher
from tests.unit.single_file_samples import (
    Weights,
    ldm_vae,
    sample,
    save_folder,
    sd1_pipeline,
    sd1_weights,
    sd2_weights,
    sdxl_weights,
    small_unet,
    small_vae,
    text_config,
    write_file,
)
from trainer.config import Config, LoraSettings, ModelSettings
from trainer.errors import Problem, UserError
from trainer.families import load_family, model_folder
from trainer.model_sizes import model_sizes
from trainer.plan_warnings import about_model
from trainer.single_file import cache, convert
from trainer.single_file.cache import cache_dir, converted_folder
from trainer.single_file.configs import part_configs
from trainer.single_file.convert import model_folder_of, vae_folder_of
from trainer.single_file.kinds import folder_bytes, identify
from trainer.single_file.names import target_shapes

CPU = torch.device("cpu")
KINDS = ("sd1", "sd2", "sdxl")


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


def text_weights(pipeline: Any, part: str = "text_encoder") -> Weights:
    return {name.removeprefix("text_model."): tensor for name, tensor in getattr(pipeline, part).state_dict().items()}


def as_diffusers_reads_it(path: Path, pipeline: Any, configs: Path) -> Any:
    """The model in the file, read by diffusers with the configs of the model that the file was made of."""
    options = {} if hasattr(pipeline, "text_encoder_2") else {"safety_checker": None}
    return type(pipeline).from_single_file(
        str(path),
        config=str(save_folder(pipeline, configs)),
        local_files_only=True,
        torch_dtype=torch.float32,
        **options,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_reads_the_sample_as_the_model_it_was_made_of(kind: str, tmp_path: Path) -> None:
    """The judge: were our samples named otherwise than real files, diffusers would not understand them."""
    pipeline, weights = sample(kind)
    path = write_file(tmp_path / "model.safetensors", weights)
    theirs = as_diffusers_reads_it(path, pipeline, tmp_path / "configs")
    for part in ("unet", "vae", *(name for name in pipeline.components if name.startswith("text_encoder"))):
        expected = {name: tensor.float() for name, tensor in getattr(pipeline, part).state_dict().items()}
        assert_same(dict(getattr(theirs, part).state_dict()), expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_holds_the_files_weights_in_their_format(tmp_path: Path, kind: str, suffix: str) -> None:
    pipeline, weights = sample(kind)
    folder = model_folder_of(write_file(tmp_path / f"model{suffix}", weights))
    assert_same(weights_of(folder / "unet"), pipeline.unet.state_dict())
    assert_same(weights_of(folder / "vae"), pipeline.vae.state_dict())
    for part in (name for name in pipeline.components if name.startswith("text_encoder")):
        assert_same(weights_of(folder / part), text_weights(pipeline, part))


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_draws_what_diffusers_draws_from_the_file(kind: str, tmp_path: Path) -> None:
    """Our configs are read off the weights; tokenizer, scheduler and heads must be right too for the same picture."""
    pipeline, weights = sample(kind)
    path = write_file(tmp_path / "model.safetensors", weights)
    theirs = as_diffusers_reads_it(path, pipeline, tmp_path / "configs")
    ours = type(pipeline).from_pretrained(model_folder_of(path), torch_dtype=torch.float32)
    latents = [
        each(
            "a photo of a cat",
            num_inference_steps=2,
            width=64,
            height=64,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
        ).images
        for each in (ours, theirs)
    ]
    assert torch.isfinite(latents[0]).all() and torch.equal(*latents)
    assert ours.vae.config.scaling_factor == theirs.vae.config.scaling_factor


PUBLISHED_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {
        "sample_size": 64,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
PUBLISHED_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
PUBLISHED_VAE_SIZES = {"sd1": (512, 0.18215), "sd2": (768, 0.18215), "sdxl": (1024, 0.13025)}
PUBLISHED_TEXT: dict[str, tuple[int, int, int, str]] = {  # width, layers, heads, activation
    "sd1 text_encoder": (768, 12, 12, "quick_gelu"),
    "sd2 text_encoder": (1024, 23, 16, "gelu"),
    "sdxl text_encoder": (768, 12, 12, "quick_gelu"),
    "sdxl text_encoder_2": (1280, 32, 20, "gelu"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_real_sizes_give_the_published_configs(kind: str) -> None:
    """From names and shapes alone: what is read off SD 1.5, SD 2.1 and SDXL builds SD 1.5, SD 2.1 and SDXL."""
    models = real_models(kind)
    weights = {"sd1": sd1_weights, "sd2": sd2_weights, "sdxl": sdxl_weights}[kind](SimpleNamespace(**models))
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    layout = identify(Path("model.safetensors"), shapes)
    assert layout.family == kind
    found = {part: target_shapes(names, shapes) for part, names in layout.names(shapes).items()}
    for part, model in models.items():
        assert flat(found[part]) == flat({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    configs = part_configs(kind, found)
    for part in ("unet", "vae"):
        with torch.device("meta"):
            rebuilt = type(models[part]).from_config(configs[part])
        assert settings_of(rebuilt) == settings_of(models[part])
    for part in [name for name in models if name.startswith("text_encoder")]:
        published = models[part].config
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"):
            assert configs[part][name] == getattr(published, name)
    assert kind != "sdxl" or configs["text_encoder_2"]["projection_dim"] == 1280


def real_models(kind: str) -> dict[str, Any]:
    """The parts of a published model, without memory."""
    size, scale = PUBLISHED_VAE_SIZES[kind]
    with torch.device("meta"):
        models: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(PUBLISHED_UNETS[kind]),
            "vae": AutoencoderKL.from_config({**PUBLISHED_VAE, "sample_size": size, "scaling_factor": scale}),
        }
        for part in [name.split()[1] for name in PUBLISHED_TEXT if name.startswith(f"{kind} ")]:
            width, layers, heads, activation = PUBLISHED_TEXT[f"{kind} {part}"]
            sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
            config = text_config(**sizes, num_attention_heads=heads, hidden_act=activation, projection_dim=1280)
            models[part] = (CLIPTextModelWithProjection if part.endswith("2") else CLIPTextModel)(config)
    return models


def flat(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("text_model."): shape for name, shape in shapes.items()}


def settings_of(model: Any) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in model.config.items()
        if not name.startswith("_")
    }


def test_sdxl_that_predicts_the_velocity_is_told_by_its_keys(tmp_path: Path) -> None:
    """NoobAI's convention: empty weights as marks."""
    _, weights = sample("sdxl")
    marks = {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    for given, prediction_type, last in ((weights, "epsilon", 0.0047), ({**weights, **marks}, "v_prediction", 0.0)):
        base = str(write_file(tmp_path / "model.safetensors", given))
        watcher = Watcher()
        family = load_family(ModelSettings(base=base), device=CPU, dtype=torch.float32, events=watcher)
        assert family.name == "sdxl" and family.prediction_type == prediction_type
        assert float(family.alphas_cumprod[-1]) == pytest.approx(last, abs=1e-4)
        assert not [event for event in watcher.events if event["type"] == "warning"]


def test_the_sizes_of_an_sdxl_file_count_both_text_encoders(tmp_path: Path) -> None:
    path = write_file(tmp_path / "model.safetensors", sample("sdxl")[1])
    lora = LoraSettings(train="both")
    unread = model_sizes(ModelSettings(base=str(path)), lora)
    assert unread == model_sizes(ModelSettings(base=str(model_folder_of(path))), lora)


def test_sd2_without_a_word_is_taken_for_the_v_model_and_that_is_said(tmp_path: Path) -> None:
    _, weights = sample("sd2")
    told = {"modelspec.prediction_type": "epsilon"}
    for metadata, prediction_type, side, warned in ((None, "v_prediction", 96, True), (told, "epsilon", 64, False)):
        base = str(write_file(tmp_path / "model.safetensors", weights, metadata))
        watcher = Watcher()
        family = load_family(ModelSettings(base=base), device=CPU, dtype=torch.float32, events=watcher)
        assert family.name == "sd2" and family.prediction_type == prediction_type
        assert family.denoiser.config.sample_size == side  # type: ignore[union-attr]
        warnings = [event for event in watcher.events if event["type"] == "warning"]
        assert [event["code"] for event in warnings] == ["model.prediction_type"] * warned
        config = Config(model={"base": base})  # type: ignore[arg-type]
        sizes = model_sizes(config.model, config.lora)
        assert [problem.code for problem in about_model(config, sizes)] == ["model.prediction_type"] * warned
        chosen = Config(model={"base": base}, loss={"prediction_type": "epsilon"})  # type: ignore[arg-type]
        assert not list(about_model(chosen, sizes))
    watcher = Watcher()
    options = {"device": CPU, "dtype": torch.float32, "events": watcher}
    load_family(ModelSettings(base=base), prediction_type="epsilon", **options)  # type: ignore[arg-type]
    assert not [event for event in watcher.events if event["type"] == "warning"]


def test_a_file_is_converted_once_and_again_when_it_changes(sd1_file: Path, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(sd1_file, tmp_path / "model.safetensors"))
    watcher = Watcher()
    folder = model_folder(str(path), None, events=watcher)
    told = [event for event in watcher.events if event["type"] == "progress"]
    reading = [event for event in told if event["what"] == "reading the model file, MB"]
    assert reading == told[: len(reading)] and reading[-1]["done"] == reading[-1]["total"]
    progress = [event for event in told if event["what"] == "converting the model file"]
    assert progress[-1]["done"] == progress[-1]["total"] > 900 and 50 < len(progress) <= 100
    assert converted_folder(path) == folder and folder.parent == cache_dir()
    assert json.loads((folder / "single_file.json").read_text()) == {"made_of": str(path.resolve()), "guess": {}}

    watcher = Watcher()
    assert model_folder(str(path), None, events=watcher) == folder and not watcher.events
    moved = path.rename(tmp_path / "renamed.safetensors")
    assert model_folder(str(moved), None, events=watcher) == folder and not watcher.events

    copy = Path(shutil.copyfile(moved, tmp_path / "copy.safetensors"))
    os.utime(moved, (1_000_000_000, 1_000_000_000))
    for same in (copy, moved):  # of another time, and the same all the same
        assert converted_folder(same) is None
        watcher = Watcher()
        assert model_folder(str(same), None, events=watcher) == folder == converted_folder(same)
        assert {event["what"] for event in watcher.events} == {"reading the model file, MB"}

    weights = load_file(moved)
    weights["model.diffusion_model.out.2.bias"] += 1
    other = model_folder_of(write_file(moved, weights))
    assert other != folder
    assert torch.equal(weights_of(other / "unet")["conv_out.bias"], weights["model.diffusion_model.out.2.bias"])


def kept_folders() -> list[str]:
    """Model folders in the cache, half-made ones too."""
    return [path.name for path in cache_dir().iterdir() if path.is_dir() and path.name != "hashes"]


def test_folders_of_an_older_converter_are_removed(sd1_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = cache_dir() / "0123456789abcdef0123456789abcdef"
    others = [cache_dir() / "mine", cache_dir() / ".0123456789abcdef0123456789abcdef.x.tmp"]
    for folder in (old, *others):
        folder.mkdir(parents=True)
    folder = model_folder_of(sd1_file)
    assert not old.exists() and all(other.exists() for other in others) and folder.exists()

    monkeypatch.setattr(cache, "_CONVERTER", 99)
    assert converted_folder(sd1_file) is None
    newer = model_folder_of(sd1_file)
    assert newer != folder and not folder.exists() and newer.exists()


def test_the_plan_tells_what_the_folder_will_take(sd1_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelSettings(base=str(sd1_file))
    sizes = model_sizes(model, LoraSettings())

    def told() -> list[Problem]:
        config = Config(model=model)
        return [each for each in about_model(config, sizes) if each.code == "model.conversion"]

    (before,) = told()
    assert str(cache_dir()) in before.message and f"{folder_bytes(sd1_file) / 1e9:.2f} GB" in before.message
    usage = shutil.disk_usage(ROOT)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        assert "XDG_CACHE_HOME" in told()[0].hint
    folder = model_folder_of(sd1_file)
    assert told() == []
    weights = [path.stat().st_size for path in folder.rglob("*.safetensors")]
    assert folder_bytes(sd1_file) == pytest.approx(sum(weights), rel=0.02)  # but for the headers
    assert folder_bytes(sd1_file) < sum(weights)


def test_nothing_half_made_is_ever_used(sd1_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_tokenizer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model_folder_of(sd1_file)
    assert converted_folder(sd1_file) is None
    assert kept_folders() == []

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
    converted = [any(event["what"].startswith("conv") for event in watcher.events) for watcher in watchers]
    assert sorted(converted) == [False, True]  # one worked, one waited
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


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(sd1_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(convert, "write_tensors", full)
    assert problem(sd1_file).code == "model.disk_full"
    assert kept_folders() == []


def test_a_cache_that_cannot_be_written_is_named(
    sd1_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = problem(sd1_file)
    assert found.code == "model.cache" and "XDG_CACHE_HOME" in found.hint


@pytest.mark.parametrize(("root", "expected"), [("/caches", "/caches"), ("", "~/.cache"), ("not/absolute", "~/.cache")])
def test_the_cache_lies_where_the_system_says(root: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", root)
    assert cache_dir() == Path(expected).expanduser() / "lora-atelier" / "models"


def test_a_wrong_family_is_told_what_the_file_is(sd1_file: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors is a model of Stable Diffusion 1\.x") as caught:
        load_family(ModelSettings(base=str(sd1_file), family="sd2"), device=CPU, dtype=torch.float32)
    assert caught.value.problems[0].field == "model.family"


def test_an_incomplete_model_is_told_by_what_is_missing(tmp_path: Path) -> None:
    weights = sd1_weights(sd1_pipeline())
    del weights["model.diffusion_model.middle_block.1.proj_in.weight"]
    found = problem(write_file(tmp_path / "model.safetensors", weights))
    assert found.code == "model.broken" and "mid_block.attentions.0.proj_in.weight" in found.message
    del weights["model.diffusion_model.input_blocks.1.0.out_layers.3.weight"]
    assert "down_blocks.0.resnets.0.conv2" in problem(write_file(tmp_path / "model.safetensors", weights)).message
    assert kept_folders() == []


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
    with pytest.raises(UserError, match="16 latent channels"):
        vae_folder_of(write_file(tmp_path / "x.safetensors", ldm_vae(small_vae(latent_channels=16))), 0.18215)


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
