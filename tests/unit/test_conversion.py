"""Pictures in other sizes and formats: their pixels, colours, transparency, captions and masks."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from tests import forked
from tests.unit.dataset_samples import Recorded, cut_off, noise_picture, write_picture
from trainer.__main__ import main
from trainer.config import DatasetSettings, Source
from trainer.curation.conversion import Conversion, ConversionOptions, convert_pictures
from trainer.curation.crops import Box, write_crop
from trainer.curation.framing import Framing
from trainer.data.buckets import place
from trainer.data.folders import collect
from trainer.data.image_files import read_full, read_rgb
from trainer.data.resample import resize
from trainer.errors import UserError
from trainer.runs.store import Workspace

AS_IS = Framing()


def converted(folder: Path, out: Path, framing: Framing = AS_IS, **options: Any) -> Conversion:
    boxes = options.pop("boxes", {})
    return convert_pictures(folder, out, ConversionOptions(framing, **options), boxes, Recorded())


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("crop", ["none", "centre"])
def test_a_bucket_gives_the_pixels_that_training_sees(crop: Any, tmp_path: Path) -> None:
    source = write_picture(tmp_path / "in" / "10_cat" / "a.png", 200, 130, 1, "one\ntwo")
    converted(tmp_path / "in", tmp_path / "out", Framing("bucket", 64, crop=crop))
    assert names(tmp_path / "out") == ["10_cat/a.png", "10_cat/a.txt"]
    placed = place(200, 130, DatasetSettings(resolution=64))
    pixels = resize(read_rgb(source.read_bytes()), placed.scaled_width, placed.scaled_height)
    if crop == "centre":
        pixels = pixels[placed.crop_top :][: placed.height, placed.crop_left :][:, : placed.width]
    assert np.array_equal(pixels_of(tmp_path / "out" / "10_cat" / "a.png"), np.rint(pixels).astype(np.uint8))
    [picture] = collect(DatasetSettings(sources=[Source(path=str(tmp_path / "out"))])).pictures
    assert (picture.caption, picture.repeats) == ("one\ntwo", 10)


def test_what_needs_no_change_is_copied_and_small_ones_are_not_enlarged(tmp_path: Path) -> None:
    small = write_picture(tmp_path / "in" / "small.jpg", 60, 40, 1)
    write_picture(tmp_path / "in" / "large.jpg", 200, 100, 2)
    done = converted(tmp_path / "in", tmp_path / "out", Framing("longest", 100))
    assert (tmp_path / "out" / "small.jpg").read_bytes() == small.read_bytes()
    assert size_of(tmp_path / "out" / "large.jpg") == (100, 50)
    assert (done.pictures, done.copied) == (2, 1)
    assert any("1 picture smaller than the size" in note for note in done.notes)
    done = converted(tmp_path / "in", tmp_path / "up", Framing("longest", 100, upscale=True))
    assert size_of(tmp_path / "up" / "small.jpg") == (100, 67)
    assert not any("smaller" in note for note in done.notes)


def test_formats_qualities_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_picture(folder / "a.png", 64, 48, 1, "first")
    write_picture(folder / "a.bmp", 64, 48, 2)
    (folder / "lies.png").write_bytes(write_picture(tmp_path / "x.webp", 40, 40, 3).read_bytes())
    noise_picture(30, 30, 4).save(folder / "b.jpg", quality=70)
    converted(folder, tmp_path / "jpg", format="jpg", quality=90)
    assert names(tmp_path / "jpg") == ["a-2.jpg", "a-2.txt", "a.jpg", "a.txt", "b.jpg", "lies.jpg"]
    assert (tmp_path / "jpg" / "b.jpg").read_bytes() == (folder / "b.jpg").read_bytes()
    with Image.open(tmp_path / "jpg" / "a.jpg") as image:
        assert image.format == "JPEG"
        assert image.layer[0][1:3] == (1, 1), "every pixel has its own colour"  # type: ignore[attr-defined]
    converted(folder, tmp_path / "keep")
    assert names(tmp_path / "keep") == ["a-2.png", "a-2.txt", "a.bmp", "a.txt", "b.jpg", "lies.webp"]
    converted(folder, tmp_path / "webp", format="webp", quality=100)
    assert np.array_equal(pixels_of(tmp_path / "webp" / "a-2.webp"), pixels_of(folder / "a.png"))
    small, large = (
        converted(folder, tmp_path / f"q{quality}", format="webp", quality=quality).out for quality in (10, 90)
    )
    assert (small / "a.webp").stat().st_size < (large / "a.webp").stat().st_size


def test_exif_rotation_and_what_else_a_file_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    (tmp_path / "in").mkdir()
    upright = Image.new("RGB", (40, 20), "red")
    ImageDraw.Draw(upright).rectangle((0, 0, 19, 19), fill="blue")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in" / "a.png", exif=exif)
    converted(tmp_path / "in", tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert (image.size, dict(image.getexif())) == ((40, 20), {})
        assert [image.getpixel((5, 10)), image.getpixel((35, 10))] == [(0, 0, 255), (255, 0, 0)]


def lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def wide_profile() -> bytes:
    """sRGB's profile with red and green primaries changed places: what it calls red is green."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    for entry in range(132, 132 + 12 * count, 12):
        names = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
        data[entry : entry + 4] = names.get(bytes(data[entry : entry + 4]), data[entry : entry + 4])
    return bytes(data).replace(b"s\0R\0G\0B", b"x\0R\0G\0B").replace(b"\0s\0R", b"\0x\0R")


def test_colour_profiles_are_converted_not_dropped(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    swapped, image = wide_profile(), Image.new("RGB", (8, 8), (200, 10, 10))
    image.save(tmp_path / "in" / "swapped.png", icc_profile=swapped)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "in" / "srgb.png", icc_profile=srgb)
    image.save(tmp_path / "in" / "lab.png", icc_profile=lab_profile())
    image.save(tmp_path / "in" / "damaged.png", icc_profile=b"nonsense")
    Image.new("RGBA", (8, 8), (200, 10, 10, 77)).save(tmp_path / "in" / "alpha.png", icc_profile=swapped)
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "in" / "cmyk.jpg")
    Image.new("L", (8, 8), 90).save(tmp_path / "in" / "grey.png", icc_profile=swapped)
    done = converted(tmp_path / "in", tmp_path / "out")
    colours = {path.name: tuple(pixels_of(path)[0, 0].tolist()) for path in (tmp_path / "out").glob("*.png")}
    assert np.abs(np.subtract(colours["swapped.png"], (10, 200, 10))).max() <= 3
    assert np.abs(np.subtract(colours["alpha.png"], (10, 200, 10, 77))).max() <= 3
    assert np.abs(np.subtract(colours["grey.png"], (90, 90, 90))).max() <= 3
    for name in ("srgb.png", "lab.png", "damaged.png"):
        assert colours[name] == (200, 10, 10)
    assert (tmp_path / "out" / "srgb.png").read_bytes() == (tmp_path / "in" / "srgb.png").read_bytes()
    assert pixels_of(tmp_path / "out" / "cmyk.jpg").shape == (8, 8, 3)
    assert any("2 pictures with a colour profile that cannot be used" in note for note in done.notes)
    with Image.open(tmp_path / "out" / "swapped.png") as image:
        assert "icc_profile" not in image.info


def test_transparency_is_kept_or_put_on_a_colour(tmp_path: Path) -> None:
    values = np.zeros((40, 40, 4), np.uint8)
    values[:, :20] = (250, 0, 0, 255)
    values[:, 20:] = (0, 250, 0, 0)  # a hidden green that must not bleed into the red
    (tmp_path / "in").mkdir()
    Image.fromarray(values).save(tmp_path / "in" / "a.png")
    Image.fromarray(values[..., 0]).convert("LA").save(tmp_path / "in" / "opaque.png")
    converted(tmp_path / "in", tmp_path / "kept", Framing("longest", 16))
    kept = pixels_of(tmp_path / "kept" / "a.png").astype(int)
    assert kept.shape == (16, 16, 4)
    assert kept[kept[..., 3] > 0][:, 1].max() == 0
    assert (kept[:, :8, 3] == 255).all()
    done = converted(tmp_path / "in", tmp_path / "jpg", Framing("longest", 16), format="jpg", background="#0000ff")
    red, blue = pixels_of(tmp_path / "jpg" / "a.jpg")[8, [2, 13]].astype(int)
    assert np.abs(red - (250, 0, 0)).max() < 20
    assert np.abs(blue - (0, 0, 255)).max() < 20
    assert any("transparent parts" in note for note in done.notes)
    converted(tmp_path / "in", tmp_path / "white", format="jpg")
    assert pixels_of(tmp_path / "white" / "a.jpg")[8, 30].min() > 245


def test_crops_by_hand_with_masks_cropped_alike(tmp_path: Path) -> None:
    folder, masks = tmp_path / "in", tmp_path / "masks"
    image = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(image).rectangle((100, 0, 199, 49), fill="blue")
    (folder / "sub").mkdir(parents=True)
    image.save(folder / "sub" / "a.png")
    image.save(folder / "sub" / "b.png")
    (masks / "sub").mkdir(parents=True)
    image.convert("L").resize((100, 50), Image.Resampling.NEAREST).save(masks / "sub" / "a.png")
    Image.new("L", (100, 100)).save(masks / "sub" / "b.png")
    boxes = {"sub/a.png": Box(0.5, 0, 1, 0.5), "gone.png": Box(0, 0, 1, 1)}
    done = converted(folder, tmp_path / "out", Framing("longest", 50, crop="hand"), masks=masks, boxes=boxes)
    assert names(tmp_path / "out") == ["images/sub/a.png", "images/sub/b.png", "masks/sub/a.png"]
    assert size_of(tmp_path / "out" / "images" / "sub" / "a.png") == (50, 25)
    assert (pixels_of(tmp_path / "out" / "images" / "sub" / "a.png") == (0, 0, 255)).all()
    mask = pixels_of(tmp_path / "out" / "masks" / "sub" / "a.png")
    assert mask.shape == (25, 50)
    assert (mask == 29).all()
    assert size_of(tmp_path / "out" / "images" / "sub" / "b.png") == (50, 25)
    assert done.skipped == [("sub/b.png", "its mask was left out: its sides are not in the picture's proportion")]
    assert any("1 picture without a crop box" in note for note in done.notes)


def test_only_the_named_pictures_are_written(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_picture(tmp_path / "in" / f"{name}.png")
    assert converted(tmp_path / "in", tmp_path / "out", names=["c.png", "a.png"]).pictures == 2
    assert names(tmp_path / "out") == ["a.png", "c.png"]


def test_the_smart_crop_keeps_an_off_centre_subject(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = Image.new("RGB", (300, 100), "grey")
    ImageDraw.Draw(image).circle((260, 50), 20, fill="red")
    image.save(tmp_path / "in" / "a.png")
    for crop, holds in (("smart", True), ("centre", False)):
        converted(tmp_path / "in", tmp_path / crop, Framing("exact", 50, 50, crop))
        assert bool((pixels_of(tmp_path / crop / "a.png") == (255, 0, 0)).all(axis=2).any()) is holds


def test_broken_pictures_are_left_out_and_told(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "good.png")
    damaged = write_picture(tmp_path / "in" / "damaged.png", seed=1)
    data = bytearray(damaged.read_bytes())
    data[200:260] = bytes(60)
    damaged.write_bytes(bytes(data))
    cut_off(write_picture(tmp_path / "in" / "cut.png", seed=2))
    done = converted(tmp_path / "in", tmp_path / "out", Framing("longest", 32))
    assert names(tmp_path / "out") == ["good.png"]
    assert sorted(name for name, _ in done.skipped) == ["cut.png", "damaged.png"]


def test_16_bit_grey_and_palettes(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x8080, np.uint16)).save(tmp_path / "deep.png")
    full = read_full((tmp_path / "deep.png").read_bytes())
    assert (full.image.getpixel((0, 0)), full.as_stored) == ((128, 128, 128), False)
    noise_picture(8, 8).quantize(4).save(tmp_path / "palette.png", transparency=0)
    assert read_full((tmp_path / "palette.png").read_bytes()).image.mode == "RGBA"


def test_what_cannot_be_is_told_all_at_once(tmp_path: Path) -> None:
    folder = write_picture(tmp_path / "in" / "a.png").parent
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        converted(folder, folder / "out", Framing("longest", 1, crop="hand"), quality=0, background="no colour")
    assert [problem.code for problem in caught.value.problems] == [
        "pictures.size", "pictures.quality", "pictures.background", "out.input", "pictures.no_boxes"
    ]  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_and_a_kill_in_the_middle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Killed: nothing under the name that was asked for. Run again: all of it, and no rest of the first."""
    folder, workspace = tmp_path / "in", Workspace(tmp_path / "workspace")
    for number in range(60):
        write_picture(folder / f"{number}.png", 600, 500, number % 3, "a caption")
    write_crop(workspace, folder, "0.png", Box(0, 0, 0.5, 0.5))
    out = tmp_path / "parent" / "out"
    options = ["--crop", "hand", "--exact", "64x64", "--format", "webp", "--json", f"--workspace={workspace.dir}"]
    command = ["pictures", str(folder), "--out", str(out), *options]
    process = forked.start(*command)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("parent/.out.*.tmp/*.webp")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert len(names(folder)) == 120
    assert main(command) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["pictures"], answer["captions"], answer["skipped"]) == (60, 60, [])
    assert len(names(out)) == 120
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "0.webp").read_bytes() != (out / "3.webp").read_bytes(), "the same picture, but with a box"
    assert main(command) == 2
    assert json.loads(capfd.readouterr().out)["error"][0]["code"] == "out.exists"
