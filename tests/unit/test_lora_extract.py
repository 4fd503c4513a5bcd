"""Extraction of LoRAs that are known beforehand, from models of every family, against diffusers and numpy."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from safetensors.torch import load_file, save_file
from single_file_samples import sample, save_folder, sd1_weights, sd2_weights, sdxl_weights, write_file
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention

from trainer.__main__ import main
from trainer.demo import MODEL_DIR
from trainer.errors import StoppedOnRequest, UserError
from trainer.lora import extract
from trainer.lora.extract import EXTRACT_KEY, ExtractReport, ExtractSettings, extract_lora, widest_of
from trainer.lora.file import LoraFile, read_lora, write_lora
from trainer.lora.keys import kohya_key
from trainer.lora.model_weights import Weight, open_model

KINDS = ("sd1", "sd2", "sdxl")
TRANSFORMER, RESNET = (Transformer2DModel,), (ResnetBlock2D, Downsample2D, Upsample2D)
CPU = torch.device("cpu")
LOSSLESS = ExtractSettings(rank=8, conv_rank=6, clamp_quantile=1.0)


class _Quiet:
    def emit(self, kind: str, step: int = 0, **fields: object) -> None:
        """Nobody listens."""


def _layers(pipeline: Any, *, conv: bool) -> dict[tuple[str, str], nn.Linear | nn.Conv2d]:
    """What sd-scripts puts LoRAs on, by the classes that it names."""
    found: dict[tuple[str, str], nn.Linear | nn.Conv2d] = {}
    for part in (name for name in ("unet", "text_encoder", "text_encoder_2") if hasattr(pipeline, name)):
        kinds = (*TRANSFORMER, *(RESNET if conv else ())) if part == "unet" else (CLIPAttention, CLIPMLP)
        for outer, module in getattr(pipeline, part).named_modules():
            if isinstance(module, kinds):
                for inner, layer in module.named_modules():
                    if isinstance(layer, nn.Linear | nn.Conv2d):
                        found[part, f"{outer}.{inner}" if inner else outer] = layer
    return found


@functools.lru_cache(maxsize=3)
def _pair(kind: str) -> tuple[Any, Any, dict[tuple[str, str], Tensor]]:
    """A float32 model, the same one with a LoRA of rank 4 (convolutions 3) added, and what was added to each layer."""
    base = copy.deepcopy(sample(kind)[0])
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if hasattr(base, part):
            getattr(base, part).float()
    tuned = copy.deepcopy(base)
    random, known = torch.Generator().manual_seed(5), {}
    for key, layer in _layers(tuned, conv=True).items():
        shape, rank = layer.weight.shape, 3 if layer.weight.shape[2:] == (3, 3) else 4
        up = torch.randn(shape[0], rank, generator=random, dtype=torch.float64)
        down = torch.randn(rank, math.prod(shape[1:]), generator=random, dtype=torch.float64)
        known[key] = (up @ down * 0.01).reshape(shape)
        with torch.no_grad():
            layer.weight.copy_((layer.weight.double() + known[key]).float())
    return base, tuned, known


def _file(kind: str, pipeline: Any, path: Path) -> Path:
    weights = {"sd1": sd1_weights, "sd2": sd2_weights, "sdxl": sdxl_weights}[kind](pipeline)
    return write_file(path, weights)


def _extract(
    base: Path | str, tuned: Path | str, settings: ExtractSettings = LOSSLESS, events: Any = None
) -> tuple[LoraFile, ExtractReport]:
    with open_model(str(base), field="base") as first, open_model(str(tuned), field="tuned") as second:
        precision = widest_of([first, second])
        return extract_lora(first, second, settings, precision=precision, device=CPU, events=events or _Quiet())


@functools.lru_cache(maxsize=3)
def _lossless(pair: tuple[Path, Path]) -> tuple[LoraFile, ExtractReport]:
    return _extract(*pair)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """For each family the base as one file, the tuned model as a folder."""
    folder = tmp_path_factory.mktemp("pairs")
    made = {}
    for kind in KINDS:
        base, tuned, _ = _pair(kind)
        file = _file(kind, base, folder / f"{kind}.safetensors")
        made[kind] = file, save_folder(copy.deepcopy(tuned), folder / f"{kind}-tuned")
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_lora_comes_back_from_a_file_and_a_folder(
    kind: str, pairs: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    base, tuned, known = _pair(kind)
    lora, report = _lossless(pairs[kind])
    sdxl = kind == "sdxl"
    wanted = {kohya_key(part, path, sdxl=sdxl): delta for (part, path), delta in known.items()}
    assert set(lora.layers) == set(wanted)
    for module, delta in wanted.items():
        layer = lora.layers[module]
        found = layer.delta(torch.float64).reshape(delta.shape)
        assert float((found - delta).norm() / delta.norm()) < 1e-5, module
        assert layer.alpha == layer.rank  # so the scale is 1
        assert layer.rank == min(6 if delta.shape[2:] == (3, 3) else 8, delta.shape[0], math.prod(delta.shape[1:]))
    assert report.error < 1e-5
    assert report.not_carried < 1e-6
    assert not report.unchanged
    assert not report.left_out
    write_lora(tmp_path / "lora.safetensors", lora, precision="float")
    fused = copy.deepcopy(base)
    fused.load_lora_weights(tmp_path / "lora.safetensors")
    fused.fuse_lora(components=[part for part in ("unet", "text_encoder", "text_encoder_2") if hasattr(fused, part)])
    fused.unload_lora_weights()
    for part in (part for part in ("unet", "text_encoder", "text_encoder_2") if hasattr(fused, part)):
        expected = getattr(tuned, part).state_dict()
        found = {name.replace("base_layer.", ""): value for name, value in getattr(fused, part).state_dict().items()}
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=2e-5)


def test_both_layouts_give_the_same_lora(pairs: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    base, tuned, _ = _pair("sd1")
    first, _ = _lossless(pairs["sd1"])
    folder = save_folder(copy.deepcopy(base), tmp_path / "base")
    ckpt = _file("sd1", tuned, tmp_path / "tuned.ckpt")
    for given in ((folder, pairs["sd1"][1]), (pairs["sd1"][0], ckpt)):
        again, _ = _extract(*given)
        for module, layer in first.layers.items():
            assert torch.equal(layer.down, again.layers[module].down), module
            assert torch.equal(layer.up, again.layers[module].up), module


def test_without_a_conv_rank_only_transformers_and_the_rest_is_told(pairs: dict[str, tuple[Path, Path]]) -> None:
    base, _, known = _pair("sdxl")
    lora, report = _extract(*pairs["sdxl"], ExtractSettings(rank=8, clamp_quantile=1.0))
    assert set(lora.layers) == {kohya_key(*key, sdxl=True) for key in _layers(base, conv=False)}
    inside = {key for key in known if kohya_key(*key, sdxl=True) in lora.layers}
    whole = sum(float(delta.square().sum()) for delta in known.values())
    outside = sum(float(delta.square().sum()) for key, delta in known.items() if key not in inside)
    assert report.not_carried == pytest.approx(math.sqrt(outside / whole), rel=1e-4)


def test_a_small_rank_keeps_the_largest_values(pairs: dict[str, tuple[Path, Path]]) -> None:
    _, _, known = _pair("sd1")
    lora, report = _extract(*pairs["sd1"], ExtractSettings(rank=2, conv_rank=1, clamp_quantile=1.0))
    by_module = {layer.module: layer for layer in report.layers}
    for key, delta in known.items():
        module = kohya_key(*key)
        rank = lora.layers[module].rank
        assert rank == (1 if delta.shape[2:] == (3, 3) else 2)
        values = np.linalg.svd(delta.flatten(1).numpy(), compute_uv=False)
        kept = np.sqrt((values[:rank] ** 2).sum() / (values**2).sum())
        assert by_module[module].norm == pytest.approx(np.linalg.norm(values), rel=1e-5)
        assert by_module[module].norm_kept == pytest.approx(kept, rel=1e-4)
        assert by_module[module].error == pytest.approx(np.sqrt(1 - kept**2), rel=1e-3)


@pytest.mark.parametrize("quantile", [0.99, 0.9])
def test_clamping_is_that_of_sd_scripts_with_both_signs(quantile: float, pairs: dict[str, tuple[Path, Path]]) -> None:
    _, _, known = _pair("sd1")
    lora, report = _extract(*pairs["sd1"], ExtractSettings(rank=4, conv_rank=3, clamp_quantile=quantile))
    for key, delta in known.items():
        layer = lora.layers[kohya_key(*key)]
        left, values, right = np.linalg.svd(delta.flatten(1).numpy(), full_matrices=False)
        up, down = left[:, : layer.rank] * values[: layer.rank], right[: layer.rank]
        numbers = np.abs(np.concatenate([up.ravel(), down.ravel()]))
        limit = np.quantile(numbers, 1 - 2 * (1 - quantile))  # as many are cut off below as above
        expected = up.clip(-limit, limit) @ down.clip(-limit, limit)
        found = layer.delta(torch.float64).flatten(1).numpy()
        assert np.linalg.norm(found - expected) < 2e-5 * np.linalg.norm(expected)
    assert report.error > 0.01  # it is not for free, and told


def _demo_with(folder: Path, part: str, changes: dict[str, Tensor], dtype: torch.dtype | None = None) -> Path:
    """The demo model with something added to weights of one part, all of which may be saved in another format."""
    folder.mkdir()
    for source in MODEL_DIR.iterdir():
        if source.name != part:
            (folder / source.name).symlink_to(source)
    (folder / part).mkdir()
    for source in (MODEL_DIR / part).iterdir():
        if source.suffix != ".safetensors":
            (folder / part / source.name).symlink_to(source)
            continue
        weights = load_file(source)
        weights |= {name: weights[name] + change.to(weights[name].dtype) for name, change in changes.items()}
        weights = {name: value.to(dtype or value.dtype) for name, value in weights.items()}
        save_file(weights, folder / part / source.name)
    return folder


QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
TEXT_QUERY = "encoder.layers.0.self_attn.q_proj.weight"


def _demo_shape(part: str, name: str) -> tuple[str, torch.Size]:
    (path,) = (MODEL_DIR / part).glob("*.safetensors")
    weights = load_file(path)
    full = next(key for key in weights if key.removeprefix("text_model.") == name)
    return full, weights[full].shape


def test_only_what_changed_is_in_the_lora(tmp_path: Path) -> None:
    name, shape = _demo_shape("unet", QUERY)
    tuned = _demo_with(tmp_path / "tuned", "unet", {name: torch.full(shape, 0.25)})
    lora, report = _extract("demo", tuned)
    assert set(lora.layers) == {kohya_key("unet", QUERY.removesuffix(".weight"))}
    assert report.left_out == {"text_encoder": 0.0}
    assert len(report.unchanged) > 20
    assert report.not_carried == 0


def test_norms_and_biases_count_as_not_carried(tmp_path: Path) -> None:
    name, shape = _demo_shape("unet", QUERY)
    bias, bias_shape = _demo_shape("unet", "conv_norm_out.weight")
    changes = {name: torch.full(shape, 0.25), bias: torch.full(bias_shape, 0.5)}
    _, report = _extract("demo", _demo_with(tmp_path / "tuned", "unet", changes))
    layer, rest = 0.25 * math.sqrt(shape.numel()), 0.5 * math.sqrt(bias_shape.numel())
    assert report.not_carried == pytest.approx(rest / math.hypot(layer, rest), rel=2e-2)


def test_text_encoders_stay_only_where_more_than_min_diff_changed(tmp_path: Path) -> None:
    name, shape = _demo_shape("text_encoder", TEXT_QUERY)
    change = torch.zeros(shape)
    change[0, :4] = 0.125
    tuned = _demo_with(tmp_path / "tuned", "text_encoder", {name: change})
    lora, report = _extract("demo", tuned)
    assert set(lora.layers) == {kohya_key("text_encoder", TEXT_QUERY.removesuffix(".weight"))}
    assert not report.left_out
    with pytest.raises(UserError) as caught:
        _extract("demo", tuned, ExtractSettings(rank=4, min_diff=0.2))
    assert caught.value.problems[0].code == "extract.equal"
    assert "which min_diff leaves out" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_same_weights_in_another_format_are_no_change(dtype: torch.dtype, tmp_path: Path) -> None:
    fine = _demo_with(tmp_path / "fine", "text_encoder", {}, torch.float32)
    name, shape = _demo_shape("text_encoder", TEXT_QUERY)
    (path,) = (fine / "text_encoder").glob("*.safetensors")
    random = torch.Generator().manual_seed(0)
    values = {key: value + 1e-3 * torch.randn(value.shape, generator=random) for key, value in load_file(path).items()}
    save_file(values, path)
    coarse = tmp_path / "coarse"
    _demo_with(coarse, "text_encoder", {})
    (target,) = (coarse / "text_encoder").glob("*.safetensors")
    save_file({key: value.to(dtype) for key, value in values.items()}, target)
    with pytest.raises(UserError) as caught:
        _extract(fine, coarse)
    assert caught.value.problems[0].code == "extract.equal"
    change = torch.zeros(shape)
    change[3, 5] = 0.1
    save_file({key: (value + change if key == name else value).to(dtype) for key, value in values.items()}, target)
    assert len(_extract(fine, coarse)[0].layers) == 1


def test_metadata_tells_all(pairs: dict[str, tuple[Path, Path]]) -> None:
    for kind, version, architecture in (
        ("sd1", "sd_v1", "stable-diffusion-v1/lora"),
        ("sd2", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
        ("sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    ):
        metadata = _lossless(pairs[kind])[0].metadata
        assert metadata["ss_base_model_version"] == version
        assert metadata["modelspec.architecture"] == architecture
        assert metadata["modelspec.prediction_type"] == ("v" if kind == "sd2" else "epsilon")
        assert metadata["ss_network_module"] == "networks.lora"
        record = json.loads(metadata[EXTRACT_KEY])
        assert record["extracted_from"]["base"]["name"] == f"{kind}.safetensors"
        assert record["extracted_from"]["tuned"]["name"] == f"{kind}-tuned"
        assert (record["rank"], record["conv_rank"], record["clamp_quantile"]) == (8, 6, 1.0)
        assert str(pairs[kind][0].parent) not in json.dumps(metadata)


def _refused(base: Path | str, tuned: Path | str) -> UserError:
    with pytest.raises(UserError) as caught:
        _extract(base, tuned)
    return caught.value


def test_models_that_do_not_belong_together_are_told(pairs: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    error = _refused(pairs["sd1"][0], pairs["sdxl"][1])
    assert error.problems[0].code == "extract.families"
    assert "Stable Diffusion 1.x" in str(error)
    assert "Stable Diffusion XL" in str(error)
    error = _refused("demo", pairs["sd1"][1])  # both are of SD 1, of other sizes
    assert [problem.code for problem in error.problems] == ["extract.shapes"]
    assert "differ in shape" in str(error)
    assert _refused("demo", _demo_with(tmp_path / "same", "unet", {})).problems[0].code == "extract.equal"
    name, shape = _demo_shape("unet", QUERY)
    broken = _demo_with(tmp_path / "nan", "unet", {name: torch.full(shape, math.nan)})
    assert "tuned: unet." in str(_refused("demo", broken))
    assert "base: unet." in str(_refused(broken, "demo"))
    (tmp_path / "nan" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "no weights in" in str(_refused("demo", broken))


def test_one_layer_is_in_memory_at_a_time(pairs: dict[str, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0
    plain = Weight.load

    def counted(self: Weight) -> Tensor:
        nonlocal alive, most
        tensor, size = plain(self), math.prod(self.shape)
        alive += size
        most = max(most, alive)

        def gone() -> None:
            nonlocal alive
            alive -= size

        weakref.finalize(tensor, gone)
        return tensor

    monkeypatch.setattr(Weight, "load", counted)
    _extract(*pairs["sd1"], ExtractSettings(rank=4))
    with open_model(str(pairs["sd1"][0]), field="base") as model:
        largest = max(math.prod(weight.shape) for weight in model.weights.values())
    assert 0 < most <= 3 * largest


def test_a_stop_leaves_nothing(
    pairs: dict[str, tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise StoppedOnRequest("stopped on request")

    monkeypatch.setattr(extract.ExtractProgress, "tell", stop)
    base, tuned = pairs["sd1"]
    out = tmp_path / "new" / "lora.safetensors"
    assert main(["extract", "--base", str(base), "--tuned", str(tuned), "--rank", "4", "--out", str(out)]) == 3
    assert list(tmp_path.rglob("*")) == []


def test_progress_tells_the_time_left(pairs: dict[str, tuple[Path, Path]]) -> None:
    told: list[dict[str, Any]] = []

    class Listener:
        def emit(self, kind: str, step: int = 0, **fields: object) -> None:
            told.append({"type": kind, **fields})

    _extract(*pairs["sd1"], ExtractSettings(rank=4, conv_rank=3), Listener())
    assert {event["what"] for event in told} == {"extracting"}
    assert told[-1]["done"] == told[-1]["total"] == len(_pair("sd1")[2])
    assert told[-1]["seconds_left"] == 0
    assert all(event["seconds_left"] >= 0 for event in told)


def test_the_extract_command(
    pairs: dict[str, tuple[Path, Path]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base, tuned = pairs["sd1"]
    out = tmp_path / "lora.safetensors"
    command = ["extract", "--base", str(base), "--tuned", str(tuned), "--rank", "4", "--out", str(out)]
    assert main([*command, "--conv-rank", "3", "--clamp-quantile", "1", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    large = sum(delta.shape[2:] == (3, 3) for delta in _pair("sd1")[2].values())
    assert (answer["family"], answer["precision"], answer["error"] < 1e-5) == ("sd1", "float", True)
    assert answer["ranks"] == {"3": large, "4": len(answer["layers"]) - large}
    assert answer["sha256"]["base"] == hashlib.sha256(base.read_bytes()).hexdigest()
    record = json.loads(read_lora(out).metadata[EXTRACT_KEY])
    assert record["extracted_from"]["base"]["sha256"] == answer["sha256"]["base"]
    assert record["extracted_from"]["tuned"]["sha256"] == answer["sha256"]["tuned"]
    half = ["--precision", "fp16", "--overwrite", "--verbose"]
    assert main([*command, *half]) == 0
    printed = capfd.readouterr().out
    assert "of the whole difference lies where this LoRA has no layers" in printed
    assert next(iter(read_lora(out).layers.values())).tensors()["lora_up.weight"].dtype == torch.float16


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    numbers = ["--rank", "0", "--conv-rank", "-1", "--clamp-quantile", "1.5", "--min-diff", "-1"]
    models = ["--base", str(tmp_path / "none.safetensors"), "--tuned", str(tmp_path / "broken.safetensors")]
    assert main(["extract", *models, *numbers, "--out", str(tmp_path / "a.ckpt"), "--json"]) == 2
    problems = json.loads(capfd.readouterr().out)["error"]
    fields = ["rank", "conv_rank", "clamp_quantile", "min_diff", "out", "base", "tuned"]
    assert [problem["field"] for problem in problems] == fields
    same = ["--base", "demo", "--tuned", "demo", "--rank", "4", "--out", str(tmp_path / "a.safetensors")]
    assert main(["extract", *same]) == 2
    assert "is the same model as base" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["broken.safetensors"]
