"""Reading and writing LoRA files."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, linear, lora
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from trainer.errors import UserError
from trainer.lora.file import LoraFile, LoraLayer, network_metadata, read_lora, write_lora

ROOT = Path(__file__).resolve().parents[2]
DOTTED = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def _code(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_lora(path)
    assert path.name in str(caught.value) or str(path) in str(caught.value)
    return caught.value.problems[0].code


def _pair(name: str, down: str, up: str, rank: int = 4) -> dict[str, torch.Tensor]:
    layer = linear(rank, 1.0, seed=3)
    return {f"{name}.{down}.weight": layer.down, f"{name}.{up}.weight": layer.up}


def test_linear_and_convolution_deltas_equal_their_definition() -> None:
    sample = lora(rank=4, alpha=2.0)
    layer = sample.layers[QUERY]
    expected = 2.0 / 4 * layer.up.double() @ layer.down.double()
    torch.testing.assert_close(layer.delta(torch.float64), expected)
    conv = sample.layers[CONV]
    picture = torch.randn(1, 6, 9, 9, dtype=torch.float64)
    through_both = functional.conv2d(functional.conv2d(picture, conv.down.double()), conv.up.double()) * 0.5
    torch.testing.assert_close(functional.conv2d(picture, conv.delta(torch.float64)), through_both)


def test_written_file_reads_back_the_same(tmp_path: Path) -> None:
    sample = lora(rank=3, alpha=0.3, ss_output_name="test")
    write_lora(tmp_path / "a.safetensors", sample, precision="float")
    again = read_lora(tmp_path / "a.safetensors")
    assert list(again.layers) == sorted(sample.layers)
    assert again.unknown == []
    assert again.metadata["ss_output_name"] == "test"
    for module, layer in sample.layers.items():
        assert torch.equal(again.layers[module].down, layer.down)
        assert torch.equal(again.layers[module].up, layer.up)
        assert again.layers[module].alpha == pytest.approx(0.3, rel=1e-7)


def test_safetensors_library_reads_what_we_write(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", lora(ss_x='ü\n"{'), precision="fp16")
    tensors = load_file(tmp_path / "a.safetensors")
    assert tensors[f"{CONV}.lora_down.weight"].dtype == torch.float16
    assert tensors[f"{CONV}.lora_down.weight"].shape == (4, 6, 3, 3)
    assert tensors[f"{CONV}.alpha"].shape == ()
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["ss_x"] == 'ü\n"{'


def test_same_lora_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests/unit'); from lora_samples import lora;"
        "from trainer.lora.file import write_lora;"
        "write_lora(Path(sys.argv[1]), lora(**{c * 3: c for c in 'zyxwvutsrq'}), precision='bf16')"
    )
    hashes = set()
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=True)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    write_lora(tmp_path / "2.safetensors", lora(**{c * 3: c for c in "qrstuvwxyz"}), precision="bf16")
    hashes.add(hashlib.sha256((tmp_path / "2.safetensors").read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_sshs_hashes_equal_their_definition(tmp_path: Path) -> None:
    """Computed here from a file whose metadata is cut down to ss_*: what the hashes are defined on."""
    big = LoraFile({QUERY: linear(64, 64.0, seed=1, inputs=4000, outputs=4000)}, {"ss_a": "1", "ss_b": "2"})
    path = tmp_path / "a.safetensors"
    write_lora(
        path,
        LoraFile(big.layers, {**big.metadata, "modelspec.title": "x", "sshs_model_hash": "old"}),
        precision="float",
    )
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:start])
    metadata = table["__metadata__"]
    table["__metadata__"] = {"ss_a": "1", "ss_b": "2"}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    bare = len(text).to_bytes(8, "little") + text + data[start:]
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[start:]).hexdigest()
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(bare[0x100000:0x110000]).hexdigest()[:8]
    assert len(bare) > 0x110000


def test_fp16_overflow_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    layer = linear(2, 2.0, seed=0)
    sample = LoraFile({QUERY: LoraLayer(layer.down * 1e6, layer.up, 2.0)}, {})
    with pytest.raises(UserError, match="too large for fp16"):
        write_lora(path, sample, precision="fp16")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_lora(path, sample, precision="bf16")


@pytest.mark.parametrize(
    ("down", "up"),
    [("lora_A", "lora_B"), ("lora.down", "lora.up"), ("lora_A.default", "lora_B.default")],
)
def test_diffusers_layouts_without_alpha_have_alpha_equal_rank(tmp_path: Path, down: str, up: str) -> None:
    save_file(_pair(DOTTED, down, up), tmp_path / "a.safetensors")
    layer = read_lora(tmp_path / "a.safetensors").layers[QUERY]
    assert (layer.rank, layer.alpha) == (4, 4.0)


@pytest.mark.parametrize(
    ("settings", "alpha"),
    [
        ({"unet.lora_alpha": 2, "unet.r": 4}, 2.0),
        ({"unet.lora_alpha": 2, "unet.alpha_pattern": {"attn1.to_q": 7}}, 7.0),
        ({"unet.lora_alpha": 2, "unet.alpha_pattern": {r".*attn\d.to_q": 7}}, 7.0),
        ({"unet.lora_alpha": 2, "unet.alpha_pattern": {"to_k": 7}}, 2.0),
        ({"unet.lora_alpha": 2, "unet.alpha_pattern": {"(a+)+b": 7, "[": 8}}, 2.0),
        ({"unet.lora_alpha": 2, "unet.use_rslora": True}, 2.0 * math.sqrt(4)),
        ({"text_encoder.lora_alpha": 2}, 4.0),
        ({"lora_alpha": 3}, 3.0),
    ],
)
def test_alpha_of_diffusers_files_comes_from_their_metadata(
    tmp_path: Path, settings: dict[str, object], alpha: float
) -> None:
    metadata = {"lora_adapter_metadata": json.dumps(settings)}
    save_file(_pair(DOTTED, "lora_A", "lora_B"), tmp_path / "a.safetensors", metadata=metadata)
    assert read_lora(tmp_path / "a.safetensors").layers[QUERY].alpha == pytest.approx(alpha)


def test_peft_folder_has_its_alpha_beside_the_file(tmp_path: Path) -> None:
    name = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file(_pair(name, "lora_A", "lora_B"), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 1}')
    assert read_lora(tmp_path / "adapter_model.safetensors").layers[QUERY].alpha == 1.0


def test_te1_of_an_sd1_file_is_its_text_encoder(tmp_path: Path) -> None:
    save_file(_pair(TEXT.replace("lora_te_", "lora_te1_"), "lora_down", "lora_up"), tmp_path / "a.safetensors")
    assert list(read_lora(tmp_path / "a.safetensors").layers) == [TEXT]


def test_three_part_convolutions_are_composed_exactly(tmp_path: Path) -> None:
    down, mid, up = torch.randn(3, 6, 1, 1), torch.randn(3, 3, 3, 3), torch.randn(8, 3, 1, 1)
    names = {f"{CONV}.lora_down.weight": down, f"{CONV}.lora_mid.weight": mid, f"{CONV}.lora_up.weight": up}
    save_file(names, tmp_path / "a.safetensors")
    picture = torch.randn(1, 6, 7, 7)
    expected = functional.conv2d(functional.conv2d(functional.conv2d(picture, down), mid), up)
    found = functional.conv2d(picture, read_lora(tmp_path / "a.safetensors").layers[CONV].delta())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_unknown_names_are_listed(tmp_path: Path) -> None:
    tensors = {**_pair(QUERY, "lora_down", "lora_up"), "transformer.x.lora_A.weight": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert read_lora(tmp_path / "a.safetensors").unknown == ["transformer.x.lora_A.weight"]


@pytest.mark.parametrize(
    ("name", "kind"), [("oft_blocks", "OFT"), ("a1.weight", "GLoRA"), ("diff", "full-difference or other")]
)
def test_other_kinds_are_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    save_file({f"{QUERY}.{name}": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=f"a.safetensors is a {kind} file"):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {f"{QUERY}.lora_up.weight": None},
        {f"{QUERY}.lora_down.weight": None},
        {f"{QUERY}.lora_up.weight": torch.ones(10, 5)},
        {f"{QUERY}.lora_up.weight": torch.ones(10)},
        {f"{QUERY}.lora_up.weight": torch.ones(10, 4, 3, 3)},
        {f"{QUERY}.lora_down.weight": torch.ones(0, 12), f"{QUERY}.lora_up.weight": torch.ones(10, 0)},
        {f"{QUERY}.lora_down.weight": torch.full((4, 12), math.nan)},
        {f"{QUERY}.lora_up.weight": torch.full((10, 4), math.inf)},
        {f"{QUERY}.lora_up.weight": torch.ones(10, 4, dtype=torch.int32)},
        {f"{QUERY}.alpha": torch.ones(2)},
        {f"{QUERY}.alpha": torch.tensor(math.nan)},
        {f"{QUERY}.lora_mid.weight": torch.ones(4, 4, 3, 3)},
        {f"{TEXT}.alpha": torch.tensor(1.0)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, torch.Tensor | None]) -> None:
    tensors = {**_pair(QUERY, "lora_down", "lora_up"), **change}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "a.safetensors")
    assert _code(tmp_path / "a.safetensors") == "lora.broken"


@pytest.mark.parametrize("settings", ["{", "[]", '{"unet.lora_alpha": "x"}', '{"unet.lora_alpha": NaN}', "[" * 100_000])
def test_broken_adapter_settings_are_refused(tmp_path: Path, settings: str) -> None:
    metadata = {"lora_adapter_metadata": settings}
    save_file(_pair(DOTTED, "lora_A", "lora_B"), tmp_path / "a.safetensors", metadata=metadata)
    assert _code(tmp_path / "a.safetensors") == "lora.broken"


def test_missing_files_folders_and_other_models(tmp_path: Path) -> None:
    assert _code(tmp_path / "none.safetensors") == "lora.missing"
    assert _code(tmp_path) == "lora.missing"
    save_file({"conv_in.weight": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    assert _code(tmp_path / "a.safetensors") == "lora.none"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"\xff" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        (10).to_bytes(8, "little") + b"not json!!",
        (2).to_bytes(8, "little") + b"{}",
        (64).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,9999999999]}}',
        b"PK\x03\x04" + b"\0" * 100,
    ],
)
def test_hostile_files_give_a_message(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    assert _code(path) in ("lora.broken", "lora.none")


def test_mutated_files_never_crash_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_lora(path, lora(), precision="fp16")
    good = path.read_bytes()
    header_end = 8 + int.from_bytes(good[:8], "little")
    random = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(int(torch.randint(1, 6, (1,), generator=random))):
            position = int(torch.randint(0, header_end, (1,), generator=random))
            data[position] = int(torch.randint(0, 256, (1,), generator=random))
        path.write_bytes(bytes(data[: int(torch.randint(len(data) // 2, len(data) + 1, (1,), generator=random))]))
        try:
            read_lora(path)
        except UserError:
            refused += 1
    assert refused > 250


def test_network_metadata() -> None:
    sample = lora(rank=8, alpha=4.0)
    metadata = network_metadata(sample.layers, "sd_v1")
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["ss_v2"] == "False"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("8", "4")
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "8", "conv_alpha": "4"}
    mixed = {**sample.layers, TEXT: linear(2, 1.0, seed=0)}
    assert network_metadata(mixed, None)["ss_network_dim"] == "Dynamic"
    assert "ss_base_model_version" not in network_metadata(mixed, None)
