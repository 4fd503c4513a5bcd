"""Mode ``kohya`` gives the numbers that sd-scripts' own scripts give, to the bit.

The sums below were taken from what ``networks/merge_lora.py`` (SD 1) and ``networks/sdxl_merge_lora.py`` of
https://github.com/kohya-ss/sd-scripts, v0.10.1, wrote for the files that ``inputs`` makes, with their default options
(``--models ... --ratios ...``, precision float). To repeat: ``python tests/unit/test_lora_merge_peer.py FOLDER`` makes
the files and prints ratios; run the script on them; the same command with ``--sum FILE`` prints the sum of the result.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.__main__ import main

RATIOS = [0.55, -0.8, 1.3]
SD1_LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
SD1_CONV = "lora_unet_mid_block_resnets_0_conv1"
SDXL_LINEAR = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
SDXL_CONV = "lora_unet_middle_block_0_in_layers_2"
LAYERS = {
    "sd1": (SD1_LINEAR, SD1_CONV, "lora_te_text_model_encoder_layers_0_mlp_fc1"),
    "sdxl": (SDXL_LINEAR, SDXL_CONV, "lora_te2_text_model_encoder_layers_0_mlp_fc1"),
}
SUMS = {
    "sd1": "53b2157dc4b0eac3ff8dd070149c12b1c5e1754d3394f6cce61361c2f22a81d6",
    "sdxl": "c938a6ad49520ca34146e7b9db70abffc6ca88e497e3d023e41c3370eda13779",
}


def numbers(*shape: int, seed: int) -> Tensor:
    """Numbers between -1 and 1 of 16 bits each, by integer arithmetic: the same wherever they are made."""
    count = int(torch.Size(shape).numel())
    places = torch.arange(count, dtype=torch.int64) * 7919 + seed * 104729 + 12345
    mixed = (places * places * 31 + places * 1103515245) % 2147483647 % 65536
    return (mixed.float() / 32768 - 1).reshape(shape)


def inputs(family: str) -> list[dict[str, Tensor]]:
    """Three LoRAs of rank 4 with different alphas, or none; a layer that only two have; one in fp16."""
    linear, conv, text = LAYERS[family]
    files: list[dict[str, Tensor]] = []
    for number, alphas in enumerate(((2.0, 1.0, None), (8.0, 3.0, 4.0), (None, 0.3, 1.0))):
        tensors: dict[str, Tensor] = {}
        for place, (module, alpha) in enumerate(zip((linear, conv, text), alphas, strict=True)):
            if module == text and number == 0:
                continue
            seed, is_conv = 10 * number + place, module == conv
            tensors[f"{module}.lora_down.weight"] = numbers(4, 6, *([3, 3] if is_conv else []), seed=seed)
            tensors[f"{module}.lora_up.weight"] = numbers(10, 4, *([1, 1] if is_conv else []), seed=seed + 5)
            if alpha is not None:
                tensors[f"{module}.alpha"] = torch.tensor(alpha)
        files.append({name: tensor.half() for name, tensor in tensors.items()} if number == 1 else tensors)
    return files


def write_inputs(folder: Path, family: str) -> list[Path]:
    """The files, as both programs read them."""
    version = {"sd1": "sd_v1", "sdxl": "sdxl_base_v1-0"}[family]
    paths = [folder / f"{family}-{number}.safetensors" for number in range(len(RATIOS))]
    for path, tensors in zip(paths, inputs(family), strict=True):
        save_file(tensors, path, metadata={"ss_base_model_version": version, "ss_v2": "False"})
    return paths


def checksum(path: Path) -> str:
    """Of names, formats, shapes and numbers of a file's tensors, whatever its metadata and order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_kohya_mode_equals_sd_scripts_to_the_bit(family: str, tmp_path: Path) -> None:
    paths, out = write_inputs(tmp_path, family), tmp_path / "out.safetensors"
    pairs = [f"{path}={ratio}" for path, ratio in zip(paths, RATIOS, strict=True)]
    assert main(["merge", "--mode", "kohya", "--lora", *pairs, "--out", str(out)]) == 0
    assert checksum(out) == SUMS[family]


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_other_modes_do_not(family: str, tmp_path: Path) -> None:
    """The sum is not just that of the inputs' names."""
    paths, out = write_inputs(tmp_path, family), tmp_path / "out.safetensors"
    pairs = [f"{path}={ratio + 1e-6}" for path, ratio in zip(paths, RATIOS, strict=True)]
    assert main(["merge", "--mode", "kohya", "--lora", *pairs, "--out", str(out)]) == 0
    assert load_file(out).keys() == {name for each in inputs(family) for name in each} | {
        f"{module}.alpha" for module in LAYERS[family]
    }
    assert checksum(out) != SUMS[family]


if __name__ == "__main__":
    if sys.argv[1] == "--sum":
        sys.stdout.write(checksum(Path(sys.argv[2])) + "\n")
    else:
        for each in LAYERS:
            sys.stdout.write(f"{each}: {write_inputs(Path(sys.argv[1]), each)} {RATIOS}\n")
