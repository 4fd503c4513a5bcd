"""Which of several versions of a part's weights is read: checked against file lists of well-known repositories."""

from __future__ import annotations

import pytest

from trainer.weight_files import choose_weights

# what stable-diffusion-v1-5/unet holds
V15_UNET = [
    "config.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.non_ema.bin",
    "diffusion_pytorch_model.non_ema.safetensors",
    "diffusion_pytorch_model.safetensors",
]


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        ([], "diffusion_pytorch_model.safetensors"),
        ([".safetensors"], "diffusion_pytorch_model.fp16.safetensors"),
        ([".safetensors", ".fp16.safetensors"], "diffusion_pytorch_model.non_ema.safetensors"),
        ([".safetensors", ".fp16.safetensors", ".non_ema.safetensors"], "diffusion_pytorch_model.bin"),
        ([".safetensors", ".fp16.safetensors", ".non_ema.safetensors", ".bin"], "diffusion_pytorch_model.fp16.bin"),
    ],
)
def test_safetensors_then_the_full_version_then_half_precision(left_out: list[str], expected: str) -> None:
    names = [name for name in V15_UNET if name.removeprefix("diffusion_pytorch_model") not in left_out]
    chosen = choose_weights(names)
    assert chosen is not None and chosen.files == (expected,) and not chosen.missing
    words = expected.split(".")
    assert chosen.variant == (words[1] if len(words) == 3 else None)
    assert chosen.safetensors == expected.endswith("safetensors")


def test_text_encoders_have_names_of_their_own() -> None:
    names = ["pytorch_model.bin", "model.onnx", "flax_model.msgpack", "tf_model.h5", "pytorch_model.fp16.bin"]
    chosen = choose_weights(names)
    assert chosen is not None and chosen.files == ("pytorch_model.bin",)
    chosen = choose_weights([*names, "model.fp16.safetensors"])
    assert chosen is not None and chosen.files == ("model.fp16.safetensors",)


@pytest.mark.parametrize(
    ("pieces", "index", "variant"),
    [
        ("diffusion_pytorch_model-{:05}-of-00003.safetensors", "diffusion_pytorch_model.safetensors.index.json", None),
        ("model-{:05}-of-00003.safetensors", "model.safetensors.index.json", None),
        ("model.fp16-{:05}-of-00003.safetensors", "model.safetensors.index.fp16.json", "fp16"),  # diffusers today
        ("model-{:05}-of-00003.fp16.safetensors", "model.safetensors.index.fp16.json", "fp16"),  # and before 0.29
        ("pytorch_model-{:05}-of-00003.bin", "pytorch_model.bin.index.json", None),
    ],
)
def test_pieces_are_taken_together_and_none_may_be_missing(pieces: str, index: str, variant: str | None) -> None:
    names = [pieces.format(number) for number in (1, 2, 3)]
    chosen = choose_weights([*names, index])
    assert chosen is not None and chosen.names == tuple(names) and chosen.index == index
    assert chosen.variant == variant and not chosen.missing
    for missing in (names[1], names[2], index):
        chosen = choose_weights([name for name in [*names, index] if name != missing])
        assert chosen is not None and chosen.missing == (missing,)


def test_a_complete_version_comes_before_a_better_one_with_a_hole() -> None:
    pieces = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    chosen = choose_weights([*pieces, "model.fp16.safetensors"])
    assert chosen is not None and chosen.variant == "fp16" and not chosen.missing
    chosen = choose_weights([*pieces, "model-00002-of-00002.safetensors", "model.safetensors"])
    assert chosen is not None and chosen.files == ("model.safetensors",)


def test_other_files_are_no_weights() -> None:
    strangers = ["config.json", "training_args.bin", "optimizer.bin", "v1-5.safetensors", "lora.safetensors"]
    assert choose_weights(strangers) is None
    assert choose_weights([]) is None
