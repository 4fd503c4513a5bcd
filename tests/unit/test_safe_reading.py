"""Hostile and broken .safetensors files get a message: nothing crashes, fills the memory or is half used."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_samples import CONV, QUERY, linear, lora
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.__main__ import main
from trainer.errors import UserError
from trainer.lora.file import read_lora, write_lora
from trainer.lora.inspect import inspect_lora
from trainer.single_file.header import read_header

DOWN, UP = f"{QUERY}.lora_down.weight", f"{QUERY}.lora_up.weight"


def _file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def _said(path: Path) -> str:
    """What the readers say. All of them must refuse."""
    with pytest.raises(UserError):
        read_header(path)
    with pytest.raises(UserError) as caught:
        read_lora(path)
    assert caught.value.problems[0].code == "lora.broken"
    return str(caught.value)


def _entry(shape: list[Any], begin: Any, end: Any, dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


ONE = {"x": _entry([1], 0, 4)}
HEADERS: dict[str, tuple[object, bytes, str]] = {
    "overlapping": ({"x": _entry([2], 0, 8), "y": _entry([2], 4, 12)}, b"1" * 12, "does not describe its tensors"),
    "the same bytes twice": ({"x": _entry([2], 0, 8), "y": _entry([2], 0, 8)}, b"1" * 8, "does not describe"),
    "a hole": ({"x": _entry([2], 0, 8), "y": _entry([2], 12, 20)}, b"1" * 20, "does not describe its tensors"),
    "bytes behind": (ONE, b"1" * 10, "6 bytes that belong to none"),
    "too short": ({"x": _entry([9], 0, 36)}, b"1" * 30, "is cut off: 6 of 36 bytes"),
    "another size than the shape": ({"x": _entry([3], 0, 8)}, b"1" * 8, "does not describe its tensors"),
    "sides below 0": ({"x": _entry([-2, -1], 0, 8)}, b"1" * 8, "does not describe its tensors"),
    "sides that are no number": ({"x": _entry(["1"], 0, 4)}, b"1234", "does not describe tensors"),
    "sides that are true": ({"x": _entry([True], 0, 4)}, b"1234", "does not describe tensors"),
    "endless sides": (b'{"x":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}', b"1234", "does not describe"),
    "huge sides": ({"x": _entry([2**62, 2**62], 0, 4)}, b"1234", "does not describe its tensors"),
    "a number of 100,000 digits": (b'{"x":{"shape":[' + b"9" * 100_000 + b"]}}", b"", "not JSON"),
    "one offset": ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, b"1234", "does not describe tensors"),
    "NaN": (b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', b"1234", "not JSON"),
    "a name twice": (b'{"x":' + json.dumps(ONE["x"]).encode() + b',"x":' + json.dumps(ONE["x"]).encode() + b"}",
                     b"1234", "names x twice"),
    "a key twice": (b'{"x":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}', b"1234", "dtype twice"),
    "half a character": (b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234", "no text"),
    "metadata that is no table": ({**ONE, "__metadata__": ["a"]}, b"1234", "metadata"),
    "metadata that is no text": ({**ONE, "__metadata__": {"a": 1}}, b"1234", "metadata"),
    "no text at all": (b"\xff\xfe{\x00}\x00", b"", "not JSON"),
    "brackets without end": (b"[" * 200_000, b"", "not JSON"),
    "a list": ([1, 2], b"", "does not describe tensors"),
    "a name without end": ({"x" * 100_000: ONE["x"]}, b"1234", "too long"),
    "tensors without end": ({str(number): _entry([0], 0, 0) for number in range(100_001)}, b"", "100,001 tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_no_table_of_the_file_are_refused(name: str, tmp_path: Path) -> None:
    header, data, said = HEADERS[name]
    assert said in _said(_file(tmp_path / "a.safetensors", header, data))


def test_a_giant_header_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 3_000_000_000))
        file.truncate(3_000_000_100)  # a sparse file
    tracemalloc.start()
    assert "3,000,000,000 bytes" in _said(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("loop", "dangling", "folder", "none", "x" * 300):
        with pytest.raises(UserError) as caught:
            read_lora(tmp_path / f"{name}.safetensors")
        assert caught.value.problems[0].code == "lora.missing"
    write_lora(tmp_path / "real.safetensors", lora(), precision="fp16")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "real.safetensors")
    assert read_lora(tmp_path / "link.safetensors").layers


def _with(tmp_path: Path, tensors: dict[str, Tensor]) -> Path:
    layer = linear(4, 2.0, seed=0)
    save_file({DOWN: layer.down, UP: layer.up, **tensors}, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def _bare(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path)
    return path


SMALL = torch.ones(1)
LARGE: dict[str, dict[str, Tensor]] = {
    "lora": {f"{CONV}.lora_down.weight": SMALL.expand(1, 60_000), f"{CONV}.lora_up.weight": SMALL.expand(60_000, 1)},
    "rank": {f"{CONV}.lora_down.weight": SMALL.expand(40_000, 2), f"{CONV}.lora_up.weight": SMALL.expand(2, 40_000)},
    "mid": {
        f"{CONV}.lora_down.weight": SMALL.expand(1, 60_000, 1, 1),
        f"{CONV}.lora_mid.weight": SMALL.expand(1, 1, 100, 100),
        f"{CONV}.lora_up.weight": SMALL.expand(2, 1, 1, 1),
    },
    "loha": {
        f"{CONV}.hada_w1_a": SMALL.expand(60_000, 1), f"{CONV}.hada_w1_b": SMALL.expand(1, 60_000),
        f"{CONV}.hada_w2_a": SMALL.expand(60_000, 1), f"{CONV}.hada_w2_b": SMALL.expand(1, 60_000),
    },
    "lokr": {f"{CONV}.lokr_w1": SMALL.expand(1000, 1000), f"{CONV}.lokr_w2": SMALL.expand(1000, 1000)},
    "lokr factors": {
        f"{CONV}.lokr_w1": SMALL.expand(1, 1),
        f"{CONV}.lokr_w2_a": SMALL.expand(60_000, 1), f"{CONV}.lokr_w2_b": SMALL.expand(1, 60_000),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_small_files_of_giant_layers_are_refused_before_they_fill_the_memory(name: str, tmp_path: Path) -> None:
    """Gigabytes when their change is computed, and some already when their shape is asked for."""
    path = _bare(tmp_path / "a.safetensors", {key: value.contiguous() for key, value in LARGE[name].items()})
    begun = time.process_time()
    with pytest.raises(UserError, match="no model has such a layer"):
        read_lora(path)
    (what,) = inspect_lora(path)["broken_layers"].values()  # it goes on to the other layers
    assert "no model has such a layer" in what
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "change",
    [
        {f"{CONV}.lokr_w1": torch.ones(2, 2), f"{CONV}.lokr_w2": torch.ones(0, 3)},
        {f"{CONV}.lokr_w1": torch.ones(2, 2), f"{CONV}.lokr_w2": torch.tensor(1.0)},
        {f"{CONV}.hada_w1_a": torch.tensor(1.0), f"{CONV}.hada_w1_b": torch.ones(1, 2),
         f"{CONV}.hada_w2_a": torch.ones(2, 1), f"{CONV}.hada_w2_b": torch.ones(1, 2)},
        {f"{QUERY}.dora_scale": torch.ones(0, 12)},
        {f"{QUERY}.dora_scale": torch.tensor(1.0)},
        {f"{QUERY}.dora_scale": torch.ones(1, 12, 1)},
        {f"{QUERY}.alpha": torch.ones(0)},
        {f"{QUERY}.alpha": torch.tensor([[1.0, 2.0]])},
        {f"{QUERY}.alpha": torch.tensor(float("inf"))},
        {DOWN: torch.ones(4, 12, 1)},
        {UP: torch.ones(10, 4, dtype=torch.complex64)},
        {UP: torch.ones(10, 4, dtype=torch.bool)},
    ],
    ids=str,
)  # fmt: skip
def test_tensors_of_odd_shapes_and_formats_are_refused(change: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_lora(_with(tmp_path, change))
    assert caught.value.problems[0].code == "lora.broken"


@pytest.mark.parametrize(
    "patterns",
    [
        {"(a+)+$": 1}, {"a*a*a*a*a*b": 1}, {"[": 1}, {"a{99999999999}": 1}, {"\\": 1}, {"*": 1},
        {f"{number}.x": 1 for number in range(6000)},
    ],
    ids=lambda patterns: next(iter(patterns)),
)  # fmt: skip
def test_hostile_patterns_of_peft_settings_neither_hang_nor_crash(patterns: dict[str, int], tmp_path: Path) -> None:
    name = f"unet.{'a' * 400}.to_q"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 3), f"{name}.lora_B.weight": torch.ones(3, 2)}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2, "unet.alpha_pattern": patterns})}
    save_file(tensors, tmp_path / "a.safetensors", metadata=metadata)
    begun = time.process_time()
    try:
        read_lora(tmp_path / "a.safetensors")
    except UserError as error:
        assert error.problems[0].code == "lora.broken"
    assert time.process_time() - begun < 5


def test_numbers_too_large_to_be_added_are_told_and_nothing_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    factors = [torch.full(shape, 1e38) for shape in ((10, 2), (2, 12), (10, 2), (2, 12))]
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    path = _bare(tmp_path / "a.safetensors", {f"{QUERY}.{n}": t.clone() for n, t in zip(names, factors, strict=True)})
    for mode in (["exact"], ["svd", "--rank", "2"], ["ties", "--rank", "2"], ["dare", "--rank", "2"]):
        out = tmp_path / "out.safetensors"
        assert main(["merge", "--lora", f"{path}=1", "--out", str(out), "--mode", *mode, "--json"]) == 2
        code = json.loads(capfd.readouterr().out)["error"][0]["code"]
        assert code in ("merge.overflow", "lora.overflow")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors"]


def test_a_half_broken_lora_is_not_half_merged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_lora(tmp_path / "a.safetensors", lora(), precision="float")
    tensors = load_file(tmp_path / "a.safetensors")
    del tensors[f"{CONV}.lora_up.weight"]
    save_file(tensors, tmp_path / "b.safetensors")
    pairs = [f"{tmp_path}/a.safetensors=1", f"{tmp_path}/b.safetensors=1"]
    assert main(["merge", "--lora", *pairs, "--out", str(tmp_path / "out.safetensors"), "--json"]) == 2
    assert f"{CONV} has no up part" in json.loads(capfd.readouterr().out)["error"][0]["message"]
    assert not (tmp_path / "out.safetensors").exists()
