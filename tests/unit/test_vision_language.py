"""Models that chat about pictures: each architecture's real path, against tokens and answers worked out by hand."""

from __future__ import annotations

import math
import shutil
import string
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.utils import is_torchvision_available

from tests import tiny_captioners
from trainer.captioners import CAPTIONERS
from trainer.captioners.kinds.joycaption import JoyCaptionOptions, prompt_of
from trainer.captioners.vision_language import ChatCaptioner
from trainer.errors import UserError

KINDS = {
    "llava": "joycaption",
    "qwen2_5_vl": "qwen_vl",
    "qwen3_vl": "qwen_vl",
    "gemma3": "gemma",
    "gemma4": "gemma",
    "idefics3": "smolvlm",
}
READS_GEMMA4 = Version(transformers.__version__) >= Version("5.23") or is_torchvision_available()
TESTED = [name for name in KINDS if name != "gemma4" or READS_GEMMA4]
"""The transformers of Python 3.10 read Gemma 4 with torchvision only."""
TOKENS = 6
PATHS = [Path("a.png"), Path("b.png"), Path("c.png")]


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


PICTURES = [picture(60, 30), picture(40, 90), picture(50, 50)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model of an architecture, built once."""

    @cache
    def build(architecture: str) -> Path:
        folder = tmp_path_factory.mktemp(architecture)
        tiny_captioners.ARCHITECTURES[architecture](folder)
        return folder

    return build


def loaded(kind: str, folder: Path, **options: Any) -> ChatCaptioner:
    values = {"model": str(folder), "max_new_tokens": TOKENS, "strip_preamble": False, **options}
    captioner = CAPTIONERS[kind].load(CAPTIONERS[kind].parse(values))
    assert isinstance(captioner, ChatCaptioner)
    return captioner


def conversation(architecture: str, image: Image.Image, prompt: str) -> str:
    """What the model must read, written out by hand: the picture's mark stands there once for each of its tokens."""
    user, end = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    if architecture == "llava":
        return f"<|bos|>{user}{'<image>' * 4}{prompt}{end}"
    if architecture == "gemma3":
        soft = "<image_soft_token>" * 4
        return f"<|bos|>{user}\n\n<start_of_image>{soft}<end_of_image>\n\n{prompt}{end}"
    if architecture == "gemma4":  # as many squares of 2 x 2 patches of 8 pixels as 70 allow, in the picture's shape
        zoom = math.sqrt(70 / (image.width * image.height))
        soft = "<|image|>" * (math.floor(zoom * image.width) * math.floor(zoom * image.height))
        return f"<|bos|>{user}<|image>{soft}<image|>{prompt}{end}"
    if architecture == "idefics3":
        fake = "<fake_token_around_image>"
        return f"<|bos|>{user}{fake}<global-img>{'<image>' * 4}{fake}{prompt}{end}"
    patch_px = {"qwen2_5_vl": 14, "qwen3_vl": 16}[architecture]
    squares = [round(side / (2 * patch_px)) for side in (image.height, image.width)]  # of 2 x 2 patches
    marks = "<|image_pad|>" * (squares[0] * squares[1])
    return f"{user}<|vision_start|>{marks}<|vision_end|>{prompt}{end}"


def greedy(folder: Path, inputs: dict[str, Any]) -> str:
    """The likeliest letters one after the other, each found by reading everything again from the beginning."""
    network = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    letters = torch.tensor([tokenizer.convert_tokens_to_ids(letter) for letter in string.ascii_lowercase])
    inputs, text = dict(inputs), ""
    for _ in range(TOKENS):
        with torch.inference_mode():
            scores = network(**inputs, use_cache=False).logits[0, -1, letters]
        best = letters[scores.argmax()].view(1, 1)
        text += tokenizer.decode(best[0])
        for name, added in (
            ("input_ids", best),
            ("attention_mask", 1),
            ("token_type_ids", 0),
            ("mm_token_type_ids", 0),
        ):
            if name in inputs:
                end = added if name == "input_ids" else torch.full((1, 1), added)
                inputs[name] = torch.cat([inputs[name], end], dim=1)
    return text


@pytest.mark.parametrize("architecture", TESTED)
def test_tokens_and_answers(architecture: str, model: Callable[[str], Path]) -> None:
    """In a batch and alone, whatever the sizes of the pictures: the tokens, and what the model makes of them."""
    folder = model(architecture)
    captioner = loaded(KINDS[architecture], folder, prompt="What is it?", system_prompt="")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    together = captioner.inputs(PICTURES)
    expected = []
    for row, image in enumerate(PICTURES):
        written = conversation(architecture, image, "What is it?")
        ids = tokenizer(written, add_special_tokens=False).input_ids
        alone = captioner.inputs([image])
        assert alone["input_ids"][0].tolist() == ids
        assert together["input_ids"][row, -len(ids) :].tolist() == ids
        assert together["attention_mask"][row].sum() == len(ids)
        expected.append(greedy(folder, alone))
    assert captioner.captions(PICTURES, PATHS) == expected
    assert [captioner.captions([image], [PATHS[0]])[0] for image in PICTURES] == expected


@pytest.mark.parametrize("architecture", TESTED)
def test_the_picture_counts(architecture: str, model: Callable[[str], Path]) -> None:
    folder = model(architecture)
    captioner = loaded(KINDS[architecture], folder, prompt="?")
    network = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        scores = [network(**captioner.inputs([image])).logits[0, -1] for image in (picture(50, 50), picture(51, 50))]
    assert (scores[0] - scores[1]).abs().max() > 1e-3


def test_large_pictures_are_made_smaller(model: Callable[[str], Path]) -> None:
    """64 x 128 pixels in marks of 32 x 32."""
    captioner = loaded("qwen_vl", model("qwen3_vl"), prompt="?", longest_side_px=128)
    grid = captioner.inputs([picture(200, 400), picture(60, 90)])["image_grid_thw"]
    assert grid.tolist() == [[1, 8, 4], [1, 6, 4]]


def test_llava_with_a_template_of_parts(model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model("llava"), tmp_path / "model"))
    chat = tiny_captioners.template("<image>")
    (folder / "chat_template.jinja").write_text(chat, encoding="utf-8")
    captioner = loaded("joycaption", folder, prompt="What?", system_prompt="")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.decode(captioner.inputs([PICTURES[0]])["input_ids"][0])
    assert text == f"<|bos|><|im_start|>user\n{'<image>' * 4}What?<|im_end|>\n<|im_start|>assistant\n"


def test_system_prompts_come_first(model: Callable[[str], Path]) -> None:
    captioner = loaded("qwen_vl", model("qwen3_vl"), prompt="What?", system_prompt=" Be brief. ")
    tokenizer = AutoTokenizer.from_pretrained(model("qwen3_vl"))
    text = tokenizer.decode(captioner.inputs([PICTURES[0]])["input_ids"][0])
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|vision_start|>")


def test_joycaption_asks_in_its_own_words(model: Callable[[str], Path]) -> None:
    captioner = loaded("joycaption", model("llava"), length="short", caption_type="MidJourney", name="ohwx")
    tokenizer = AutoTokenizer.from_pretrained(model("llava"))
    text = tokenizer.decode(captioner.inputs([PICTURES[0]])["input_ids"][0])
    assert "system\nYou are a helpful assistant and help users" in text
    assert "Write a short MidJourney prompt for this image. If there is a person/character in the image" in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "Write a detailed description for this image."),
        ({"length": "very long"}, "Write a very long detailed description for this image."),
        ({"prompt": " Mine. ", "name": "ohwx"}, " Mine. "),
        ({"caption_type": "Booru-like tag list"}, "Write a list of Booru-like tags for this image."),
    ],
)
def test_prompts_of_joycaption(options: dict[str, Any], expected: str) -> None:
    assert prompt_of(JoyCaptionOptions(**options)) == expected


def test_prompts_of_joycaption_about_the_length_alone() -> None:
    for caption_type in ("Danbooru tag list", "Art critic"):
        assert "length}" not in (prompt := prompt_of(JoyCaptionOptions(caption_type=caption_type)))
        assert not prompt.endswith(("it .", "any length.", "Keep it any."))
        assert "short" in prompt_of(JoyCaptionOptions(caption_type=caption_type, length="short"))


def test_sampling_depends_on_the_seed_and_the_picture_only(model: Callable[[str], Path]) -> None:
    folder = model("qwen3_vl")
    freely = {"prompt": "?", "temperature": 2.0, "top_p": 1.0}
    first = loaded("qwen_vl", folder, **freely, seed=1)
    before = torch.random.get_rng_state()
    once = [first.captions([image], [path])[0] for image, path in zip(PICTURES, PATHS, strict=True)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.captions([PICTURES[0]], [PATHS[0]])[0] != once[0], "a second answer for the same picture"
    again = loaded("qwen_vl", folder, **freely, seed=1)
    assert [again.captions([PICTURES[row]], [PATHS[row]])[0] for row in (2, 1, 0)] == once[::-1]
    other = loaded("qwen_vl", folder, **freely, seed=2)
    assert other.captions([PICTURES[0]], [PATHS[0]])[0] != once[0]
    assert loaded("qwen_vl", folder, prompt="?").captions([PICTURES[0]], [PATHS[0]])[0] != once[0]


def test_batches_become_smaller_where_memory_runs_out(
    model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = loaded("qwen_vl", model("qwen3_vl"), prompt="?")
    expected = captioner.captions(PICTURES, PATHS)
    generate, sizes = captioner._network.generate, []

    def one_at_most(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**inputs)

    monkeypatch.setattr(captioner._network, "generate", one_at_most)
    assert captioner.captions(PICTURES, PATHS) == expected
    assert sizes == [3, 1, 1, 1]


@pytest.mark.parametrize("prompt", ["", "  "])
def test_a_prompt_is_needed(prompt: str) -> None:
    with pytest.raises(UserError) as caught:
        CAPTIONERS["qwen_vl"].load(CAPTIONERS["qwen_vl"].parse({"model": "/no", "prompt": prompt}))
    assert (caught.value.problems[0].code, caught.value.problems[0].field) == ("caption.no_prompt", "prompt")


def test_a_model_for_another_captioner_is_refused(model: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match="is a qwen3_vl model; this captioner needs gemma3 or gemma4"):
        loaded("gemma", model("qwen3_vl"))
