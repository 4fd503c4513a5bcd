"""What the Generate tab remembers, and how its requests stand, told from the files of a studio without a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from tests.unit.test_preview_desk import QuietStudio
from trainer.pictures import PictureSettings, parse_settings, save_png
from trainer.runs.store import Workspace
from trainer.studio import Answer, Studio, write_answer
from ui.context import AppContext
from ui.generate.album import Album
from ui.generate.desk import GenerateDesk
from ui.generate.work import Work


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return QuietStudio(Workspace(tmp_path), 1)


@pytest.fixture
def desk(studio: Studio) -> GenerateDesk:
    return GenerateDesk(studio)


def ask(desk: GenerateDesk, prompt: str, **settings: Any) -> str:
    desk.ask(parse_settings({"prompt": prompt, **settings}), new_seed=False)
    return desk.last().request


def test_the_form_is_remembered_and_seeds_are_drawn(studio: Studio, desk: GenerateDesk) -> None:
    assert desk.standing().answer is None
    kept = desk.ask(PictureSettings.model_validate({"prompt": "a", "seed": 5}), new_seed=False)
    drawn = desk.ask(PictureSettings.model_validate({"prompt": "b", "seed": 5}), new_seed=True)
    assert (kept.seed, drawn.seed == 5) == (5, False)
    assert (desk.last().settings.prompt, desk.last().settings.seed, desk.last().new_seed) == ("b", drawn.seed, True)
    standing = desk.standing()
    assert standing.answer is not None and (standing.answer.state, len(standing.queue)) == ("waiting", 2)
    (studio.workspace.dir / "last_generate.json").write_text("{half")
    assert desk.last().settings.prompt == ""


def test_what_is_drawn_is_shown_and_the_time_left_counts_all(studio: Studio, desk: GenerateDesk) -> None:
    first = ask(desk, "first", steps=10, count=2)
    ask(desk, "second", steps=30)
    started = 1000.0
    running = Answer(id=first, state="running", what="drawing", step=5, steps=20, started=started)
    write_answer(studio.answers_dir, running)
    standing = desk.standing()
    assert standing.answer is not None and standing.answer.id == first
    assert standing.seconds_left(started + 10) == pytest.approx(10 / 5 * (15 + 30))
    write_answer(studio.answers_dir, running.model_copy(update={"step": 1}))
    assert desk.standing().seconds_left(started + 10) is None, "one step tells nothing: the model was loaded in it"


def test_one_or_all_are_cancelled_and_one_goes_to_the_front(studio: Studio, desk: GenerateDesk) -> None:
    first, second, third = (ask(desk, word) for word in ("first", "second", "third"))
    preview = studio.preview(parse_settings({"prompt": "of the Merge tab"}))
    desk.move_to_front(third)
    assert [queued.request.id for queued in desk.standing().queue] == [third, first, second]

    def cancelled() -> list[str]:
        return sorted(path.stem for path in studio.requests_dir.glob("*.cancel"))

    desk.cancel(second)
    assert cancelled() == [second]
    assert [queued.request.id for queued in desk.standing().queue] == [third, first], "it is not waited for any more"
    desk.cancel()
    assert cancelled() == sorted([first, second, third])
    assert preview not in cancelled(), "that is another tab's"


def test_the_panel_tells_it(studio: Studio, desk: GenerateDesk) -> None:
    context = AppContext(studio.workspace)
    with gr.Blocks():
        work = Work(desk, Album(studio.workspace), context)
    seen, empty = work._refresh("")
    assert empty == {"state": "", "cards": "[]", "queue": []}
    request = ask(desk, "<b>star</b>" * 50, count=2)
    done = studio.workspace.pictures_dir / "00001-s42.png"
    save_png(Image.new("RGB", (8, 8)), done, {"prompt": "<b>star</b>"})
    live = studio.live_path(request)
    live.parent.mkdir(parents=True, exist_ok=True)
    live.write_bytes(b"a JPEG")
    gone = studio.workspace.pictures_dir / "00002-s43.png"
    state: dict[str, Any] = {
        "what": "drawing",
        "step": 30,
        "steps": 40,
        "pictures": [str(done), str(gone)],
        "notes": ["In tiles."],
    }
    write_answer(studio.answers_dir, Answer(id=request, state="running", live=str(live), **state))
    now = work._poll(seen)
    assert now is not None
    told = now[1]
    assert (told["words"], told["share"], told["notes"]) == ("Drawing, step 30 of 40", 0.75, ["In tiles."])
    assert told["live"].startswith(f"/atelier/live/{request}.jpg?v=")
    assert [card["name"] for card in json.loads(told["cards"])] == [done.name], "a deleted picture is passed over"
    assert len(told["queue"][0]["prompt"]) == 120
    assert work._poll(now[0]) is None
    failed = Answer(id=request, state="failed", error=[{"message": "No memory.", "hint": "Make it smaller."}])
    write_answer(studio.answers_dir, failed)
    assert work._refresh(now[0])[1]["problems"] == ["No memory. Make it smaller."]
