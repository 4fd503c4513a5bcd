"""Tokens are counted as transformers' own CLIP tokenizer counts them, whose offsets say what is cut off."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from trainer.data.token_count import TokenCounter, clip_counter, model_counter
from trainer.demo import MODEL_DIR
from trainer.single_file.tokenizer import write_tokenizer

TEXTS = [
    "",
    "   ",
    "a photo of a cat",
    "1girl, solo, long hair, (masterpiece:1.2), best_quality",
    "It's   we'll they've I'd 2024-01-01 :-) ... <|endoftext|> <|startoftext|>",
    "GRÖSSE, cafe\u0301, naïve 東京タワー 🦊🦊 \u200b \u00a0x",
    "İstanbul ǅ ﬁ ½ ⅷ ©®",
    "tab\tand\r\nlines",
]


def odd_text(seed: int) -> str:
    rng = random.Random(seed)
    alphabet = "abcXYZ ,.'’_-0123éß東🦊\u0301\t()[]<|>"
    return "".join(rng.choice(alphabet) for _ in range(200))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_tokenizer(folder, pad_token="<|endoftext|>", max_tokens=77)
    return folder


def counters(clip: Path) -> list[tuple[TokenCounter, CLIPTokenizer]]:
    demo = MODEL_DIR / "tokenizer"
    published = CLIPTokenizer.from_pretrained(clip)
    return [
        (clip_counter(), published),
        (model_counter(clip, "a folder"), published),
        (model_counter(demo, "the demo"), CLIPTokenizer.from_pretrained(demo)),
    ]


def test_counts_are_those_of_transformers(clip: Path) -> None:
    for counter, tokenizer in counters(clip):
        for text in [*TEXTS, *map(odd_text, range(30))]:
            expected = tokenizer(text, add_special_tokens=False, verbose=False)
            assert counter.count(text, ()).tokens == len(expected.input_ids), text


def test_cuts_are_where_the_first_token_too_many_begins(clip: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(clip)
    for text in ["ein a photo,  東京 of a cat 🦊 and a dog", *TEXTS, *map(odd_text, range(5))]:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False).offset_mapping
        limits = tuple(range(len(offsets) + 2))
        assert clip_counter().count(text, limits).cuts == (*(start for start, _ in offsets), None, None)
    assert clip_counter().count("a photo of a cat", (2, 4, 5)).cuts == (8, 13, None)


def test_other_files_of_a_tokenizer(clip: Path, tmp_path: Path) -> None:
    """tokenizer.json, as newer model folders have it; and what is none at all."""
    CLIPTokenizer.from_pretrained(clip).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()
    assert model_counter(tmp_path / "saved", "saved").count("a photo of a cat", ()).tokens == 5
    with pytest.raises(ValueError, match="cannot be read"):
        model_counter(tmp_path, "nothing")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        model_counter(tmp_path, "damaged")
