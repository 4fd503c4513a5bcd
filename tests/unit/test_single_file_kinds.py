"""What is not a base model is called by its name; broken files and pickles with code are told from each other."""

from __future__ import annotations

import collections
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.unit.single_file_samples import Weights, write_file
from trainer.errors import Problem, UserError
from trainer.single_file.convert import model_folder_of
from trainer.single_file.header import read_header

UNET = "model.diffusion_model."


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def problem(path: Path) -> Problem:
    with pytest.raises(UserError) as caught:
        model_folder_of(path)
    found = caught.value.problems[0]
    assert found.field == "model.base" and found.hint and path.name in found.message
    return found


def weights(**shapes: tuple[int, ...]) -> Weights:
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def unet(channels: int = 4, **others: tuple[int, ...]) -> Weights:
    return weights(**{f"{UNET}input_blocks.0.0.weight": (32, channels, 3, 3)}, **others)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (weights(**{"lora_unet_mid_block_x.lora_down.weight": (4, 8)}), "is a LoRA"),
        (weights(**{"unet.mid_block.x.lora_A.weight": (4, 8)}), "is a LoRA"),
        (weights(**{"lora_te_text_model_x.hada_w1_a": (4, 8)}), "is a LoRA"),
        (weights(emb_params=(2, 768)), "is an embedding"),
        (weights(clip_l=(2, 768), clip_g=(2, 1280)), "is an embedding"),
        (weights(**{"control_model.input_blocks.0.0.weight": (32, 4, 3, 3)}), "is a ControlNet"),
        (weights(**{f"{UNET}double_blocks.0.img_attn.qkv.weight": (8, 8)}), "is a FLUX model"),
        (weights(**{"double_blocks.0.img_attn.qkv.weight": (8, 8)}), "is a FLUX model"),
        (weights(**{f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (8, 8)}), "is a Stable Diffusion 3 model"),
        (unet(**{"conditioner.embedders.0.model.ln_final.weight": (8,)}), "is the SDXL refiner"),
        (unet(edm_mean=(4,)), "is a Playground"),
        (weights(**{"encoder.conv_in.weight": (8, 3, 3, 3), "decoder.conv_in.weight": (8, 4, 3, 3)}), "is only a VAE"),
        (weights(**{"text_model.encoder.layers.0.mlp.fc1.weight": (8, 8)}), "is only a text encoder"),
        (weights(**{"down_blocks.0.resnets.0.time_emb_proj.weight": (8, 8)}), "is only a UNet"),
        (weights(**{"input_blocks.0.0.weight": (32, 4, 3, 3)}), "is only a UNet"),
        (unet(9), "is an inpainting model (9 input channels"),
        (unet(8), "is an edit (InstructPix2Pix) model"),
        (unet(5), "is a depth-to-image model"),
        (unet(16), "is a special model (16"),
        (unet(), "holds a UNet but no text encoder"),
        (unet(**{"cond_stage_model.transformer.text_model.x": (8, 8)}), "holds no vae"),
        (weights(**{f"{UNET}x": (1,)}), "a denoiser of an unknown kind"),
        (weights(something=(1,), other=(1,)), "is no Stable Diffusion checkpoint; its 2 weights are named other"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path: Path, given: Weights, said: str) -> None:
    found = problem(write_file(tmp_path / "file.safetensors", given))
    assert found.code == "model.wrong_kind" and said in found.message


def test_a_pickled_lora_is_called_by_its_name_too(tmp_path: Path) -> None:
    path = write_file(tmp_path / "file.ckpt", weights(**{"lora_unet_x.lora_up.weight": (4, 8)}))
    assert "is a LoRA" in problem(path).message


def header(table: Any) -> bytes:
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is too short for a .safetensors file"),
        (b"short", "is too short for a .safetensors file"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"PK\x03\x04" + b"\0" * 60, "is a zip or pickle file"),
        (struct.pack("<Q", 1 << 40) + b"{}", "announces a header of 1,099,511,627,776 bytes"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "has a header that is not JSON"),
        (
            header({"x": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}) + b"1" * 8,
            "does not describe its ten",
        ),
        (struct.pack("<Q", 1000) + b"{}", "is cut off within its header"),
        (struct.pack("<Q", 8) + b"{broken}", "has a header that is not JSON"),
        (header(["no", "table"]), "does not describe tensors"),
        (header({"x": {"dtype": "F32", "shape": [2]}}), "does not describe tensors"),
        (
            header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}) + b"1234",
            "4 of 8 bytes of weights are",
        ),
        (header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}) + b"1" * 8, "does not describe its ten"),
    ],
)
def test_broken_files_say_how(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    found = problem(path)
    assert found.code == "model.broken" and said in found.message


def test_the_header_alone_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"x": torch.zeros(2, 3, dtype=torch.float16)}, path, {"title": "T"})
    found = read_header(path)
    assert found.shapes == {"x": (2, 3)} and found.formats == {"x": "F16"} and found.metadata == {"title": "T"}


class Harmful:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._marker,))


def test_pickles_with_code_are_not_opened(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": {}, "callback": Harmful(marker)}, tmp_path / "model.ckpt")
    found = problem(tmp_path / "model.ckpt")
    assert found.code == "model.broken" and "code" in found.message and ".safetensors" in found.hint
    assert not marker.exists()


def test_broken_pickles_say_how(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"no pickle at all")
    assert problem(path).code == "model.broken"
    torch.save(torch.zeros(3), path)
    assert "holds no table of weights" in problem(path).message
    torch.save(collections.OrderedDict(x=torch.zeros(2)), path, _use_new_zipfile_serialization=False)
    assert "is not a readable .ckpt file" in problem(path).message
    torch.save({"x": torch.zeros(20_000)}, path)
    path.write_bytes(path.read_bytes()[:40_000])
    assert problem(path).code == "model.broken"


def test_other_endings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"x")
    assert problem(tmp_path / "model.pt").code == "model.single_file"
