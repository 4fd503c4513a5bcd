"""Caption jobs: which pictures, what becomes of captions that are there, drafts, and jobs that end half-way."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import forked, tiny_blip
from trainer.__main__ import command_parser, main
from trainer.captioners.drafts import DraftFile
from trainer.captioners.folder import CaptionOrder, CaptionReport, Drafter, Writer, caption_pictures, subjects
from trainer.captioners.wording import Wording
from trainer.commands import caption as caption_command
from trainer.curation.edit_log import EditLog
from trainer.errors import JobFailed, StoppedOnRequest, UserError
from trainer.runs.store import Workspace

KEY = "a job"


class Recorder:
    """Keeps what was told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        self.events.append({"type": kind, **fields})


class Colour:
    """Names the colour, and can be told to end after some pictures, or to say how often it was asked."""

    def __init__(self, ends_after: int = 1000, *, counting: bool = False) -> None:
        self.seen: list[str] = []
        self.batches: list[int] = []
        self._ends_after = ends_after
        self._counting = counting

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        if len(self.seen) >= self._ends_after:
            raise StoppedOnRequest("stopped on request")
        self.batches.append(len(images))
        texts = [self._text(image, path) for image, path in zip(images, paths, strict=True)]
        self.seen += [path.name for path in paths]
        return texts

    def _text(self, image: Image.Image, path: Path) -> str:
        if self._counting:
            return f"text {len(self.batches)}"
        red, _, blue = image.resize((1, 1)).getpixel((0, 0))
        return "red" if red > blue else "blue"


class Failing(Colour):
    """Fails whenever one of these pictures is among those it is shown."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self._names = set(names)

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        if self._names & {path.name for path in paths}:
            raise ValueError("shapes do not match\nsecond line")
        return super().captions(images, paths)


class Place:
    """A folder of four pictures, of which a.png has a caption and b.png an empty caption file; and its workspace."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "pictures"
        self.workspace = Workspace(root / "workspace")
        self.events = Recorder()
        (self.folder / "sub").mkdir(parents=True)
        for number, name in enumerate(("a.png", "b.png", "sub/c.png", "sub/d.png")):
            tiny_blip.plain_picture("red" if number % 2 else "blue").save(self.folder / name)
        (self.folder / "a.txt").write_text("mine\nsecond line\n", encoding="utf-8")
        (self.folder / "b.txt").write_text(" \n", encoding="utf-8")

    def write(self, captioner: Any = None, order: CaptionOrder | None = None) -> CaptionReport:
        note = DraftFile.note(self.workspace, self.folder, KEY)
        with self.log.growing("Captions") as write:
            target = Writer(write, note, KEY)
            return caption_pictures(
                subjects(self.folder), captioner or Colour(), order or CaptionOrder(), target, self.events
            )

    def draft(self, captioner: Any = None, order: CaptionOrder | None = None) -> CaptionReport:
        target = Drafter(self.drafts, KEY)
        return caption_pictures(
            subjects(self.folder), captioner or Colour(), order or CaptionOrder(), target, self.events
        )

    def command(self, *arguments: str) -> dict[str, Any]:
        parser = command_parser("caption", caption_command)
        args = parser.parse_args([str(self.folder), f"--workspace={self.workspace.dir}", *arguments])
        return caption_command.run(args, self.events)

    @property
    def log(self) -> EditLog:
        return EditLog.of(self.workspace, self.folder)

    @property
    def drafts(self) -> DraftFile:
        return DraftFile.review(self.workspace, self.folder)

    @property
    def captions(self) -> dict[str, str]:
        return captions(self.folder)


def captions(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.txt"))}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_only_missing_captions_are_written(place: Place) -> None:
    report = place.write()
    assert (report.written, report.kept, report.skipped) == (3, 1, [])
    assert place.captions == {
        "a.txt": "mine\nsecond line\n",
        "b.txt": "red\n",
        "sub/c.txt": "blue",
        "sub/d.txt": "red",
    }
    assert [event["done"] for event in place.events.events] == [0, 1, 2, 3]
    assert place.events.events[-1]["seconds_left"] == 0
    assert place.write().written == 0


def test_overwriting_can_be_undone(place: Place) -> None:
    before = place.captions
    assert place.write(order=CaptionOrder("overwrite")).written == 4
    assert place.captions["a.txt"] == "blue\n"
    assert place.log.undo().written == 4
    assert place.captions == before
    assert place.write(order=CaptionOrder("overwrite")).written == 4


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (CaptionOrder("append"), "mine, blue\nsecond line, blue\n"),
        (CaptionOrder("prepend"), "blue, mine\nblue, second line\n"),
        (CaptionOrder("append", new_line=True), "mine\nsecond line\nblue\n"),
        (CaptionOrder("prepend", new_line=True), "blue\nmine\nsecond line\n"),
    ],
)
def test_captions_are_added_to_those_that_are_there(order: CaptionOrder, expected: str, place: Place) -> None:
    assert place.write(order=order).written == 4
    assert place.captions["a.txt"] == expected
    assert place.captions["b.txt"] == "red\n"


def test_several_texts_become_lines(place: Place) -> None:
    place.write(Colour(counting=True), CaptionOrder(times=3, batch_size=2))
    assert place.captions["sub/d.txt"] == "text 4\ntext 5\ntext 6"
    place.write(Colour(), CaptionOrder("overwrite", times=3))
    assert place.captions["sub/d.txt"] == "red"


def test_pictures_come_in_batches(place: Place) -> None:
    captioner = Colour()
    place.write(captioner, CaptionOrder("overwrite", batch_size=3))
    assert captioner.batches == [3, 1]
    assert place.captions["sub/c.txt"] == "blue"


@pytest.mark.parametrize("mode", ["missing", "overwrite", "append"])
def test_a_stopped_job_keeps_what_is_written_and_goes_on(mode: Any, place: Place) -> None:
    total = 3 if mode == "missing" else 4
    with pytest.raises(StoppedOnRequest, match=f"1 of {total} captions"):
        place.write(Colour(1, counting=True), CaptionOrder(mode))
    done = place.captions
    second = Colour(counting=True)
    assert place.write(second, CaptionOrder(mode)).written == total - 1
    assert second.seen[-2:] == ["c.png", "d.png"]
    assert len(second.seen) == total - 1
    first = "b.txt" if mode == "missing" else "a.txt"
    assert place.captions[first] == done[first]
    if mode != "missing":  # the job came to its end: asked again, it is a new one
        assert place.write(Colour(), CaptionOrder(mode)).written == total


def test_going_on_leaves_out_neither_what_was_undone_nor_what_was_only_announced(place: Place) -> None:
    with pytest.raises(StoppedOnRequest):
        place.write(Colour(2), CaptionOrder("overwrite"))
    assert place.log.undo().written == 2
    announced = DraftFile.note(place.workspace, place.folder, KEY).read()
    assert set(announced) == {"a.png", "b.png"}  # noted before it is written, so a kill in between looks the same
    assert place.write(Colour(), CaptionOrder("overwrite")).written == 4
    assert place.captions["a.txt"] == "blue\n"


def test_afresh_captions_again_what_a_stopped_job_wrote(place: Place) -> None:
    with pytest.raises(StoppedOnRequest):
        place.write(Colour(2), CaptionOrder("overwrite"))
    second = Colour()
    report = place.write(second, CaptionOrder("overwrite", afresh=True))
    assert (len(second.seen), report.written, report.kept) == (4, 2, 2)  # two captions turned out as they were


def test_a_broken_picture_is_skipped_by_name(place: Place) -> None:
    (place.folder / "b.png").write_bytes(b"not a picture")
    report = place.write(order=CaptionOrder(batch_size=3))
    assert report.written == 2
    assert report.skipped == [("b.png", "it is not a picture, or damaged")]
    (warning,) = [event for event in place.events.events if event["type"] == "warning"]
    assert "b.png" in warning["message"]


def test_a_picture_the_captioner_fails_on_is_skipped(place: Place) -> None:
    report = place.write(Failing("c.png"), CaptionOrder("overwrite", batch_size=4))
    assert report.skipped == [("sub/c.png", "the captioner failed on it (shapes do not match)")]
    assert sorted(place.captions) == ["a.txt", "b.txt", "sub/d.txt"]


def test_a_captioner_that_always_fails_ends_the_job(place: Place) -> None:
    with pytest.raises(JobFailed, match="fails on every picture: shapes do not match"):
        place.write(Failing("a.png", "b.png", "c.png", "d.png"), CaptionOrder("overwrite"))


def test_too_little_memory_is_told(place: Place) -> None:
    class Large(Colour):
        def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
            raise MemoryError

    with pytest.raises(UserError) as caught:
        place.write(Large())
    assert caught.value.problems[0].code == "caption.out_of_memory"


def test_nothing_to_say_is_no_caption(place: Place) -> None:
    order = CaptionOrder("overwrite", wording=Wording(remove=["red"]))
    assert place.write(order=order).skipped[0] == ("b.png", "the captioner has nothing to say")
    assert place.captions["b.txt"] == " \n"


def test_a_caption_written_by_hand_meanwhile_is_left_alone(place: Place) -> None:
    class Meddler(Colour):
        def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
            for path in paths:
                path.with_suffix(".txt").write_text("by hand", encoding="utf-8")
            return super().captions(images, paths)

    assert place.write(Meddler()).written == 0
    assert place.captions["sub/c.txt"] == "by hand"


def test_a_caption_file_that_cannot_be_written_is_skipped(place: Place) -> None:
    def refuse(step: object) -> bool:
        raise PermissionError(13, "Permission denied")

    target = Writer(refuse, DraftFile.note(place.workspace, place.folder, KEY), KEY)
    report = caption_pictures(subjects(place.folder), Colour(), CaptionOrder(), target, place.events)
    assert report.written == 0
    assert report.skipped[0] == ("b.png", "its caption file cannot be written (Permission denied)")


def test_drafts_leave_the_folder_alone_until_they_are_written(place: Place) -> None:
    before = place.captions
    answer = place.command("--captioner=filename", "--review", "--trigger=ohwx", "--append")
    assert (answer["drafted"], answer["written"], place.captions) == (4, 0, before)
    drafts = place.drafts.read()
    assert drafts["sub/c.png"].text == "ohwx, c"
    place.drafts.add([drafts["b.png"].decided("rejected")])
    (place.folder / "a.txt").write_text("changed meanwhile", encoding="utf-8")

    written = place.command(f"--write={answer['drafts']}")
    assert written["written"] == 2
    assert written["skipped"] == [{"path": "a.png", "reason": "its caption was changed meanwhile"}]
    assert place.captions == {
        "a.txt": "changed meanwhile",
        "b.txt": " \n",
        "sub/c.txt": "ohwx, c",
        "sub/d.txt": "ohwx, d",
    }
    assert set(place.drafts.read()) == {"a.png", "b.png"}
    assert place.log.undo().written == 2
    assert sorted(place.captions) == ["a.txt", "b.txt"]


def test_drafting_goes_on_where_it_was_and_then_begins_anew(place: Place) -> None:
    with pytest.raises(StoppedOnRequest):
        place.draft(Colour(2), CaptionOrder("overwrite"))
    second = Colour()
    assert place.draft(second, CaptionOrder("overwrite")).written == 2
    assert second.seen == ["c.png", "d.png"]
    kept = place.drafts.read()["b.png"].decided("accepted")
    place.drafts.add([kept])
    assert place.draft(Colour(counting=True), CaptionOrder("overwrite")).written == 3
    assert place.drafts.read()["b.png"] == kept
    assert place.drafts.read()["a.png"].text == "text 1"


def test_forged_drafts_stay_in_the_folder(place: Place, tmp_path: Path) -> None:
    values = {"name": "b.png", "file": "../evil.txt", "before": None, "old": "", "text": "evil"}
    forged = tmp_path / "forged.jsonl"
    forged.write_text(json.dumps(values) + "\n", encoding="utf-8")
    assert place.command(f"--write={forged}")["written"] == 0
    assert not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--subfolder=sub"], {"sub/c.txt", "sub/d.txt"}),
        (["--limit=1"], {"b.txt"}),
        (["--names={list}"], {"b.txt", "sub/d.txt"}),
    ],
)
def test_only_the_pictures_that_are_meant(
    arguments: list[str], expected: set[str], place: Place, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("b.png\nsub/d.png\n", encoding="utf-8")
    options = [argument.format(list=tmp_path / "names.txt") for argument in arguments]
    before = place.captions
    place.command("--captioner=filename", *options)
    assert {name for name, text in place.captions.items() if before.get(name) != text} == expected


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "caption.no_captioner"),
        (["--captioner=nobody"], "cli.arguments"),
        (["--captioner=filename", "--overwrite", "--append"], "cli.arguments"),
        (["--captioner=filename", "--times=0"], "caption.times"),
        (["--captioner=filename", "--longest=none"], "config.value"),
        (["--captioner=filename", "--replace=woman"], "config.value"),
        (["--captioner=filename", "--subfolder=none"], "caption.no_subfolder"),
        (["--captioner=filename", "--names=/no/such/file"], "cli.names"),
        (["--captioner=filename", "--names=/dev/null"], None),
        (["--write=/no/such/file"], "caption.no_drafts"),
    ],
)
def test_wrong_options_are_told(arguments: list[str], code: str | None, place: Place) -> None:
    if code is None:
        assert place.command(*arguments)["written"] == 0
        return
    with pytest.raises(UserError) as caught:
        place.command(*arguments)
    assert caught.value.problems[0].code == code


def test_names_that_are_not_in_the_folder_are_told(place: Place, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps(["b.png", "../evil.png"]), encoding="utf-8")
    with pytest.raises(UserError, match=r"1 of the named pictures are not in the folder: \.\./evil\.png"):
        place.command("--captioner=filename", f"--names={tmp_path / 'names.json'}")


def command(folder: Path, *more: str) -> list[str]:
    return ["caption", str(folder), "--workspace", str(folder.parent / "workspace"), *more]


def test_the_command(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place.folder / "sub" / "d.png").write_bytes(b"broken")
    model = tiny_blip.build(tmp_path / "blip")
    arguments = ("--captioner", "blip", "--model", str(model), "--trigger", "ohwx", "--json")
    assert main(command(place.folder, *arguments)) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["written"], answer["kept"]) == (2, 1)
    assert answer["skipped"] == [{"path": "sub/d.png", "reason": "it is not a picture, or damaged"}]
    assert place.captions["sub/c.txt"] == "ohwx, a photo of a blue picture"


@pytest.mark.parametrize(
    "arguments", [("--captioner", "nobody"), ("--captioner", "fixed"), ("--captioner", "blip", "--model", "/no")]
)
def test_wrong_input_has_exit_code_2(
    arguments: tuple[str, ...], place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command(place.folder, *arguments)) == 2
    assert "Traceback" not in capfd.readouterr().err


def many_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    small = tiny_blip.plain_picture("red")
    small.save(folder / "0.png")
    for number in range(1, count):
        (folder / f"{number}.png").hardlink_to(folder / "0.png")
    return folder


def ended_by(kind: int, arguments: list[str], is_under_way: Callable[[], bool]) -> int:
    """Start a command, signal it as soon as it is under way, and answer with its exit code."""
    process = forked.start(*arguments)
    deadline = time.monotonic() + 60
    while not is_under_way() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(kind)
    return process.wait()


def test_a_signal_between_pictures_ends_with_code_3(tmp_path: Path) -> None:
    folder = many_pictures(tmp_path / "many", 3000)
    arguments = command(folder, "--captioner", "fixed", "--prompt", "x")
    assert ended_by(signal.SIGTERM, arguments, lambda: any(folder.glob("*.txt"))) == 3
    written = captions(folder)
    assert 0 < len(written) < 3000
    assert set(written.values()) == {"x"}
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("mode", ["--overwrite", "--append", "--review"])
def test_a_killed_job_goes_on_where_it_was(mode: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = many_pictures(tmp_path / "many", 400)
    for number in range(400):
        (folder / f"{number}.txt").write_text("old", encoding="utf-8")
    arguments = command(
        folder, "--captioner", "fixed", "--prompt", "new", mode, *(["--overwrite"] * (mode == "--review"))
    )
    drafts = DraftFile.review(Workspace(tmp_path / "workspace"), folder)

    def done() -> int:
        texts = captions(folder).values()
        return len(drafts.read()) if mode == "--review" else sum(1 for text in texts if text != "old")

    assert ended_by(signal.SIGKILL, arguments, lambda: done() >= 20) == -signal.SIGKILL
    before = done()
    assert 0 < before < 400
    whole = {"old"} if mode == "--review" else {"old", "old, new" if mode == "--append" else "new"}
    assert set(captions(folder).values()) == whole

    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["kept"] in (before, before + 1)  # one may have been finished between the count and the kill
    assert answer["kept"] + answer["written"] + answer["drafted"] == 400
    assert done() == 400
    undone = EditLog.of(Workspace(tmp_path / "workspace"), folder).undo()
    assert undone.written == answer["written"]
