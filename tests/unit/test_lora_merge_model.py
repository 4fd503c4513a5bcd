"""Merging into the demo model, and that merged files do in diffusers what their parts do there."""

from __future__ import annotations

import filecmp
import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.__main__ import main
from trainer.errors import UserError
from trainer.lora.file import LoraFile, LoraLayer, read_lora, write_lora
from trainer.lora.keys import kohya_key
from trainer.lora.merge import MERGE_KEY, MergeSettings, merge_loras
from trainer.lora.merge_model import merge_into_model

MODEL = Path(__file__).resolve().parents[2] / "trainer" / "demo" / "model"
WEIGHTS = {"unet": "unet/diffusion_pytorch_model.safetensors", "text_encoder": "text_encoder/model.safetensors"}


class _Quiet:
    def emit(self, kind: str, step: int = 0, **fields: object) -> None:
        """Nobody listens."""


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)


def _random_lora(pipeline: StableDiffusionPipeline, rank: int, alpha: float, seed: int) -> LoraFile:
    """LoRA on attention, feed-forward, projections, 3x3 convolutions and the text encoder."""
    random = torch.Generator().manual_seed(seed)
    layers: dict[str, LoraLayer] = {}
    for part in ("unet", "text_encoder"):
        for path, module in getattr(pipeline, part).named_modules():
            wanted = part == "text_encoder" or ".attentions." in path or path.endswith((".conv1", ".conv2", "0.conv"))
            if wanted and isinstance(module, nn.Linear | nn.Conv2d):
                layers[kohya_key(part, path)] = _random_layer(module, rank, alpha, random)
    return LoraFile(layers, {"ss_base_model_version": "sd_v1"})


def _random_layer(module: nn.Linear | nn.Conv2d, rank: int, alpha: float, random: torch.Generator) -> LoraLayer:
    shape = module.weight.shape
    kernel = (1, 1) if len(shape) == 4 else ()
    down = torch.randn(rank, *shape[1:], generator=random) * 0.1
    return LoraLayer(down, torch.randn(shape[0], rank, *kernel, generator=random) * 0.1, alpha)


@pytest.fixture(scope="module")
def files(pipeline: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRA files of different rank and alpha."""
    folder = tmp_path_factory.mktemp("loras")
    for number, (rank, alpha) in enumerate([(4, 2.0), (8, 8.0)]):
        write_lora(folder / f"{number}.safetensors", _random_lora(pipeline, rank, alpha, number), precision="float")
    return [folder / "0.safetensors", folder / "1.safetensors"]


@torch.no_grad()
def _unet_output(unet: UNet2DConditionModel) -> Tensor:
    random = torch.Generator().manual_seed(1)
    text = torch.randn(2, 16, unet.config.cross_attention_dim, generator=random)
    noisy = torch.randn(2, 4, 16, 16, generator=random)
    return unet(noisy, torch.tensor([10, 700]), encoder_hidden_states=text).sample


@torch.no_grad()
def _text_output(encoder: nn.Module) -> Tensor:
    return encoder(torch.tensor([[1, 5, 9, 2]])).last_hidden_state


def _outputs(pipeline: StableDiffusionPipeline, weighted: list[tuple[Path, float]]) -> tuple[Tensor, Tensor]:
    """UNet and text encoder output with LoRA files loaded by diffusers itself."""
    names = [f"part{number}" for number in range(len(weighted))]
    for name, (path, _) in zip(names, weighted, strict=True):
        pipeline.load_lora_weights(path, adapter_name=name)
    pipeline.set_adapters(names, [weight for _, weight in weighted])
    outputs = _unet_output(pipeline.unet), _text_output(pipeline.text_encoder)
    pipeline.unload_lora_weights()
    return outputs


def _close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    return float((found - expected).norm() / expected.norm()) < tolerance


def test_merged_lora_does_in_diffusers_what_its_parts_do(
    pipeline: StableDiffusionPipeline, files: list[Path], tmp_path: Path
) -> None:
    weighted = list(zip(files, [0.8, -0.4], strict=True))
    parts = _outputs(pipeline, weighted)
    plain = _unet_output(pipeline.unet), _text_output(pipeline.text_encoder)
    assert not _close(parts[0], plain[0], 0.02)
    assert not _close(parts[1], plain[1], 0.02)
    for settings in (MergeSettings(), MergeSettings("svd", 12)):
        merged = merge_loras([(read_lora(path), ratio) for path, ratio in weighted], settings)
        write_lora(tmp_path / f"{settings.mode}.safetensors", merged, precision="float")
        whole = _outputs(pipeline, [(tmp_path / f"{settings.mode}.safetensors", 1.0)])
        assert _close(whole[0], parts[0])
        assert _close(whole[1], parts[1])


def test_merged_model_does_what_the_loras_do(
    pipeline: StableDiffusionPipeline, files: list[Path], tmp_path: Path
) -> None:
    weighted = list(zip(files, [0.8, -0.4], strict=True))
    parts = _outputs(pipeline, weighted)
    merge_into_model(MODEL, weighted, tmp_path / "out", save_precision="float", events=_Quiet())
    merged = StableDiffusionPipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.float32)
    assert _close(_unet_output(merged.unet), parts[0])
    assert _close(_text_output(merged.text_encoder), parts[1])


def test_merged_weights_equal_a_float64_computation(files: list[Path], tmp_path: Path) -> None:
    weighted = list(zip(files, [1.5, -0.4], strict=True))
    done = merge_into_model(MODEL, weighted, tmp_path / "float", save_precision="float", events=_Quiet())
    merge_into_model(MODEL, weighted, tmp_path / "own", events=_Quiet())
    loras = [(read_lora(path), ratio) for path, ratio in weighted]
    changed = 0
    for part, name in WEIGHTS.items():
        base = load_file(MODEL / name)
        single, own = load_file(tmp_path / "float" / name), load_file(tmp_path / "own" / name)
        assert set(single) == set(own) == set(base)
        for key, weight in base.items():
            expected = weight.double()
            for one, ratio in loras:
                layer = (
                    one.layers.get(kohya_key(part, key.removesuffix(".weight"))) if key.endswith(".weight") else None
                )
                if layer is not None:
                    expected = expected + ratio * layer.delta(torch.float64)
                    changed += 1
            assert single[key].dtype == torch.float32
            assert own[key].dtype == weight.dtype
            torch.testing.assert_close(single[key].double(), expected, rtol=1e-5, atol=1e-6)
            assert torch.equal(own[key], expected.to(weight.dtype)) or torch.allclose(
                own[key].double(), expected, rtol=1e-3, atol=1e-7
            )
    assert changed == 2 * len(loras[0][0].layers)
    assert done["changed_weights"] == len(loras[0][0].layers)


def test_merging_back_returns_the_base(files: list[Path], tmp_path: Path) -> None:
    merge_into_model(MODEL, [(files[0], 0.7)], tmp_path / "there", save_precision="float", events=_Quiet())
    merge_into_model(tmp_path / "there", [(files[0], -0.7)], tmp_path / "back", save_precision="fp16", events=_Quiet())
    for name in WEIGHTS.values():
        base, back = load_file(MODEL / name), load_file(tmp_path / "back" / name)
        for key, weight in base.items():
            torch.testing.assert_close(back[key], weight, rtol=1e-3, atol=1e-6)


def test_the_folder_is_complete_and_says_what_was_merged(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    for source in sorted(path for path in MODEL.rglob("*") if path.is_file()):
        target = tmp_path / "base" / source.relative_to(MODEL)
        target.parent.mkdir(exist_ok=True)
        os.link(source, target)
    (tmp_path / "base" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"the unmerged weights as a pickle")
    (tmp_path / "base" / "whole.ckpt").write_bytes(b"x")
    merge_into_model(tmp_path / "base", [(files[0], 1.0)], tmp_path / "out", events=_Quiet())
    ours = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert ours == sorted(str(path.relative_to(MODEL)) for path in MODEL.rglob("*") if path.is_file())
    for name in ours:
        same = filecmp.cmp(MODEL / name, tmp_path / "out" / name, shallow=False)
        assert same or name.endswith(".safetensors"), name
    vae = load_file(tmp_path / "out" / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(
        torch.equal(vae[key], value)
        for key, value in load_file(MODEL / "vae" / "diffusion_pytorch_model.safetensors").items()
    )
    header = (tmp_path / "out" / WEIGHTS["unet"]).read_bytes()[8:4000].decode("utf-8", "replace")
    assert MERGE_KEY in header
    assert "0.safetensors" in header


def _refused(base: Path, loras: list[tuple[Path, float]], out: Path, **options: object) -> UserError:
    before = set(out.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        merge_into_model(base, loras, out, events=_Quiet(), **options)  # type: ignore[arg-type]
    assert set(out.parent.rglob("*")) == before
    return caught.value


def test_what_does_not_fit_is_listed_and_nothing_is_written(files: list[Path], tmp_path: Path) -> None:
    layer = read_lora(files[0]).layers[kohya_key("unet", "mid_block.resnets.0.conv1")]
    write_lora(
        tmp_path / "stranger.safetensors",
        LoraFile({"lora_unet_input_blocks_4_1_proj_in": layer}, {}),
        precision="float",
    )
    narrow = LoraLayer(layer.down[:, :3], layer.up, 1.0)
    misfit = LoraFile({kohya_key("unet", "mid_block.resnets.0.conv1"): narrow}, {})
    write_lora(tmp_path / "misfit.safetensors", misfit, precision="float")
    both = [(tmp_path / "stranger.safetensors", 1.0), (tmp_path / "misfit.safetensors", 1.0)]
    error = _refused(MODEL, both, tmp_path / "out")
    assert [problem.code for problem in error.problems] == ["merge.no_fit"] * 2
    assert "lora_unet_input_blocks_4_1_proj_in" in str(error)
    assert "x3x3x3, the model has" in str(error)


def test_overflow_and_broken_bases_leave_nothing_behind(files: list[Path], tmp_path: Path) -> None:
    assert _refused(MODEL, [(files[0], 1e9)], tmp_path / "out").problems[0].code == "merge.overflow"
    assert _refused(tmp_path, [(files[0], 1.0)], tmp_path / "out").problems[0].code == "model.not_a_model"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert _refused(MODEL, [(files[0], 1.0)], tmp_path / "full").problems[0].code == "merge.exists"
    (tmp_path / "base" / "unet").mkdir(parents=True)
    (tmp_path / "base" / "model_index.json").write_text("{}")
    (tmp_path / "base" / "unet" / "diffusion_pytorch_model.bin").touch()
    assert _refused(tmp_path / "base", [(files[0], 1.0)], tmp_path / "out").problems[0].code == "model.no_safetensors"


def test_the_merge_command(files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pairs = [f"{files[0]}=0.5", f"{files[1]}=-1"]
    out = tmp_path / "merged.safetensors"
    assert main(["merge", "--lora", *pairs, "--out", str(out), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["mode"], answer["ranks"], answer["precision"]) == ("exact", [12], "float")
    assert main(["merge", "--lora", *pairs, "--out", str(out)]) == 2
    assert "exists already" in capfd.readouterr().err
    svd = ["--mode", "svd", "--rank", "3", "--save-precision", "fp16", "--out", str(tmp_path / "svd.safetensors")]
    assert main(["merge", "--lora", pairs[0], "--lora", pairs[1], *svd]) == 0
    assert {layer.rank for layer in read_lora(tmp_path / "svd.safetensors").layers.values()} == {3}
    assert capfd.readouterr().out.startswith("Written: ")
    assert main(["merge", "--lora", *pairs, "--base", "demo", "--out", str(tmp_path / "model"), "--json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["changed_weights"] > 100
    assert "merging" in captured.err
    assert (tmp_path / "model" / "model_index.json").is_file()
    for wrong in (["--lora", str(files[0])], ["--lora", f"{files[0]}=inf"], ["--lora", "none.safetensors=1"]):
        assert main(["merge", *wrong, "--out", str(tmp_path / "x.safetensors")]) == 2
    assert main(["merge", "--lora", *pairs, "--base", "nowhere", "--out", str(tmp_path / "x")]) == 2
    assert main(["merge", "--lora", *pairs, "--out", str(tmp_path / "x.ckpt")]) == 2


def test_a_merged_folder_of_shards_is_merged_shard_by_shard(files: list[Path], tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    pipeline.save_pretrained(tmp_path / "base", max_shard_size="3MB")
    assert len(list((tmp_path / "base" / "unet").glob("*.safetensors"))) > 2
    merge_into_model(tmp_path / "base", [(files[0], 1.0)], tmp_path / "out", events=_Quiet())
    merge_into_model(MODEL, [(files[0], 1.0)], tmp_path / "whole", save_precision="float", events=_Quiet())
    sharded = UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet").state_dict()
    for key, value in load_file(tmp_path / "whole" / WEIGHTS["unet"]).items():
        assert torch.equal(sharded[key], value)


def test_text_encoder_files_with_and_without_the_old_level_are_found(files: list[Path], tmp_path: Path) -> None:
    """Models saved by older transformers have text_model. in front of every name."""
    base = tmp_path / "base"
    (base / "text_encoder").mkdir(parents=True)
    (base / "model_index.json").write_text('{"text_encoder": ["transformers", "CLIPTextModel"]}')
    old = {f"text_model.{key}": value for key, value in load_file(MODEL / WEIGHTS["text_encoder"]).items()}
    save_file(old, base / WEIGHTS["text_encoder"], metadata={"format": "pt"})
    lora = read_lora(files[0])
    text = {key: layer for key, layer in lora.layers.items() if key.startswith("lora_te_")}
    write_lora(tmp_path / "te.safetensors", LoraFile(text, {}), precision="float")
    done = merge_into_model(base, [(tmp_path / "te.safetensors", 1.0)], tmp_path / "out", events=_Quiet())
    assert done["changed_weights"] == len(text)
