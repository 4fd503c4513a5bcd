"""The shelf holds what was used last, and never more than it may; a cache with one makes the same tensors as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.config import CaptionSettings
from trainer.config_io import parse_config
from trainer.data.cache import TextCache
from trainer.data.shelf import Shelf
from trainer.families import load_family
from trainer.families.base import Family
from trainer.runs.events import Events

ROW = 4 * 10 + 4 * 2


def row(value: float) -> dict[str, Tensor]:
    return {"hidden_states": torch.full((1, 10), float(value)), "pooled": torch.full((1, 2), float(value))}


def test_the_one_used_longest_ago_makes_way() -> None:
    shelf = Shelf(3 * ROW)
    for name in "abc":
        shelf.put(name, row(ord(name)))
    assert shelf.take("a") is not None
    shelf.put("d", row(0))
    assert [name for name in "abcd" if shelf.take(name) is not None] == ["a", "c", "d"]
    assert len(shelf) == 3 and shelf.bytes == 3 * ROW


def test_what_is_taken_is_what_was_put() -> None:
    shelf, kept = Shelf(2 * ROW), row(5)
    shelf.put("a", kept)
    shelf.put("a", row(6))
    assert shelf.take("a") is kept and len(shelf) == 1 and shelf.bytes == ROW


def test_a_slice_counts_with_all_that_it_keeps_alive() -> None:
    shelf = Shelf(100)
    shelf.put("a", {"x": torch.zeros(50)[:1]})
    assert len(shelf) == 0
    shelf.put("b", {"x": torch.zeros(25)})
    assert shelf.bytes == 100


def test_a_shelf_without_room_keeps_nothing() -> None:
    for most in (0, ROW - 1):
        shelf = Shelf(most)
        shelf.put("a", row(1))
        assert shelf.take("a") is None and shelf.bytes == 0 and len(shelf) == 0


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family(parse_config({}).model, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def calls(family: Family, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the text encoder is given, call by call."""
    given: list[list[str]] = []
    encode = family.encode_captions

    def watched(captions: list[str], **options: Any) -> Any:
        assert not torch.is_autocast_enabled("cpu"), "what is kept would hang on where it was made"
        given.append(captions)
        return encode(captions, **options)

    monkeypatch.setattr(family, "encode_captions", watched)
    return given


def cache_of(family: Family) -> TextCache:
    return TextCache(family, CaptionSettings(), clip_skip=1, folder=None, events=Events())


def test_expected_captions_are_the_tensors_that_filling_makes(family: Family, calls: list[list[str]]) -> None:
    """One by one, whatever the batch and whatever autocast the step is in: the last bits hang on both."""
    filled, expecting = cache_of(family), cache_of(family)
    filled.fill(["a", "b", "c"], lambda: None)
    calls.clear()
    expecting.expect(["a", "b", "c"], 10**9)
    with torch.autocast("cpu", torch.bfloat16):
        found = expecting.encode(["b", "new", "a", "b", "other"]).hidden_states
        expected = filled.encode(["b", "new", "a", "b", "other"]).hidden_states
    assert calls == [["b"], ["a"], ["new", "other"], ["new", "other"]]
    assert torch.equal(found, expected)


def test_what_no_longer_fits_is_made_again(family: Family, calls: list[list[str]]) -> None:
    cache = cache_of(family)
    row = cache.encode(["a"]).hidden_states.nbytes
    cache.expect("abc", 2 * row)
    calls.clear()
    for batch in (["a", "b"], ["a"], ["c"], ["a"], ["b"]):
        cache.encode(batch)
    assert calls == [["a"], ["b"], ["c"], ["b"]]


def test_filled_captions_come_back_alone(family: Family, calls: list[list[str]], tmp_path: Path) -> None:
    """A cache that expects a text finds it on disk, where a run with more room has put it."""
    caches = [TextCache(family, CaptionSettings(), clip_skip=1, folder=tmp_path, events=Events()) for _ in range(2)]
    caches[0].fill(["a"], lambda: None)
    calls.clear()
    caches[1].expect(["a", "b"], 0)
    assert torch.equal(caches[1].encode(["a"]).hidden_states, caches[0].encode(["a"]).hidden_states) and calls == []
    before = sorted(tmp_path.rglob("*.safetensors"))
    caches[1].encode(["b"])
    assert sorted(tmp_path.rglob("*.safetensors")) == before, "and adds nothing to it"
