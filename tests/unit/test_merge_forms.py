"""Merging into folders and single files, in all four ways, against float64; what is kept, and what is refused."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tests import forked
from tests.conftest import ROOT
from tests.unit.single_file_samples import (
    Weights,
    sample,
    save_folder,
    sd1_weights,
    sd2_weights,
    sdxl_weights,
    write_file,
)
from trainer.errors import UserError
from trainer.lora.file import LoraFile, LoraLayer, write_lora
from trainer.lora.keys import kohya_key
from trainer.lora.layers import Layer, LohaLayer
from trainer.lora.merge import MERGE_KEY
from trainer.lora.merge_model import merge_into_model
from trainer.lora.strengths import parse_strength
from trainer.lora.weight_file import open_weights
from trainer.single_file.kinds import prediction

KINDS = ("sd1", "sd2", "sdxl")
FORMS = {"folder": "merged", "file": "merged.safetensors"}
RATIO = 0.7
UNREAD = "resblocks.23."
"""The last layer of OpenCLIP, which SD 2 does not read: files have it, folders do not."""
HALF_STEP = 2.0**-11
"""Half the distance between neighbouring fp16 numbers, relative to them."""


class Watcher:
    """Keeps events; may end the work at a share of it, as Ctrl+C does."""

    def __init__(self, end_at: float = 2.0) -> None:
        self.events: list[dict[str, Any]] = []
        self._end_at = end_at

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        self.events.append({"type": kind, **fields})
        if kind == "progress" and fields["what"] == "merging" and fields["done"] >= self._end_at * fields["total"]:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Sample:
    """A model as folder and as file, a LoRA on every layer of it, and what the two make by float64."""

    kind: str
    folder: Path
    file: Path
    lora: Path
    layers: dict[str, Layer]
    weights: Weights
    expected: Weights


def modules_of(pipeline: Any) -> dict[str, dict[str, nn.Module]]:
    parts = [name for name in ("unet", "text_encoder", "text_encoder_2") if getattr(pipeline, name, None) is not None]
    return {
        part: {
            path: module
            for path, module in getattr(pipeline, part).named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        }
        for part in parts
    }


def random_layer(shape: tuple[int, ...], random: torch.Generator, rank: int = 3) -> LoraLayer:
    kernel = (1, 1) if len(shape) == 4 else ()
    down = torch.randn(rank, *shape[1:], generator=random) * 0.1
    return LoraLayer(down, torch.randn(shape[0], rank, *kernel, generator=random) * 0.1, 2.0)


def original_names(pipeline: Any, kind: str) -> Weights:
    return {"sd1": sd1_weights, "sd2": sd2_weights, "sdxl": sdxl_weights}[kind](pipeline)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    root = tmp_path_factory.mktemp("merge")
    found = {}
    for kind in KINDS:
        pipeline, weights = sample(kind)
        random, layers = torch.Generator().manual_seed(4), {}
        exact = SimpleNamespace(vae=pipeline.vae)
        for part, modules in modules_of(pipeline).items():
            setattr(exact, part, copy.deepcopy(getattr(pipeline, part)).double())
            for path, module in modules_of(exact)[part].items():
                layer = random_layer(tuple(module.weight.shape), random)
                layers[kohya_key(part, path, sdxl=kind == "sdxl")] = layer
                up, down = layer.up.double().flatten(1), layer.down.double().flatten(1)
                change = RATIO * 2.0 / 3 * (up @ down).reshape(module.weight.shape)
                module.weight.data += change
                assert module.weight.dtype == torch.float64 and modules[path].weight.dtype == torch.float16
        folder = root / kind
        folder.mkdir()
        write_lora(folder / "lora.safetensors", LoraFile(layers, {}), precision="float")
        expected = original_names(exact, kind)
        expected |= {name: value for name, value in weights.items() if UNREAD in name}
        found[kind] = Sample(
            kind,
            save_folder(pipeline, folder / "model"),
            write_file(folder / "model.safetensors", weights, {"modelspec.title": "mine", "sshs_model_hash": "x"}),
            folder / "lora.safetensors",
            layers,
            weights,
            expected,
        )
    return found


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def merge(base: Path, lora: Path, out: Path, strength: Any = RATIO, **options: Any) -> dict[str, Any]:
    return merge_into_model(base, [(lora, strength)], out, events=options.pop("events", Watcher()), **options)


def as_original(out: Path, kind: str) -> Weights:
    """What was written, under the names of a single file; the tests' own naming turns a folder's around."""
    if out.is_file():
        return load_file(out)
    pipeline, _ = sample(kind)
    read = SimpleNamespace()
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(pipeline, part, None) is not None:
            module = copy.deepcopy(getattr(pipeline, part))
            (file,) = (out / part).glob("*.safetensors")
            tensors = load_file(file)
            names = {name.removeprefix("text_model."): name for name in module.state_dict()}
            module.load_state_dict({names[name.removeprefix("text_model.")]: value for name, value in tensors.items()})
            setattr(read, part, module)
    return {name: value for name, value in original_names(read, kind).items() if UNREAD not in name}


def assert_rounded(found: Tensor, exact: Tensor, name: str) -> None:
    """Equal to the exact number rounded to fp16, but for what summing in float32 may shift across a tie."""
    error = (found.double() - exact).abs()
    float32 = exact.abs().max() * 2.0**-22
    assert bool((error <= exact.abs() * HALF_STEP + 2.0**-25 + float32).all()), name
    assert float((found != exact.to(found.dtype)).double().mean()) < 1e-3, name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("base", ["folder", "file"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_equals_float64(kind: str, base: str, form: str, samples: dict[str, Sample], tmp_path: Path) -> None:
    given = samples[kind]
    out = tmp_path / FORMS[form]
    answer = merge(getattr(given, base), given.lora, out)
    assert answer["changed_weights"] == len(given.layers) == answer["layers"][str(given.lora)]
    found = as_original(out, kind)
    changed = 0
    for name, value in found.items():
        if torch.equal(given.expected[name], given.weights[name].to(given.expected[name].dtype)):
            assert torch.equal(value, given.weights[name]), name
            continue
        changed += 1
        assert value.dtype == torch.float16
        assert_rounded(value, given.expected[name], name)
    assert changed > 100
    missing = given.weights.keys() - found.keys()
    extras = ("model_ema", "alphas_cumprod", "position_ids", "logit_scale", "attn_mask", UNREAD, "projection")
    assert not missing if base == form == "file" else all(any(word in name for word in extras) for name in missing)


def test_a_file_keeps_its_order_its_untouched_bytes_and_its_metadata(
    samples: dict[str, Sample], tmp_path: Path
) -> None:
    given = samples["sd1"]
    extra = {**given.weights, "strange.fp8": torch.ones(3, 5).to(torch.float8_e4m3fn), "counts": torch.arange(9)}
    base = write_file(tmp_path / "base.safetensors", extra, {"modelspec.title": "mine", "sshs_model_hash": "stale"})
    out = tmp_path / "out.safetensors"
    watcher = Watcher()
    merge(base, given.lora, out, parse_strength("0,unet.mid_block:1"), events=watcher)
    with open_weights(base) as before, open_weights(out) as after:
        assert list(before.table.items()) == list(after.table.items())
        changed = [
            name
            for name in before.table
            if b"".join(map(bytes, before.raw(name))) != b"".join(map(bytes, after.raw(name)))
        ]
    middle = {name for name in given.layers if "mid_block" in name}
    assert len(changed) == len(middle) and all(".middle_block." in name for name in changed)
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.title"] == "mine" and "sshs_model_hash" not in metadata
    record = json.loads(metadata[MERGE_KEY])
    assert record["files"] == ["lora.safetensors"] and record["base"] == "base.safetensors"
    assert (
        record["ratios"] == ["0,unet.mid_block:1"]
        and metadata["modelspec.merged_from"] == "base.safetensors, lora.safetensors"
    )
    assert [event["code"] for event in watcher.events if event["type"] == "warning"] == ["merge.ema"]


def test_save_precision_is_for_the_parts_and_nothing_else(samples: dict[str, Sample], tmp_path: Path) -> None:
    given = samples["sd1"]
    merge(given.file, given.lora, tmp_path / "f.safetensors", save_precision="float")
    merge(given.file, given.lora, tmp_path / "b.safetensors", save_precision="bf16", precision="bf16")
    single, brief = load_file(tmp_path / "f.safetensors"), load_file(tmp_path / "b.safetensors")
    for name, exact in given.expected.items():
        if name in ("alphas_cumprod", "model_ema.decay") or not exact.is_floating_point():
            assert torch.equal(single[name], given.weights[name]) and brief[name].dtype == given.weights[name].dtype
            continue
        assert single[name].dtype == torch.float32 and brief[name].dtype == torch.bfloat16
        torch.testing.assert_close(single[name].double(), exact.double(), rtol=2e-6, atol=2e-7)
        torch.testing.assert_close(brief[name].double(), exact.double(), rtol=3e-2, atol=3e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_back_returns_the_base(kind: str, samples: dict[str, Sample], tmp_path: Path) -> None:
    given = samples[kind]
    merge(given.file, given.lora, tmp_path / "there.safetensors", 1.3, save_precision="float")
    merge(tmp_path / "there.safetensors", given.lora, tmp_path / "back.safetensors", -1.3, save_precision="fp16")
    back = load_file(tmp_path / "back.safetensors")
    for name, weight in given.weights.items():
        if weight.dtype == torch.float16:
            torch.testing.assert_close(back[name], weight, rtol=1e-3, atol=1e-7)


def test_merging_back_in_fp16_is_one_rounding_away(samples: dict[str, Sample], tmp_path: Path) -> None:
    given = samples["sd1"]
    merge(given.file, given.lora, tmp_path / "there.safetensors", 1.3)
    merge(tmp_path / "there.safetensors", given.lora, tmp_path / "back.safetensors", -1.3)
    there, back = load_file(tmp_path / "there.safetensors"), load_file(tmp_path / "back.safetensors")
    for name, weight in given.weights.items():
        if weight.dtype == torch.float16:
            step = torch.maximum(there[name].double().abs(), weight.double().abs()) * 2 * HALF_STEP + 2.0**-24
            assert bool(((back[name].double() - weight.double()).abs() <= step).all()), name


def test_dora_loha_and_lokr_come_out_alike_in_file_and_folder(samples: dict[str, Sample], tmp_path: Path) -> None:
    """Also in the third of a fused projection and in the weight that is stored the other way round."""
    given, random = samples["sdxl"], torch.Generator().manual_seed(9)
    query = "lora_te2_text_model_encoder_layers_1_self_attn_q_proj"
    value, projection = query.replace("q_proj", "v_proj"), "lora_te2_text_projection"
    layers: dict[str, Layer] = {}
    for name in (query, projection):
        plain = given.layers[name]
        assert isinstance(plain, LoraLayer)
        magnitude = torch.rand(1, plain.down.shape[1], generator=random) + 0.5
        layers[name] = LoraLayer(plain.down, plain.up, 2.0, magnitude)
    sides = [torch.randn(*shape, generator=random) * 0.3 for shape in ((128, 2), (2, 128), (128, 2), (2, 128))]
    layers[value] = LohaLayer(*sides, alpha=1.0)
    write_lora(tmp_path / "mixed.safetensors", LoraFile(layers, {}), precision="float")
    merge(given.file, tmp_path / "mixed.safetensors", tmp_path / "file.safetensors", 0.5)
    merge(given.folder, tmp_path / "mixed.safetensors", tmp_path / "folder", 0.5)
    file, folder = load_file(tmp_path / "file.safetensors"), as_original(tmp_path / "folder", "sdxl")
    different = [name for name, tensor in folder.items() if not torch.equal(tensor, given.weights[name])]
    assert len(different) == 2 and all(torch.equal(file[name], tensor) for name, tensor in folder.items())
    fused = "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"
    before, after = given.weights[fused].double(), file[fused]
    left, right, third, fourth = (side.double() for side in sides)
    expected = before[256:] + 0.5 * 0.5 * (left @ right) * (third @ fourth)
    assert_rounded(after[256:], expected, fused)
    assert torch.equal(after[128:256], given.weights[fused][128:256])
    dora = layers[query]
    assert isinstance(dora, LoraLayer) and dora.magnitude is not None
    direction = before[:128] + 2.0 / 3 * dora.up.double() @ dora.down.double()
    whole = dora.magnitude.double() * direction / direction.norm(dim=0, keepdim=True)
    assert_rounded(after[:128], before[:128] + 0.5 * (whole - before[:128]), fused)


def test_a_ckpt_is_merged_as_its_safetensors_twin(samples: dict[str, Sample], tmp_path: Path) -> None:
    given = samples["sd2"]
    base = write_file(tmp_path / "base.ckpt", given.weights)
    merge(base, given.lora, tmp_path / "a.safetensors")
    merge(given.file, given.lora, tmp_path / "b.safetensors")
    one, other = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_v_prediction_is_told_by_the_file_that_a_folder_becomes(samples: dict[str, Sample], tmp_path: Path) -> None:
    given = samples["sdxl"]
    base = tmp_path / "base"
    shutil.copytree(given.folder, base, copy_function=os.link)
    config = base / "scheduler" / "scheduler_config.json"
    values = {**json.loads(config.read_text()), "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    config.unlink()
    config.write_text(json.dumps(values))
    merge(base, given.lora, tmp_path / "out.safetensors")
    with open_weights(tmp_path / "out.safetensors") as file:
        said = prediction({name: stored.shape for name, stored in file.table.items()}, file.metadata)
    assert said["prediction_type"] == "v_prediction" and said["rescale_betas_zero_snr"]
    merge(given.folder, given.lora, tmp_path / "plain.safetensors")
    with open_weights(tmp_path / "plain.safetensors") as file:
        assert prediction({name: stored.shape for name, stored in file.table.items()}, file.metadata) == {
            "prediction_type": "epsilon"
        }


def problem(base: Path, lora: Path, out: Path, **options: Any) -> str:
    """The code of what is refused; nothing may be written by it."""
    before = sorted(out.parent.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        merge(base, lora, out, **options)
    assert sorted(out.parent.parent.rglob("*")) == before
    return caught.value.problems[0].code


def test_families_are_not_mixed_and_a_part_is_merged_only_when_allowed(
    samples: dict[str, Sample], tmp_path: Path
) -> None:
    one, two, xl = (samples[kind] for kind in KINDS)
    out = tmp_path / "x" / "out.safetensors"
    for base, lora in ((one.file, xl.lora), (xl.file, one.lora), (one.file, two.lora), (two.folder, one.lora)):
        assert problem(base, lora, out, allow_partial=True) == "merge.no_fit"
    layers = {**one.layers, "lora_unet_not_there": next(iter(one.layers.values()))}
    lora = tmp_path / "more.safetensors"
    write_lora(lora, LoraFile(layers, {}), precision="float")
    assert problem(one.file, lora, out) == "merge.no_fit"
    watcher = Watcher()
    answer = merge(one.file, lora, out, allow_partial=True, events=watcher)
    assert answer["left_out"] == {str(lora): ["lora_unet_not_there"]}
    assert any(event.get("code") == "merge.left_out" for event in watcher.events)
    merge(one.file, one.lora, tmp_path / "whole.safetensors")
    whole = load_file(tmp_path / "whole.safetensors")
    assert all(torch.equal(value, whole[name]) for name, value in load_file(out).items())


def test_nothing_is_overwritten_unless_allowed_and_never_an_input(
    samples: dict[str, Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = samples["sd1"]
    out = tmp_path / "x" / "out.safetensors"
    merge(given.file, given.lora, out, 0.1)
    first = out.read_bytes()
    assert problem(given.file, given.lora, out) == "merge.exists"
    merge(given.file, given.lora, out, overwrite=True)
    assert out.read_bytes() != first and not list(out.parent.glob(".*"))
    folder = tmp_path / "x" / "model"
    merge(given.folder, given.lora, folder, 0.1)
    (folder / "mine.txt").touch()
    merge(given.folder, given.lora, folder, overwrite=True)
    assert not (folder / "mine.txt").exists() and (folder / "model_index.json").is_file()
    (folder / "model_index.json").unlink()
    assert problem(given.folder, given.lora, folder, overwrite=True) == "merge.exists"
    for wrong in (given.folder, given.folder / "unet", given.file.parent, given.lora, tmp_path / "a.ckpt"):
        assert problem(given.folder, given.lora, wrong, overwrite=True) in ("merge.out", "merge.exists")
    assert problem(given.file, given.lora, given.file, overwrite=True) == "merge.out"
    assert problem(given.file, given.lora, tmp_path / "x" / "new.safetensors", strength=float("nan")) == "merge.ratio"
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert problem(given.file, given.lora, tmp_path / "x" / "new.safetensors") == "out.disk_full"


def test_a_dry_run_tells_and_writes_nothing(samples: dict[str, Sample], tmp_path: Path) -> None:
    given = samples["sdxl"]
    out = tmp_path / "deep" / "out.safetensors"
    told = merge(given.file, given.lora, out, dry_run=True)
    assert told["dry_run"] and not out.parent.exists()
    done = merge(given.file, given.lora, out)
    assert told == {**done, "dry_run": True} and out.stat().st_size == told["size_bytes"]


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupted_merge_leaves_nothing(form: str, samples: dict[str, Sample], tmp_path: Path) -> None:
    given = samples["sd1"]
    watcher = Watcher(end_at=0.5)
    with pytest.raises(KeyboardInterrupt):
        merge(given.folder, given.lora, tmp_path / "deep" / FORMS[form], events=watcher)
    assert not list(tmp_path.iterdir())
    (tmp_path / "deep").mkdir()
    merge(given.folder, given.lora, tmp_path / "deep" / FORMS[form], 0.1)
    kept = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "deep").rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        merge(given.folder, given.lora, tmp_path / "deep" / FORMS[form], overwrite=True, events=Watcher(end_at=0.9))
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "deep").rglob("*")) == kept
    shares = [event["done"] / event["total"] for event in watcher.events if event["type"] == "progress"]
    assert shares == sorted(shares) and len(shares) > 5
    assert any(event.get("seconds_left") is not None for event in watcher.events)


def large_model(path: Path, *, tensors: int, side: int) -> tuple[Path, Path]:
    """A file of zeros under an SD 1 file's names, and a LoRA on each of its square weights."""
    names = [f"input_blocks.{number}.1.transformer_blocks.0.attn1.to_q.weight" for number in (1, 2, 4, 5, 7, 8)]
    names += [f"output_blocks.{number}.1.transformer_blocks.0.attn1.to_q.weight" for number in range(3, 12)]
    weights = {f"model.diffusion_model.{name}": torch.zeros(side, side).half() for name in names[:tensors]}
    weights |= {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3).half(),
        "model.diffusion_model.input_blocks.3.0.op.weight": torch.zeros(4, 4, 3, 3).half(),
        "first_stage_model.decoder.conv_in.weight": torch.zeros(4, 4, 3, 3),
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": torch.zeros(2 * side, side).half(),
    }
    write_file(path / "large.safetensors", weights)
    random = torch.Generator().manual_seed(0)
    layers = {}
    for name in names[:tensors]:
        words = name.split(".")
        number = int(words[1])
        if words[0] == "input_blocks":
            key = f"down_blocks_{(number - 1) // 3}_attentions_{(number - 1) % 3}"
        else:
            key = f"up_blocks_{number // 3}_attentions_{number % 3}"
        layers[f"lora_unet_{key}_transformer_blocks_0_attn1_to_q"] = random_layer((side, side), random)
    write_lora(path / "lora.safetensors", LoraFile(layers, {}), precision="fp16")
    return path / "large.safetensors", path / "lora.safetensors"


PEAK = """
import sys
from pathlib import Path
from trainer.__main__ import main
import trainer.lora.merge_model

def kib(name):  # getrusage would count the process that started this one
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])

before = kib("VmRSS")
code = main(sys.argv[1:])
print(code, (kib("VmHWM") - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux counts it")
def test_memory_stays_small_next_to_the_model(tmp_path: Path) -> None:
    base, lora = large_model(tmp_path, tensors=12, side=2560)
    size = base.stat().st_size >> 20
    assert size > 170
    command = ["merge", "--base", str(base), "--lora", f"{lora}=1", "--out", str(tmp_path / "out.safetensors")]
    ran = subprocess.run([sys.executable, "-c", PEAK, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    code, grown = map(int, ran.stdout.split()[-2:])
    assert code == 0, ran.stderr
    assert grown < size / 3, f"{grown} MiB more for a model of {size} MiB"


def test_a_killed_merge_leaves_no_result_and_the_next_one_clears_up(tmp_path: Path) -> None:
    base, lora = large_model(tmp_path, tensors=6, side=2048)
    out = tmp_path / "out.safetensors"
    command = ["merge", "--base", str(base), "--lora", f"{lora}=1", "--out", str(out)]
    for number, exit_code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 3)):
        process = forked.start(*command)
        while not [path for path in tmp_path.glob(".out*.tmp") if f"-{process.pid}-" in path.name]:
            assert process.poll() is None, "it ended before it could be disturbed"
            time.sleep(0.002)
        process.send_signal(number)
        assert process.wait(timeout=60) == exit_code
        assert not out.exists()
        assert len(list(tmp_path.glob(".out*"))) == (1 if number == signal.SIGKILL else 0)
    merge(base, lora, out)
    assert out.is_file() and not list(tmp_path.glob(".out*"))
