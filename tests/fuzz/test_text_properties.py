"""What is true of every caption, every event file and every picture's settings."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.fuzz.properties import ANYTHING
from trainer.config import CaptionSettings
from trainer.data.caption_files import decode, plain_newlines, read_caption, write_caption
from trainer.data.captions import caption_forms, process_caption
from trainer.errors import UserError
from trainer.infotext import read_infotext, write_infotext
from trainer.pictures import OUR_CHUNK, LoraUse, PictureSettings, read_settings, save_png
from trainer.prompt_lines import parse_lines
from trainer.runs.events import EventLog, EventTail, read_events
from trainer.sampler_names import SAMPLER_NAMES, schedules_of

Events = list[dict[str, Any]]
CAPTIONS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=80)
"""Anything that can be typed: a byte order mark and zeros are how files tell their encoding."""
TAGS = st.lists(st.text("ab c é😀{}(:", min_size=1, max_size=6).map(str.strip).filter(bool), max_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@given(CAPTIONS)
def test_a_caption_is_the_same_after_being_written_and_read(folder: Path, text: str) -> None:
    path = folder / "a.txt"
    path.unlink(missing_ok=True)
    write_caption(path, text)
    assert read_caption(path) == plain_newlines(text)


@given(st.binary(max_size=60), CAPTIONS)
def test_any_file_can_be_given_another_caption_and_keeps_its_line_ends(data: bytes, text: str) -> None:
    file = decode(data)
    written = file.with_text(text).to_bytes()
    assert decode(written).text == plain_newlines(text)
    if "\n" in text:
        assert file.newline.encode() in written


@given(TAGS, st.integers(0, 4), st.randoms(use_true_random=False))
def test_shuffling_keeps_every_tag_and_the_first_ones_in_place(
    tags: list[str], kept: int, chance: random.Random
) -> None:
    caption = ", ".join(tags)
    settings = CaptionSettings(shuffle=True, keep_tokens=kept)
    found = [tag for tag in process_caption(caption, settings, chance).split(", ") if tag]
    assert Counter(found) == Counter(tags)
    assert found[:kept] == tags[:kept]


@given(TAGS, st.integers(0, 4), st.floats(0, 1), st.integers())
def test_dropping_tags_keeps_order_and_the_first_ones(tags: list[str], kept: int, share: float, seed: int) -> None:
    settings = CaptionSettings(tag_dropout=share, keep_tokens=kept)
    text = process_caption(", ".join(tags), settings, random.Random(seed))
    found = [tag for tag in text.split(", ") if tag]
    rest = iter(tags)
    assert all(tag in rest for tag in found), "in the order of before"
    assert found[:kept] == tags[:kept]
    assert process_caption(", ".join(tags), settings, random.Random(seed)) == text


@given(CAPTIONS, st.integers(), st.booleans(), st.sampled_from(["", "p", "a|b"]))
def test_what_a_caption_becomes_is_among_its_forms(caption: str, seed: int, wildcards: bool, prefix: str) -> None:
    settings = CaptionSettings(wildcards=wildcards, prefix=prefix, dropout=0.3)
    forms = caption_forms(caption, settings, 200)
    assert forms is None or process_caption(caption, settings, random.Random(seed)) in forms


EVENTS = st.lists(
    st.builds(
        lambda kind, step, fields: {"type": kind, "step": step, "fields": fields},
        st.sampled_from(["metric", "state", "a type"]),
        st.integers(0, 2**53),
        st.dictionaries(
            st.text(max_size=5), st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False), max_size=3
        ),
    ),
    max_size=8,
)


def _tell(path: Path, events: Events) -> None:
    log = EventLog(path)
    for event in events:
        log.emit(event["type"], event["step"], fields=event["fields"])
    log.close()


def _plain(events: Events) -> Events:
    return [{key: value for key, value in event.items() if key != "time"} for event in events]


@given(EVENTS, st.lists(st.integers(0, 4000), max_size=6))
def test_every_event_is_read_once_wherever_the_file_is_looked_at(folder: Path, events: Events, cuts: list[int]) -> None:
    """A look at any byte, also in the middle of a line or of a letter."""
    path = folder / "events.jsonl"
    path.unlink(missing_ok=True)
    _tell(path, events)
    data = path.read_bytes()
    tail, found, quiet, other = EventTail(path), [], EventTail(path, metrics=False), []
    for cut in [*sorted(cuts), len(data)]:
        path.write_bytes(data[:cut])
        found += tail.read()
        other += quiet.read()
    assert _plain(found) == events
    assert _plain(other) == [event for event in events if event["type"] != "metric"]
    assert tail.read() == []
    path.write_bytes(data[: len(data) // 2])
    assert tail.read() == [], "a file that became shorter tells nothing twice"


@given(EVENTS, st.integers(0, 4000), EVENTS)
def test_after_a_torn_line_no_whole_event_is_lost(folder: Path, before: Events, cut: int, after: Events) -> None:
    """A process killed in the middle of a line, and the next one that goes on with the file."""
    path = folder / "torn.jsonl"
    path.unlink(missing_ok=True)
    _tell(path, before)
    torn = path.read_bytes()[:cut]
    path.write_bytes(torn)
    _tell(path, after)
    found, whole = _plain(read_events(path)), torn.count(b"\n")
    assert found[:whole] == before[:whole]
    assert found[len(found) - len(after) :] == after
    assert whole <= len(found) - len(after) <= whole + 1, "of the torn line only its end may have been missing"


PROMPTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=60)
_MARKS = ("Steps:", "Negative prompt:", "<lora:", "<hypernet:", "<lyco:")


_USES = st.builds(LoraUse, path=st.text(min_size=1, max_size=9), weight=st.floats(-100, 100))


@st.composite
def picture_settings(draw: st.DrawFn) -> PictureSettings:
    sampler = draw(st.sampled_from(sorted(SAMPLER_NAMES)))
    return PictureSettings(
        prompt=draw(st.text(max_size=60)),
        negative=draw(st.text(max_size=30)),
        sampler=sampler,
        schedule=draw(st.sampled_from(schedules_of(sampler))),
        steps=draw(st.integers(1, 1000)),
        guidance=draw(st.floats(0, 100)),
        seed=draw(st.integers(0, 2**63 - 1)),
        width=draw(st.none() | st.integers(8, 512).map(lambda side: 8 * side)),
        model=draw(st.text(min_size=1, max_size=20)),
        loras=draw(
            st.lists(st.builds(LoraUse, path=st.text(min_size=1, max_size=9), weight=st.floats(-100, 100)), max_size=2)
        ),
        weighted=draw(st.booleans()),
    )


@given(picture_settings())
def test_a_picture_gives_back_the_settings_that_it_was_saved_with(folder: Path, settings: PictureSettings) -> None:
    path = folder / "a.png"
    save_png(Image.new("L", (1, 1)), path, settings.model_dump())
    found = PictureSettings.model_validate(read_settings(path))
    assert found == settings
    with Image.open(path) as picture:
        read_infotext(picture.info["parameters"])


@given(PROMPTS, PROMPTS, st.integers(1, 1000), st.floats(0, 100), st.integers(0, 2**63 - 1))
def test_other_programs_text_gives_back_prompts_and_numbers(
    prompt: str, negative: str, steps: int, guidance: float, seed: int
) -> None:
    assume(not any(mark in text for mark in _MARKS for text in (prompt, negative)))
    settings = {"prompt": prompt, "negative": negative, "steps": steps, "guidance": guidance, "seed": seed}
    found = read_infotext(write_infotext({**settings, "sampler": "ddim", "model": 'a, "b": c'}))
    assert (found.settings["prompt"], found.settings["negative"]) == (prompt.strip(), negative.strip())
    assert [found.settings[name] for name in ("steps", "guidance", "seed")] == [steps, guidance, seed]
    assert found.model == 'a, "b": c'


_PIECES = st.sampled_from([*_MARKS, "Steps: 20, ", "a", ", ", '"', "\n", ": ", "Seed: 1", "Size: 1x2", "{", "]"])


@given(st.text() | st.lists(_PIECES).map("".join))
def test_any_text_is_read_as_settings_without_an_error(text: str) -> None:
    found = read_infotext(text)
    json.dumps(found.settings)
    with contextlib.suppress(UserError):
        parse_lines(text)


@given(st.dictionaries(st.sampled_from([*PictureSettings.model_fields, "version", "x"]), ANYTHING, max_size=6))
def test_any_values_in_a_picture_give_settings_or_a_message(folder: Path, content: dict[str, Any]) -> None:
    path = folder / "b.png"
    chunks = PngInfo()
    chunks.add_text(OUR_CHUNK, json.dumps(content))
    Image.new("L", (1, 1)).save(path, pnginfo=chunks)
    with contextlib.suppress(UserError):
        PictureSettings.model_validate(read_settings(path))
