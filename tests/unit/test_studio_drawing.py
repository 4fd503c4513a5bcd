"""Requests while they are drawn: several prompts, the queue's order, what gives way to what, the live picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.test_studio import FAST, lora, pixels, quiet, server_without_process, with_weight
from trainer import studio_drawing
from trainer.generate import Painter
from trainer.pictures import LoraUse, read_settings
from trainer.studio import Studio, read_answer
from trainer.studio_server import Server

__all__ = ["lora"]
PROMPTS = ["a red star", "a blue ring", "a green moon"]


@pytest.fixture
def served(tmp_path: Path) -> tuple[Server, Studio]:
    """A server in this process, and a client that starts none."""
    server, studio = server_without_process(tmp_path)
    return server, quiet(studio)


def test_each_prompt_has_its_pair_and_plain_pictures_are_drawn_once(
    served: tuple[Server, Studio], lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, studio = served
    told: list[int] = []
    tell = studio_drawing.write_answer
    monkeypatch.setattr(
        studio_drawing, "write_answer", lambda *a, **k: (tell(*a, **k), told.append(len(a[1].pictures)))[0]
    )
    first = studio.preview(with_weight(lora, 1.0), prompts=PROMPTS[1:], compare=True)
    server.work()
    answer = studio.answer(first)
    assert (answer.state, answer.step, answer.steps, answer.live) == ("done", 18, 18, "")
    assert set(told) >= {1, 2, 3, 4, 5, 6}, "the first pair is told while the others are drawn"
    found = [read_settings(Path(picture)) for picture in answer.pictures]
    assert [settings["prompt"] for settings in found] == [prompt for prompt in PROMPTS for _ in range(2)]
    assert [len(settings.get("loras", [])) for settings in found] == [0, 1] * 3
    painter = Painter("demo", torch.device("cpu"))
    for picture, prompt in zip(answer.pictures[::2], PROMPTS, strict=True):
        plain = painter.draw(FAST.model_copy(update={"prompt": prompt}), FAST.seed)
        assert np.array_equal(pixels(picture), np.asarray(plain))
    painter.use([LoraUse(path=str(lora), weight=1.0)])
    for picture, prompt in zip(answer.pictures[1::2], PROMPTS, strict=True):
        assert np.array_equal(pixels(picture), np.asarray(painter.draw(FAST.model_copy(update={"prompt": prompt}), 3)))

    second = studio.preview(with_weight(lora, -1.0), prompts=[PROMPTS[2], "a grey box"], compare=True)
    server.work()
    again = studio.answer(second).pictures
    assert [again[0], again[2]] == [answer.pictures[0], answer.pictures[4]]
    assert not {*again[1::2], again[4]} & set(answer.pictures)


def test_pictures_of_one_batch_are_drawn_and_told_together(
    served: tuple[Server, Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, studio = served
    groups: list[list[int]] = []
    draw = Painter.draw_together

    def drawn(painter: Painter, settings: object, seeds: list[int], *given: object) -> list[Image.Image]:
        groups.append(seeds)
        return draw(painter, settings, seeds, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Painter, "draw_together", drawn)
    asked = studio.generate(FAST.model_copy(update={"count": 5, "batch_size": 2}))
    server.work()
    answer = studio.answer(asked)
    assert (answer.state, answer.step, answer.steps) == ("done", 15, 15)
    assert groups == [[3, 4], [5, 6], [7]]
    assert [read_settings(Path(each))["seed"] for each in answer.pictures] == [3, 4, 5, 6, 7]
    assert all(read_settings(Path(each))["batch_size"] == 1 for each in answer.pictures)
    alone = Painter("demo", torch.device("cpu")).draw(FAST, 6)
    assert np.abs(pixels(answer.pictures[3]).astype(int) - np.asarray(alone)).max() <= 1


def test_what_is_more_urgent_goes_between_two_pictures(
    served: tuple[Server, Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, studio = served
    several, later, last = (studio.generate(FAST.model_copy(update={"count": count})) for count in (3, 1, 1))
    order = [(queued.request.id, queued.request.settings.count, queued.answer.state) for queued in studio.queue()]
    assert order == [(several, 3, "waiting"), (later, 1, "waiting"), (last, 1, "waiting")]
    asked: list[str] = []
    save = studio_drawing.Drawing._save

    def meanwhile(drawing: studio_drawing.Drawing, *given: object) -> Path:
        if not asked:
            asked.append(studio.preview(FAST))
            studio.move_to_front(last)
        return save(drawing, *given)

    monkeypatch.setattr(studio_drawing.Drawing, "_save", meanwhile)
    server.work()
    postponed = studio.answer(several)
    assert (postponed.state, len(postponed.pictures), postponed.attempts) == ("waiting", 1, 0)
    assert [queued.request.id for queued in studio.queue()] == [asked[0], last, several, later]
    while server.work():
        pass
    ended = {request: studio.answer(request).ended for request in (asked[0], last, several, later)}
    assert list(ended.values()) == sorted(ended.values())
    assert [read_settings(Path(picture))["seed"] for picture in studio.answer(several).pictures] == [3, 4, 5]
    assert not list(studio.requests_dir.iterdir())


def test_one_is_cancelled_and_the_others_stay(served: tuple[Server, Studio]) -> None:
    server, studio = served
    one, two = studio.generate(FAST), studio.generate(FAST)
    studio.cancel(one)
    while server.work():
        pass
    assert [studio.answer(request).state for request in (one, two)] == ["cancelled", "done"]


def test_the_picture_being_drawn_is_shown_until_it_is_done(
    served: tuple[Server, Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, studio = served
    monkeypatch.setattr(studio_drawing, "LIVE_EVERY_S", 0.0)
    monkeypatch.setattr(studio_drawing, "PROGRESS_EVERY_S", 0.0)
    seen: list[tuple[int, str, tuple[int, int]]] = []
    tell = studio_drawing.write_answer

    def look(answers: Path, answer: object, **options: bool) -> None:
        tell(answers, answer, **options)
        told = read_answer(answers, answer.id)
        if told.live:
            seen.append((told.step, told.live, Image.open(told.live).size))

    monkeypatch.setattr(studio_drawing, "write_answer", look)
    request = studio.generate(FAST.model_copy(update={"count": 2}))
    server.work()
    live = str(studio.live_path(request))
    assert seen == [(step, live, (64, 64)) for step in (1, 2, 3, 4, 5, 6)]
    assert studio.answer(request).live == ""
    assert not list(studio.live_dir.iterdir())
