"""Each fix on real files: it mends what the doctor found, and Undo brings every byte back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_samples import Recorded, cut_off, noise_picture
from doctor_samples import linear_profile, sharp, write, write_mask
from PIL import Image

from tests import forked
from trainer.curation.doctor import Finding, examine
from trainer.curation.edit_log import EditLog
from trainer.curation.fixes.offers import BACKGROUNDS, CAPTION, FIXES, OFFERS, SAFE
from trainer.curation.fixes.orders import carry_out_order, order_of, safe_order
from trainer.curation.fixes.pixels import LONGEST_PX
from trainer.data.image_files import read_rgb
from trainer.errors import UserError
from trainer.runs.store import Workspace

RESOLUTION = 64


def see_through(folder: Path) -> None:
    image = sharp(3).convert("RGBA")
    image.paste((10, 20, 30, 0), (0, 0, 40, 80))
    write(folder, "x.png", image)


def letterboxed(folder: Path) -> None:
    image = Image.new("RGB", (96, 120))
    image.paste(sharp(4), (0, 20))
    write(folder, "x.png", image)
    write_mask(folder, "x.png", Image.new("L", (48, 60), 200))


def turned(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write(folder, "x.jpg", sharp(6), exif=exif)


def truncated(folder: Path) -> None:
    write(folder, "x.png", noise_picture(96, 80, 7))
    write_mask(folder, "x.png", Image.new("L", (96, 80), 200))
    cut_off(folder / "x.png", 0.6)


def duplicate(folder: Path) -> None:
    write(folder, "x.png", sharp(1))
    write(folder, "twin.png", sharp(1))
    (folder / "twin.txt").write_text("another caption", encoding="utf-8")


def shared(folder: Path) -> None:
    write(folder, "x.png", sharp(8))
    write(folder, "x.jpg", sharp(9))
    write_mask(folder, "x.png", Image.new("L", (96, 80), 255))


def latin(folder: Path) -> None:
    write(folder, "x.png", sharp(10))
    (folder / "x.txt").write_bytes("größe\r\nzwei".encode("latin-1"))


def lonely_mask(folder: Path) -> None:
    write_mask(folder, "gone.png", Image.new("L", (96, 80), 255))


def spelt_oddly(folder: Path) -> None:
    for number in range(4):
        write(folder, f"t{number}.png", sharp(20 + number), f"number {number}, blue eyes")
    write(folder, "x.png", sharp(30), "number x, bluee eyes, blue eyes")


def without_trigger(folder: Path) -> None:
    for number in range(12):
        write(folder, f"t{number}.png", sharp(20 + number), f"ohwx, number {number}")
    write(folder, "x.png", sharp(30), "a man")


MADE: list[tuple[str, str, Callable[[Path], Any]]] = [
    ("picture.unreadable", "set_aside", lambda folder: (folder / "x.png").write_bytes(b"no picture")),
    ("picture.truncated", "save_readable", truncated),
    ("picture.truncated", "set_aside", truncated),
    ("picture.wrong_extension", "rename_ending", lambda folder: write(folder, "x.png", sharp(1), kind="JPEG")),
    (
        "picture.animated",
        "first_frame",
        lambda folder: write(folder, "x.webp", sharp(1), save_all=True, append_images=[sharp(2)], lossless=True),
    ),
    ("picture.cmyk", "to_srgb", lambda folder: write(folder, "x.jpg", sharp(1).convert("CMYK"))),
    ("picture.deep", "to_srgb", lambda folder: write(folder, "x.png", deep())),
    ("picture.profile", "to_srgb", lambda folder: write(folder, "x.png", sharp(1), icc_profile=linear_profile())),
    ("picture.transparent", "background", see_through),
    ("picture.rotated", "upright", turned),
    ("picture.tiny", "set_aside", lambda folder: write(folder, "x.png", sharp(1, 20, 40))),
    ("picture.borders", "trim", letterboxed),
    ("picture.extreme_aspect", "set_aside", lambda folder: write(folder, "x.png", sharp(1, 400, 80))),
    ("picture.duplicate", "set_aside", duplicate),
    ("picture.odd_name", "rename_plain", lambda folder: write(folder, "x .png", sharp(1))),
    ("picture.odd_name", "rename_plain", lambda folder: write(folder, "u\u0308.png", sharp(1))),
    ("caption.encoding", "to_utf8", latin),
    ("caption.no_picture", "set_aside", lambda folder: (folder / "x.txt").write_text("nobody", encoding="utf-8")),
    ("caption.shared", "separate", shared),
    ("caption.trigger_missing", "add_trigger", without_trigger),
    ("tag.spelling", "merge_tag", spelt_oddly),
    ("tag.spelling", "remove_tag", spelt_oddly),
    ("mask.no_picture", "set_aside", lonely_mask),
    ("mask.empty", "set_aside", lambda folder: write_mask(folder, "good0.png", Image.new("L", (96, 80)))),
    ("mask.shape", "set_aside", lambda folder: write_mask(folder, "good0.png", Image.new("L", (80, 96), 255))),
]


def deep() -> Image.Image:
    return Image.fromarray(np.asarray(sharp(5).convert("L"), dtype=np.uint16) * 257)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    for number in range(2):
        write(folder, f"good{number}.png", sharp(100 + number))
    return folder


@pytest.fixture
def log(tmp_path: Path, folder: Path) -> EditLog:
    return EditLog.of(Workspace(tmp_path / "workspace"), folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything but what is set aside, or made and not in place."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith((".atelier/aside", ".atelier/new"))}


def found(folder: Path, code: str) -> list[Finding]:
    return [finding for finding in examine(folder, RESOLUTION, Recorded()).findings if finding.code == code]


@pytest.mark.parametrize(("code", "fix", "make"), MADE, ids=[f"{code}-{fix}" for code, fix, _ in MADE])
def test_a_fix_mends_and_undo_brings_every_byte_back(
    code: str, fix: str, make: Callable[[Path], Any], folder: Path, log: EditLog
) -> None:
    assert not found(folder, code)
    make(folder)
    before = files_of(folder)
    (finding, *_) = found(folder, code)
    assert fix in finding.fixes
    order = order_of(fix, finding.targets, finding.values)
    outcome = carry_out_order(folder, order, FIXES[fix].label, log, Recorded())
    assert (outcome.fixed, outcome.left) == (list(finding.targets), [])
    assert not found(folder, code)
    mended = files_of(folder)
    assert mended != before
    log.undo()
    assert files_of(folder) == before
    assert found(folder, code) == [finding, *found(folder, code)[1:]]
    log.redo()
    assert files_of(folder) == mended


def test_every_fix_is_offered_and_tried() -> None:
    offered = {fix for fixes in OFFERS.values() for fix in fixes}
    assert offered == {*FIXES, CAPTION}
    assert {fix for _, fix, _ in MADE} == set(FIXES) - {"shrink"}  # tried below
    assert all(fix in OFFERS[code] for code, fix in SAFE)


def apply(folder: Path, log: EditLog, fix: str, names: list[str], **values: str) -> None:
    outcome = carry_out_order(folder, order_of(fix, names, values), fix, log, Recorded())
    assert outcome.left == []


def test_captions_and_masks_go_along(folder: Path, log: EditLog) -> None:
    write(folder, "sub/x.png", sharp(1), kind="JPEG")
    write(folder, "sub/x.jpg", sharp(2))
    (folder / "sub" / "x.caption").write_text("other", encoding="utf-8")
    write_mask(folder, "sub/x.png", Image.new("L", (96, 80), 255))
    apply(folder, log, "separate", ["sub/x.jpg", "sub/x.png"])
    assert (folder / "sub" / "x_png.txt").read_text(encoding="utf-8") == "the sub/x one"
    assert (folder / "sub" / "x_png.caption").read_text(encoding="utf-8") == "other"
    assert (folder / ".atelier" / "masks" / "sub" / "x_png.png").is_file()
    apply(folder, log, "rename_ending", ["sub/x_png.png"])
    assert (folder / "sub" / "x_png.jpg").is_file()
    apply(folder, log, "set_aside", ["sub/x_png.jpg"])
    assert {name for name in files_of(folder) if name.startswith("sub/")} == {"sub/x.jpg", "sub/x.txt", "sub/x.caption"}
    assert (folder / ".atelier" / "masks" / "sub" / "x.png").is_file()


def test_a_taken_name_is_not_overwritten(folder: Path, log: EditLog) -> None:
    write(folder, "x.png", sharp(1), kind="JPEG")
    write(folder, "x.jpg", sharp(2))
    kept = (folder / "x.jpg").read_bytes()
    apply(folder, log, "rename_ending", ["x.png"])
    assert (folder / "x.jpg").read_bytes() == kept
    assert (folder / "x_2.jpg").is_file()


def test_pixels_of_a_fixed_picture(folder: Path, log: EditLog) -> None:
    """What comes out is what the trainer reads of the original, or what an independent conversion gives."""
    turned(folder)
    seen = np.asarray(read_rgb((folder / "x.jpg").read_bytes()), dtype=int)
    apply(folder, log, "upright", ["x.jpg"])
    with Image.open(folder / "x.jpg") as image:
        assert (image.size, image.getexif().get(0x0112)) == ((80, 96), None)
        assert np.abs(np.asarray(image, dtype=int) - seen).mean() < 2
        assert image.layer[0][1:3] == image.layer[1][1:3]  # 4:4:4: all components in full size
    letterboxed(folder)
    apply(folder, log, "trim", ["x.png"])
    with Image.open(folder / "x.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(sharp(4)))
    with Image.open(folder / ".atelier" / "masks" / "x.png") as mask:
        assert mask.size == (48, 40)


def test_backgrounds(folder: Path, log: EditLog) -> None:
    colours = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}
    for name in BACKGROUNDS:
        see_through(folder)
        apply(folder, log, "background", ["x.png"], background=name)
        with Image.open(folder / "x.png") as image:
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image)[:, 40:], np.asarray(sharp(3))[:, 40:])
            if name in colours:
                assert image.getpixel((5, 5)) == colours[name]
            else:
                around = np.asarray(sharp(3), dtype=float)[:, 40:].mean((0, 1))
                assert np.abs(np.asarray(image, dtype=float)[:, :40].mean((0, 1)) - around).max() < 40
    with pytest.raises(UserError, match="allowed are white"):
        apply(folder, log, "background", ["x.png"], background="pink")


def test_linear_light_becomes_srgb(folder: Path, log: EditLog) -> None:
    """Half of the light is 188 of 255 in sRGB (IEC 61966-2-1: 1.055 * 0.5 ** (1 / 2.4) - 0.055)."""
    write(folder, "x.png", Image.new("RGB", (96, 80), (128, 128, 128)), icc_profile=linear_profile())
    apply(folder, log, "to_srgb", ["x.png"])
    with Image.open(folder / "x.png") as image:
        assert abs(image.getpixel((0, 0))[0] - 188) <= 1
        assert "icc_profile" not in image.info


def test_sixteen_bits_are_scaled(folder: Path, log: EditLog) -> None:
    write(folder, "x.png", deep())
    apply(folder, log, "to_srgb", ["x.png"])
    with Image.open(folder / "x.png") as image:
        assert np.array_equal(np.asarray(image.convert("L")), np.asarray(sharp(5).convert("L")))


def test_huge_pictures_are_shrunk(folder: Path, log: EditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "x.png", Image.new("P", (LONGEST_PX + 904, 10)))
    monkeypatch.setattr("trainer.curation.doctor.pictures.MAX_PREVIEW_PIXELS", 40_960)
    (finding,) = found(folder, "picture.huge")
    apply(folder, log, "shrink", list(finding.targets))
    with Image.open(folder / "x.png") as image:
        assert image.size == (LONGEST_PX, 8)
    assert not found(folder, "picture.huge")


def test_all_safe_fixes_in_one_go(folder: Path, log: EditLog) -> None:
    """A picture with several faults is made anew once; one Undo takes all of it back."""
    write(folder, "x.png", sharp(1).convert("CMYK"), kind="JPEG")
    (folder / "x.txt").write_bytes("größe".encode("latin-1"))
    write(folder, "a .jpg", sharp(2).convert("CMYK"))
    (folder / "bad.png").write_bytes(b"no")
    (folder / "twin.png").write_bytes((folder / "good0.png").read_bytes())
    before = files_of(folder)
    findings = examine(folder, RESOLUTION, Recorded()).findings
    outcome = carry_out_order(folder, safe_order(findings), "safe", log, Recorded())
    assert outcome.left == []
    left = {
        (finding.code, fix) for finding in examine(folder, RESOLUTION, Recorded()).findings for fix in finding.fixes
    }
    assert not left & SAFE - {("caption.encoding", "to_utf8"), ("picture.odd_name", "rename_plain")}
    log.undo()
    assert files_of(folder) == before


def test_what_cannot_be_fixed_is_told_and_left(folder: Path, log: EditLog, tmp_path: Path) -> None:
    secret = write(tmp_path / "outside", "secret.png", sharp(1))
    (folder / "broken.png").write_bytes(b"no")
    names = ["gone.png", "broken.png", "../outside/secret.png", "good0.png"]
    outcome = carry_out_order(folder, order_of("upright", names, {}), "turn", log, Recorded())
    assert [name for name, _ in outcome.left] == names[:3]
    assert outcome.fixed == ["good0.png"]
    assert secret.is_file()
    with pytest.raises(UserError, match="there is no 'nonsense'"):
        order_of("nonsense", [], {})


def test_a_killed_job_leaves_whole_files_and_can_be_undone(folder: Path, log: EditLog, tmp_path: Path) -> None:
    """SIGKILL in the middle of a real job: every picture is the old or the new one, and Undo brings all back."""
    for number in range(60):
        write(folder, f"c{number:02}.jpg", sharp(number, 300, 300).convert("CMYK"))
    before = files_of(folder)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(name for name in before if name.endswith(".jpg")), encoding="utf-8")
    options = ["--fix=to_srgb", f"--names={names}", f"--workspace={tmp_path / 'workspace'}"]
    process = forked.start("fix", str(folder), *options)
    deadline = time.monotonic() + 60
    while len(list((folder / ".atelier").glob("aside/*/*"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    modes = []
    for path in folder.glob("c*.jpg"):
        with Image.open(path) as image:
            image.load()
            modes.append(image.mode)
    assert len(modes) in (59, 60)  # between the two renames of one picture it is in neither place, and Undo mends that
    assert {"RGB", "CMYK"} == set(modes)
    assert not list(folder.glob("*.tmp"))
    log.undo()
    assert files_of(folder) == before
