"""What the page asks of a caption job, as arguments that the command itself takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from trainer.captioners.weights import has_weights
from trainer.errors import UserError
from trainer.jobs import jobs
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.dataset import caption_orders
from ui.dataset.caption_orders import CaptionRequest
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.view import as_ticked


@pytest.fixture
def desk(tmp_path: Path) -> DatasetDesk:
    folder = tmp_path / "workspace" / "datasets" / "set"
    folder.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    return DatasetDesk(AppContext(Workspace(tmp_path / "workspace")))


@pytest.fixture
def view(desk: DatasetDesk) -> View:
    return desk.open(str(desk.workspace.datasets_dir / "set")).view


def test_a_request_becomes_a_command(desk: DatasetDesk, view: View) -> None:
    wording = {"trigger": "it's", "remove": ["The image shows"], "longest": 30, "lower": True}
    request = CaptionRequest("fixed", {"prompt": 'a "cat"\nsecond'}, wording, "append-line", times=2)
    words = shlex.split(caption_orders.command_line(desk, view, request))
    assert words[:5] == ["python", "-m", "trainer", "caption", view["folder"]]
    assert words[7:] == [
        '--set=prompt="a \\"cat\\"\\nsecond"',
        "--append",
        "--new-line",
        "--times=2",
        "--trigger=it's",
        "--remove=The image shows",
        "--longest=30",
        "--lower",
    ]


def test_a_job_gets_the_names_as_a_file(desk: DatasetDesk, view: View) -> None:
    request = CaptionRequest("fixed", {"prompt": "x"}, scope="selected")
    caption_orders.start(desk, {**view, "ticked": as_ticked(["b.png"])}, request, review=True, limit=3)
    (job,) = jobs(desk.workspace)
    assert job.command[-3:] == ["--review", "--limit=3", f"--names={job.dir / 'names.json'}"]
    assert json.loads((job.dir / "names.json").read_text(encoding="utf-8")) == ["b.png"]
    job.cancel()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (CaptionRequest("nobody"), "caption.unknown"),
        (CaptionRequest("blip", {"model": "/etc"}), "path.not_allowed"),
        (CaptionRequest("blip", {"model": "../../etc"}), "path.not_allowed"),
        (CaptionRequest("blip", {"batch_size": 0}), "config.value"),
        (CaptionRequest("filename", wording={"longest": 0}), "config.value"),
        (CaptionRequest("filename", handling="evil"), "caption.handling"),
    ],
)
def test_wrong_requests_are_told(request_: CaptionRequest, code: str, desk: DatasetDesk, view: View) -> None:
    with pytest.raises(UserError) as caught:
        caption_orders.start(desk, view, request_)
    assert caught.value.problems[0].code == code
    assert not jobs(desk.workspace)


def test_another_prompt_only_where_one_is_taken() -> None:
    assert CaptionRequest("blip", {"batch_size": 2}).with_prompt("a").options == {"batch_size": 2, "prompt": "a"}
    with pytest.raises(UserError, match="takes no prompt"):
        CaptionRequest("filename").with_prompt("a")


def test_captioners_with_weights_here_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert not has_weights("owner/name")
    assert caption_orders.first_captioner() == "demo"
    snapshot = tmp_path / "hub" / "models--SmilingWolf--wd-swinv2-tagger-v3" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (snapshot / "model.onnx").touch()
    labels = {name: label for label, name in caption_orders.captioner_choices({"blip": str(snapshot)})}
    assert labels["wd"] == "Tags: WD tagger v3 (on this machine)"
    assert labels["blip"] == "Sentences: BLIP (on this machine)"
    assert labels["filename"] == "No model: File names"
    assert caption_orders.first_captioner() == "wd"


def test_what_stood_in_the_panel_is_kept(desk: DatasetDesk, view: View) -> None:
    assert caption_orders.remembered(desk) == {}
    caption_orders.remember(desk, view, {"captioner": "fixed", "wording.trigger": "ohwx"})
    assert caption_orders.remembered(desk) == {"captioner": "fixed"}
    (desk.workspace.dir / "dataset_captions.json").write_text("[", encoding="utf-8")
    assert caption_orders.remembered(desk) == {}


def test_each_dataset_has_a_trigger_word_of_its_own(desk: DatasetDesk, view: View) -> None:
    other = desk.workspace.datasets_dir / "other"
    other.mkdir()
    Image.new("RGB", (8, 8)).save(other / "a.png")
    caption_orders.remember(desk, view, {"wording.trigger": "ohwx"})
    assert desk.open(str(other)).trigger == ""
    caption_orders.remember(desk, desk.open(str(other)).view, {"wording.trigger": "zwx"})
    assert desk.open(view["folder"]).trigger == "ohwx"
    again = desk.remembered()
    assert again is not None
    assert again.trigger == "ohwx"
    assert desk.open(str(other)).trigger == "zwx"
    assert desk.refresh(view).trigger is None
