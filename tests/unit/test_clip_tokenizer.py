"""CLIP's tokenizer built from the list of merges: ids that are known from OpenAI's own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from trainer.single_file.tokenizer import MERGES_FILE, VOCABULARY_SIZE, clip_merges, clip_vocabulary, write_tokenizer

BEGIN, END = 49406, 49407


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, pad_token="<|endoftext|>", max_tokens=77)
    return CLIPTokenizer.from_pretrained(folder)


def test_the_list_is_openais() -> None:
    """The digest that OpenAI's and OpenCLIP's repositories, and copies of them, all give."""
    digest = hashlib.sha256(MERGES_FILE.read_bytes()).hexdigest()
    assert digest == "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    assert digest in (MERGES_FILE.parent / "LICENSE").read_text()


def test_the_vocabulary_has_its_places() -> None:
    vocabulary = clip_vocabulary(clip_merges())
    assert len(vocabulary) == VOCABULARY_SIZE == 49408
    assert vocabulary["!"] == 0 and vocabulary["!</w>"] == 256
    assert vocabulary["in"] == 512  # the first merge
    assert vocabulary["<|startoftext|>"] == BEGIN and vocabulary["<|endoftext|>"] == END


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("A  Photo\nof a CAT", [320, 1125, 539, 320, 2368]),
        ("a photo of a dog", [320, 1125, 539, 320, 1929]),
        ("hello world!", [3306, 1002, 256]),
        ("a diagram", [320, 22697]),
    ],
)
def test_known_ids(tokenizer: CLIPTokenizer, text: str, ids: list[int]) -> None:
    assert tokenizer(text).input_ids == [BEGIN, *ids, END]


def test_any_text_can_be_spelled(tokenizer: CLIPTokenizer) -> None:
    text = "naïve 東京 🦊 x1y2"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert END not in ids
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(("pad", "number"), [("<|endoftext|>", END), ("!", 0)])
def test_short_captions_are_padded_as_the_model_was_trained(tmp_path: Path, pad: str, number: int) -> None:
    write_tokenizer(tmp_path, pad_token=pad, max_tokens=77)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("a cat", padding="max_length").input_ids
    assert ids == [BEGIN, 320, 2368, END, *[number] * 73]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 77
