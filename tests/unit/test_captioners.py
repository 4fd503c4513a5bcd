"""Captioners: the real BLIP path on a tiny trained model, captioners without one, and jobs that end half-way."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import tiny_blip
from trainer.captioners import CAPTIONERS
from trainer.captioners.base import Captioner
from trainer.captioners.folder import CaptionReport, Wording, caption_folder
from trainer.curation.edit_log import EditLog
from trainer.errors import StoppedOnRequest, UserError


class Recorder:
    """Keeps what was told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        self.events.append({"type": kind, **fields})


class Colour:
    """Names the colour, and can be told to end after some pictures."""

    def __init__(self, ends_after: int = 1000) -> None:
        self.seen: list[str] = []
        self._ends_after = ends_after

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        if len(self.seen) == self._ends_after:
            raise StoppedOnRequest("stopped on request")
        self.seen += [path.name for path in paths]
        colours = [image.resize((1, 1)).getpixel((0, 0)) for image in images]
        return ["red" if red > blue else "blue" for red, _, blue in colours]


def loaded(name: str, **options: Any) -> Captioner:
    kind = CAPTIONERS[name]
    return kind.load(kind.parse(options))


def caption_of(captioner: Captioner, image: Image.Image | None = None, path: str = "x.png") -> str:
    (text,) = captioner.captions([image or Image.new("RGB", (1, 1))], [Path(path)])
    return text


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip.build(tmp_path_factory.mktemp("blip"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures in two folders; one has a caption, one an empty caption file."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "sub/c.png", "sub/d.png")):
        tiny_blip.plain_picture("red" if number % 2 else "blue").save(folder / name)
    (folder / "a.txt").write_text("mine\nsecond line\n", encoding="utf-8")
    (folder / "b.txt").write_text(" \n", encoding="utf-8")
    return folder


def captions(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.txt"))}


def caption(folder: Path, captioner: Any = None, wording: Wording | None = None, **options: Any) -> CaptionReport:
    log = EditLog(folder.parent / "state", folder)
    events = options.pop("events", Recorder())
    chosen = {"overwrite": False, **options}
    return caption_folder(folder, captioner or Colour(), wording or Wording(), log=log, events=events, **chosen)


def test_only_missing_captions_are_written(pictures: Path) -> None:
    events = Recorder()
    report = caption(pictures, events=events)
    assert (report.written, report.kept, report.skipped) == (3, 1, [])
    assert captions(pictures) == {
        "a.txt": "mine\nsecond line\n",
        "b.txt": "red\n",
        "sub/c.txt": "blue",
        "sub/d.txt": "red",
    }
    assert [event["done"] for event in events.events] == [0, 1, 2, 3]
    assert caption(pictures).written == 0


def test_overwriting_can_be_undone(pictures: Path) -> None:
    before = captions(pictures)
    assert caption(pictures, overwrite=True).written == 4
    assert captions(pictures)["a.txt"] == "blue\n"
    assert EditLog(pictures.parent / "state", pictures).undo().written == 4
    assert captions(pictures) == {**before, "b.txt": " \n"}


def test_a_stopped_job_keeps_what_is_written_and_goes_on(pictures: Path) -> None:
    with pytest.raises(StoppedOnRequest, match="1 of 3 captions"):
        caption(pictures, Colour(ends_after=1))
    assert set(captions(pictures)) == {"a.txt", "b.txt"}
    second = Colour()
    assert caption(pictures, second).written == 2
    assert second.seen == ["c.png", "d.png"]


def test_a_broken_picture_is_skipped_by_name(pictures: Path) -> None:
    (pictures / "b.png").write_bytes(b"not a picture")
    events = Recorder()
    report = caption(pictures, events=events)
    assert report.written == 2
    assert report.skipped == [("b.png", "it is not a picture, or damaged")]
    (warning,) = [event for event in events.events if event["type"] == "warning"]
    assert "b.png" in warning["message"]


def test_a_caption_written_by_hand_meanwhile_is_left_alone(pictures: Path) -> None:
    class Meddler(Colour):
        def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
            for path in paths:
                path.with_suffix(".txt").write_text("by hand", encoding="utf-8")
            return super().captions(images, paths)

    assert caption(pictures, Meddler()).written == 0
    assert captions(pictures)["sub/c.txt"] == "by hand"


@pytest.mark.parametrize(
    ("wording", "expected"),
    [
        (Wording(), "a cat"),
        (Wording(trigger=" ohwx "), "ohwx, a cat"),
        (Wording(prefix="a photo of", suffix="outside"), "a photo of a cat outside"),
        (Wording(trigger="ohwx", prefix="anime,", suffix=", 4k"), "ohwx, anime, a cat, 4k"),
    ],
)
def test_wording(wording: Wording, expected: str) -> None:
    assert wording.around("a cat") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("golden_retriever-012.jpg", "golden retriever"),
        ("a cat (3).png", "a cat"),
        ("IMG_0001.jpg", "IMG"),
        ("0001.png", "0001"),
        ("cat.png", "cat"),
    ],
)
def test_file_names(name: str, expected: str) -> None:
    assert caption_of(loaded("filename"), path=name) == expected


def test_the_fixed_text_must_be_given() -> None:
    assert caption_of(loaded("fixed", prompt=" a dog ")) == "a dog"
    with pytest.raises(UserError) as caught:
        loaded("fixed", prompt=" ")
    assert caught.value.problems[0].code == "caption.no_text"


@pytest.mark.parametrize("prompt", ["", "a photo of"])
def test_blip_says_what_it_sees(prompt: str, blip_folder: Path) -> None:
    captioner = loaded("blip", model=str(blip_folder), prompt=prompt)
    images = [tiny_blip.plain_picture(colour) for colour in tiny_blip.COLOURS]
    expected = [f"a photo of a {colour} picture" for colour in tiny_blip.COLOURS]
    assert captioner.captions(images, [Path("x.png")] * len(images)) == expected
    assert caption_of(captioner, images[0]) == expected[0]


def copied(source: Path, target: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(source, target)
    change(target)
    return target


def set_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda folder: (folder / "config.json").unlink(), "caption.not_a_model"),
        (lambda folder: set_config(folder, auto_map={"AutoModel": "evil.Model"}), "caption.own_code"),
        (lambda folder: set_config(folder, model_type="llava"), "caption.wrong_type"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), "caption.no_safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"broken"), "caption.model_broken"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "caption.model_broken"),
    ],
)
def test_unusable_weights_are_refused(
    change: Callable[[Path], None], code: str, blip_folder: Path, tmp_path: Path
) -> None:
    folder = copied(blip_folder, tmp_path / "model", change)
    with pytest.raises(UserError) as caught:
        loaded("blip", model=str(folder))
    assert caught.value.problems[0].code == code
    assert caught.value.problems[0].field == "model"


@pytest.mark.parametrize("model", ["Salesforce/blip-image-captioning-base", "no/where/at-all", "/no/such/folder"])
def test_absent_weights_say_how_to_get_them(model: str) -> None:
    with pytest.raises(UserError) as caught:
        loaded("blip", model=model)
    problem = caught.value.problems[0]
    assert problem.code == "caption.model_not_found"
    assert problem.hint


def test_the_list_of_captioners_needs_no_torch() -> None:
    heavy = {"torch", "transformers", "onnxruntime"}
    code = f"import sys, trainer.captioners; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def command(folder: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "trainer", "caption", str(folder), "--workspace", str(folder.parent / "workspace")]
    return [*start, *more]


def test_the_command(pictures: Path, blip_folder: Path) -> None:
    (pictures / "sub" / "d.png").write_bytes(b"broken")
    arguments = ("--captioner", "blip", "--model", str(blip_folder), "--trigger", "ohwx", "--json")
    done = subprocess.run(command(pictures, *arguments), capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert (answer["written"], answer["kept"]) == (2, 1)
    assert answer["skipped"] == [{"path": "sub/d.png", "reason": "it is not a picture, or damaged"}]
    assert captions(pictures)["sub/c.txt"] == "ohwx, a photo of a blue picture"


@pytest.mark.parametrize(
    "arguments", [("--captioner", "nobody"), ("--captioner", "fixed"), ("--captioner", "blip", "--model", "/no")]
)
def test_wrong_input_has_exit_code_2(arguments: tuple[str, ...], pictures: Path) -> None:
    done = subprocess.run(command(pictures, *arguments), capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    missing = subprocess.run(command(pictures / "no", "--captioner", "filename"), capture_output=True, text=True)
    assert missing.returncode == 2


def test_a_signal_between_pictures_ends_with_code_3(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(3000):
        shutil.copy(_small(tmp_path), folder / f"{number}.png")
    process = subprocess.Popen(command(folder, "--captioner", "fixed", "--prompt", "x"), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not list(folder.glob("*.txt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    written = captions(folder)
    assert process.returncode == 3
    assert 0 < len(written) < 3000
    assert set(written.values()) == {"x"}
    assert not list(folder.glob("*.tmp"))


def _small(folder: Path) -> Path:
    path = folder / "small.png"
    if not path.exists():
        Image.new("RGB", (8, 8)).save(path)
    return path
