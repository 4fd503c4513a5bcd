"""The dataset doctor: every kind of trouble is found by name, and none of them stops it."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from trainer.__main__ import main
from trainer.curation import similar
from trainer.curation.doctor import Finding, Report, examine
from trainer.errors import UserError


class Recorder:
    """Keeps what was told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        self.events.append({"type": kind, **fields})


def picture(seed: int, width: int = 96, height: int = 80, mode: str = "RGB") -> Image.Image:
    """A sharp square on smooth colours, unlike the pictures of other seeds."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC)
    side = min(width, height) // 2
    left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
    image.paste(tuple(int(value) for value in rng.integers(0, 256, 3)), (left, top, left + side, top + side))
    return image.convert(mode)


def save(path: Path, seed: int, caption: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, **options).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def look(folder: Path, resolution: int = 128) -> Report:
    return examine(folder, resolution, Recorder())


def found(report: Report, code: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.code == code]


def test_a_clean_folder_has_no_findings(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / "sub" / f"{number}.png", number, f"picture, number {number}")
    recorder = Recorder()
    report = examine(tmp_path, 128, recorder)
    assert report.findings == []
    assert (report.pictures, report.captions) == (4, 4)
    assert report.tags[0] == ("picture", 4)
    assert recorder.events[-1] == {"type": "progress", "what": "looking at pictures", "done": 4, "total": 4}


def truncated_jpeg(path: Path) -> None:
    save(path.with_suffix(".jpg"), 1, width=400, height=400)
    data = path.with_suffix(".jpg").read_bytes()
    path.with_suffix(".jpg").write_bytes(data[: len(data) // 2])


def truncated_png(path: Path) -> None:
    data = save(path.with_suffix(".png"), 1, width=300, height=300).read_bytes()
    path.with_suffix(".png").write_bytes(data[: len(data) // 2])


def damaged_png(path: Path) -> None:
    """Header and end are whole, the pixels between are not: only decoding shows it."""
    data = bytearray(save(path.with_suffix(".png"), 1, width=300, height=300).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.with_suffix(".png").write_bytes(bytes(data))


def not_a_picture(path: Path) -> None:
    path.with_suffix(".png").write_text("<html>404</html>")


def empty_file(path: Path) -> None:
    path.with_suffix(".png").write_bytes(b"")


def bomb(path: Path) -> None:
    """A PNG whose header claims 40,000 x 40,000 pixels."""
    data = bytearray(save(path.with_suffix(".png"), 1).read_bytes())
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    path.with_suffix(".png").write_bytes(bytes(data))


def nearly_nothing_left(path: Path) -> None:
    data = save(path.with_suffix(".png"), 1, width=300, height=300).read_bytes()
    path.with_suffix(".png").write_bytes(data[: len(data) // 8])


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (truncated_jpeg, "picture.truncated"),
        (truncated_png, "picture.truncated"),
        (damaged_png, "picture.truncated"),
        (nearly_nothing_left, "picture.unreadable"),
        (not_a_picture, "picture.unreadable"),
        (empty_file, "picture.unreadable"),
        (bomb, "picture.unreadable"),
    ],
)
def test_a_broken_picture_is_named_and_the_rest_is_looked_at(
    break_it: Callable[[Path], None], code: str, tmp_path: Path
) -> None:
    save(tmp_path / "good.png", 7, "good")
    break_it(tmp_path / "bad")
    report = look(tmp_path)
    (finding,) = found(report, code)
    assert (finding.severity, [Path(path).stem for path in finding.paths]) == ("error", ["bad"])
    assert report.pictures == 2
    assert report.findings[0] is finding


def test_a_folder_of_only_broken_pictures_is_a_report_too(tmp_path: Path) -> None:
    not_a_picture(tmp_path / "a")
    not_a_picture(tmp_path / "b")
    (finding,) = look(tmp_path).findings
    assert finding.paths == ("a.png", "b.png")


def test_shape_and_format(tmp_path: Path) -> None:
    save(tmp_path / "tiny.png", 1, "1", width=63, height=200)
    save(tmp_path / "long.png", 2, "2", width=330, height=100)
    save(tmp_path / "cmyk.jpg", 3, "3", mode="CMYK")
    picture(4).save(tmp_path / "lying.png", "JPEG")
    picture(5).save(tmp_path / "moving.webp", save_all=True, append_images=[picture(6)])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(8).save(tmp_path / "turned.jpg", exif=exif)
    clear = picture(9).convert("RGBA")
    clear.putpixel((3, 3), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    picture(10).convert("RGBA").save(tmp_path / "opaque.png")
    codes = {(finding.code, path) for finding in look(tmp_path).findings for path in finding.paths}
    assert {entry for entry in codes if entry[0].startswith("picture.")} == {
        ("picture.tiny", "tiny.png"),
        ("picture.extreme_aspect", "tiny.png"),
        ("picture.extreme_aspect", "long.png"),
        ("picture.cmyk", "cmyk.jpg"),
        ("picture.wrong_extension", "lying.png"),
        ("picture.animated", "moving.webp"),
        ("picture.rotated", "turned.jpg"),
        ("picture.transparent", "clear.png"),
    }


def test_duplicates(tmp_path: Path) -> None:
    original = save(tmp_path / "a.png", 1, "1", width=256, height=256)
    (tmp_path / "b.png").write_bytes(original.read_bytes())
    picture(1, 256, 256).save(tmp_path / "c.jpg", quality=60)
    picture(1, 256, 256).resize((180, 180)).save(tmp_path / "d.webp")
    save(tmp_path / "e.png", 2, "2")
    report = look(tmp_path)
    (exact,) = found(report, "picture.duplicate")
    (near,) = found(report, "picture.near_duplicate")
    assert (exact.paths, exact.keep, exact.targets) == (("a.png", "b.png"), "a.png", ("b.png",))
    assert (near.paths, near.keep) == (("a.png", "c.jpg", "d.webp"), "a.png")


def test_captions(tmp_path: Path) -> None:
    save(tmp_path / "none.png", 1)
    save(tmp_path / "empty.png", 2, " \n")
    save(tmp_path / "same1.png", 3, "a dog")
    save(tmp_path / "same2.png", 4, "a dog\n")
    save(tmp_path / "long.png", 5, "word " * 76)
    save(tmp_path / "old.png", 6)
    (tmp_path / "old.txt").write_bytes("größe".encode("latin-1"))
    save(tmp_path / "pair.png", 7, "two of a name")
    save(tmp_path / "pair.jpg", 8)
    (tmp_path / "lonely.txt").write_text("nobody", encoding="utf-8")
    report = look(tmp_path)
    codes = {(finding.code, finding.paths) for finding in report.findings}
    assert codes == {
        ("caption.missing", ("none.png",)),
        ("caption.empty", ("empty.png",)),
        ("caption.identical", ("same1.png", "same2.png")),
        ("caption.identical", ("pair.jpg", "pair.png")),
        ("caption.long", ("long.png",)),
        ("caption.encoding", ("old.png",)),
        ("caption.shared", ("pair.jpg", "pair.png")),
        ("caption.no_picture", ("lonely.txt",)),
    }
    assert dict(report.tags)["a dog"] == 2


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist") as missing:
        look(tmp_path / "nowhere")
    assert missing.value.problems[0].code == "dataset.missing_folder"
    with pytest.raises(UserError) as empty:
        look(tmp_path)
    assert empty.value.problems[0].code == "dataset.no_pictures"


def test_copies_are_alike_and_others_are_not() -> None:
    """Recompressed, resized, brightened and mirrored copies match; random pictures among each other do not."""
    rng = random.Random(3)
    pictures = [picture(seed, 128, 128) for seed in range(40)]
    buffer = io.BytesIO()
    pictures[5].save(buffer, "JPEG", quality=rng.randint(50, 60))
    copies: list[Image.Image] = [Image.open(buffer), pictures[6].resize((90, 90))]
    copies += [ImageEnhance.Brightness(pictures[7]).enhance(1.08)]
    copies.append(ImageOps.mirror(pictures[8]))
    plain = [Image.new("RGB", (64, 64), (200, 10, 10)), Image.new("RGB", (64, 64), (201, 10, 10))]
    prints = [similar.fingerprint(image) for image in [*pictures, *copies, *plain]]
    assert similar.alike(prints) == [[5, 40], [6, 41], [7, 42], [8, 43]]
    assert similar.alike(prints[:1]) == []


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "good.png", 1, "a cat")
    not_a_picture(tmp_path / "bad")
    command = ["dataset", str(tmp_path), "--resolution", "128", f"--workspace={tmp_path / 'workspace'}"]
    assert main([*command, "--json"]) == 0
    answer = capfd.readouterr()
    report = json.loads(answer.out)
    assert report["findings"][0]["code"] == "picture.unreadable"
    assert set(report["findings"][0]) >= {"code", "severity", "paths", "message", "hint"}
    assert "looking at pictures" in answer.err
    assert main(command) == 0
    text = capfd.readouterr().out
    assert "2 pictures, 1 with a caption" in text
    assert "bad.png" in text
    assert main(["dataset", str(tmp_path / "no")]) == 2
    assert "Traceback" not in capfd.readouterr().err
