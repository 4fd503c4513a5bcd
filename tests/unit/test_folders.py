"""Finding pictures and captions in the layouts people have."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.dataset_samples import cut_off, noise_picture, write_picture
from trainer.config import DatasetSettings
from trainer.data.folders import Collection, collect
from trainer.data.image_files import READS_AVIF, read_alpha, read_full, read_rgb
from trainer.errors import UserError


def collected(*sources: Path | dict[str, object], **settings: object) -> Collection:
    given = [{"path": str(source)} if isinstance(source, Path) else source for source in sources]
    return collect(DatasetSettings.model_validate({"sources": given, **settings}))


def captions(collection: Collection) -> dict[str, str]:
    return {picture.path.name: picture.caption for picture in collection.pictures}


def test_every_kind_of_picture_is_found_in_subfolders_too(tmp_path: Path) -> None:
    kinds = ["png", "jpg", "jpeg", "webp", "bmp", "PNG"] + (["avif"] if READS_AVIF else [])
    for kind in kinds:
        write_picture(tmp_path / kind / "deep" / f"picture.{kind}", 40, 30)
    write_picture(tmp_path / ".hidden" / "a.png")
    write_picture(tmp_path / "._a.png")
    (tmp_path / "notes.md").write_text("no picture")
    found = collected(tmp_path)
    assert sorted(picture.path.suffix[1:] for picture in found.pictures) == sorted(kinds)
    assert all((picture.width, picture.height) == (40, 30) for picture in found.pictures)
    assert not found.skipped


def test_repeats_and_class_prompts_come_from_folder_names(tmp_path: Path) -> None:
    write_picture(tmp_path / "10_sks dog" / "a.png")
    write_picture(tmp_path / "10_sks dog" / "b.png", caption="own words")
    write_picture(tmp_path / "3_cat" / "deeper" / "c.png")
    write_picture(tmp_path / "plain" / "d.png")
    write_picture(tmp_path / "0_unused" / "e.png")
    found = collected({"path": str(tmp_path), "repeats": 2})
    assert {picture.path.name: picture.repeats for picture in found.pictures} == {
        "a.png": 20, "b.png": 20, "c.png": 6, "d.png": 2,
    }  # fmt: skip
    assert captions(found) == {"a.png": "sks dog", "b.png": "own words", "c.png": "cat", "d.png": ""}
    assert [picture.path.name for picture in found.pictures if not picture.has_caption] == ["d.png"]
    assert [(each.path.name, each.reason) for each in found.skipped] == [
        ("e.png", "its folder's name asks for 0 repeats")
    ]


def test_the_class_prompt_of_the_settings_wins_over_the_folders_name(tmp_path: Path) -> None:
    write_picture(tmp_path / "5_dog" / "a.png")
    assert captions(collected({"path": str(tmp_path), "class_prompt": "a photo"})) == {"a.png": "a photo"}


def test_caption_files_keep_every_line_and_come_first(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", caption="one\ntwo\n")
    write_picture(tmp_path / "b.png")
    (tmp_path / "b.caption").write_text("from .caption", encoding="utf-8")
    write_picture(tmp_path / "c.png", caption="\ufeffmarked")
    write_picture(tmp_path / "d.png", caption="")
    (tmp_path / "metadata.jsonl").write_text(
        "\n".join(json.dumps({"file_name": name, "text": "table"}) for name in ("a.png", "e.png")), encoding="utf-8"
    )
    write_picture(tmp_path / "e.png")
    found = collected({"path": str(tmp_path), "class_prompt": "class"})
    assert captions(found) == {
        "a.png": "one\ntwo", "b.png": "from .caption", "c.png": "marked", "d.png": "", "e.png": "table",
    }  # fmt: skip
    paths = {picture.path.name: picture.caption_path for picture in found.pictures}
    assert paths["a.png"] == tmp_path / "a.txt" and paths["b.png"] == tmp_path / "b.caption" and paths["e.png"] is None


def test_another_caption_ending(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", caption="txt")
    (tmp_path / "a.tags").write_text("tags")
    assert captions(collected(tmp_path, caption_extension=".tags")) == {"a.png": "tags"}


def test_diffusers_tables(tmp_path: Path) -> None:
    write_picture(tmp_path / "train" / "sub" / "a.png")
    write_picture(tmp_path / "train" / "b.png")
    rows = [{"file_name": "sub/a.png", "text": "first"}, {"file_name": "b.png", "caption": "second"}]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_picture(tmp_path / "more" / "c.png")
    (tmp_path / "more" / "metadata.csv").write_text('file_name,text\nc.png,"third, with a comma"\n')
    assert captions(collected(tmp_path)) == {"a.png": "first", "b.png": "second", "c.png": "third, with a comma"}


def test_kohya_metadata_by_path_and_by_stem(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_picture(tmp_path / name)
    table = {str(tmp_path / "a.png"): {"caption": "a dog", "tags": "dog, grass"}, "b": {"tags": "cat"}, "c.png": {}}
    (tmp_path / "meta_cap.json").write_text(json.dumps(table))
    assert captions(collected(tmp_path)) == {"a.png": "a dog, dog, grass", "b.png": "cat", "c.png": ""}


def test_a_named_column_holds_the_captions(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        write_picture(tmp_path / name)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "no", "long": "yes a"}')
    (tmp_path / "metadata.csv").write_text("file_name,text,long\nb.png,no,yes b\n")
    (tmp_path / "meta_cap.json").write_text(json.dumps({"c": {"caption": "no", "long": "yes c"}, "d": {"tags": "no"}}))
    found = collected({"path": str(tmp_path), "caption_column": "long"})
    assert captions(found) == {"a.png": "yes a", "b.png": "yes b", "c.png": "yes c", "d.png": ""}
    wrong = collected({"path": str(tmp_path), "caption_column": "lang"})
    assert (
        len(wrong.warnings) == 2 and "no column 'lang', only 'file_name', 'text', 'long'" in wrong.warnings[0].message
    )


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_table_that_lies_elsewhere(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "pictures"
    for name in ("a.png", "sub/b.png", "c.v2.png"):
        write_picture(folder / name)
    rows = {"a.png": "one", "sub/b.png": "two", str(folder / "c.v2.png"): "three"}
    table = tmp_path / f"my captions.{kind}"
    if kind == "json":
        short = {"a": {"caption": "one"}, "sub/b": {"tags": "two"}, "/old/place/c.v2": {"caption": "three"}}
        table.write_text(json.dumps(short))
    elif kind == "jsonl":
        table.write_text("\n".join(json.dumps({"file_name": name, "text": text}) for name, text in rows.items()))
    else:
        table.write_text("file_name,text\n" + "\n".join(f"{name},{text}" for name, text in rows.items()))
    found = collected({"path": str(folder), "metadata_file": str(table)})
    assert captions(found) == {"a.png": "one", "b.png": "two", "c.v2.png": "three"}


def test_a_missing_table_is_told_with_its_field(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    with pytest.raises(UserError) as caught:
        collected({"path": str(tmp_path), "metadata_file": str(tmp_path / "no.json")})
    assert caught.value.problems[0].field == "dataset.sources.0.metadata_file"


def test_a_broken_table_is_a_warning(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "kept"}\n{broken')
    found = collected(tmp_path)
    assert captions(found) == {"a.png": "kept"}
    [warning] = found.warnings
    assert (
        warning.code == "dataset.caption_table" and "line 2" in warning.message and "metadata.jsonl" in warning.message
    )


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp"])
def test_a_picture_cut_off_is_named_and_skipped(tmp_path: Path, kind: str) -> None:
    write_picture(tmp_path / f"good.{kind}", 200, 150)
    cut_off(write_picture(tmp_path / f"bad.{kind}", 200, 150))
    found = collected(tmp_path)
    assert [picture.path.name for picture in found.pictures] == [f"good.{kind}"]
    [skipped] = found.skipped
    assert skipped.path.name == f"bad.{kind}" and skipped.reason and str(tmp_path) not in skipped.reason


def test_other_files_that_are_no_pictures_are_skipped(tmp_path: Path) -> None:
    write_picture(tmp_path / "good.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    header_only = b"\x89PNG\r\n\x1a\n" + bytes(20)
    (tmp_path / "zero.png").write_bytes(header_only)
    found = collected(tmp_path)
    assert {each.path.name for each in found.skipped} == {"empty.png", "text.jpg", "zero.png"}
    assert len(found.pictures) == 1


def test_a_decompression_bomb_is_skipped_without_being_unpacked(tmp_path: Path) -> None:
    write_picture(tmp_path / "good.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    begun = time.process_time()
    found = collected(tmp_path)
    assert [each.path.name for each in found.skipped] == ["bomb.png"] and "million pixels" in found.skipped[0].reason
    assert time.process_time() - begun < 1


def test_trailing_bytes_behind_a_whole_picture_do_no_harm(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "phone.jpg", 60, 40)
    path.write_bytes(path.read_bytes() + bytes(500))
    assert len(collected(tmp_path).pictures) == 1


def test_missing_and_empty_folders_are_told_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cut_off(write_picture(tmp_path / "broken" / "a.png", 100, 100))
    file = write_picture(tmp_path / "a.png")
    with pytest.raises(UserError) as caught:
        collected(tmp_path / "nowhere", tmp_path / "empty", tmp_path / "broken", file)
    problems = caught.value.problems
    assert [problem.code for problem in problems] == [
        "dataset.missing_folder", "dataset.no_pictures", "dataset.no_pictures", "dataset.missing_folder",
    ]  # fmt: skip
    assert [problem.field for problem in problems] == [f"dataset.sources.{number}.path" for number in range(4)]
    assert "a.png" in problems[2].message
    with pytest.raises(UserError) as caught:
        collected()
    assert caught.value.problems[0].code == "dataset.no_sources"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_exif_orientation_turns_size_and_pixels(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = Image.new("RGB", (60, 40), "blue")
    upright.paste("red", (0, 0, 20, 20))  # a mark in the top left corner
    back = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = upright if back is None else upright.transpose(back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{kind}", exif=exif, quality=95)
    [picture] = collected(tmp_path).pictures
    assert (picture.width, picture.height) == (60, 40)
    shown = read_rgb(picture.path.read_bytes())
    assert shown.size == (60, 40)
    red, blue = shown.getpixel((8, 8)), shown.getpixel((50, 30))
    assert red[0] > 200 > 60 > red[2] and blue[2] > 200 > 60 > blue[0]


def test_pictures_of_every_colour_mode_become_rgb(tmp_path: Path) -> None:
    grey16 = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    grey16.save(tmp_path / "grey16.png")
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    half.save(tmp_path / "half.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "palette_clear.png", transparency=1)
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    found = {picture.path.name: read_rgb(picture.path.read_bytes()) for picture in collected(tmp_path).pictures}
    pixels = {name: image.getpixel((4, 4)) for name, image in found.items()}
    assert pixels.pop("cmyk.jpg")[0] > 240
    assert pixels == {
        "grey16.png": (128, 128, 128), "clear.png": (255, 255, 255), "half.png": (255, 127, 127),
        "palette.png": (0, 255, 0), "palette_clear.png": (255, 255, 255), "grey.png": (77, 77, 77),
        "bits.png": (255, 255, 255),
    }  # fmt: skip
    assert all(image.mode == "RGB" for image in found.values())


def test_order_and_keys_do_not_depend_on_where_the_dataset_lies(tmp_path: Path) -> None:
    keys = []
    for place in ("here", "there"):
        for name in ("b.png", "a.png", "5_x/c.png"):
            write_picture(tmp_path / place / name)
        keys.append([picture.key for picture in collected(tmp_path / place).pictures])
    assert keys[0] == keys[1] == ["0/5_x/c.png", "0/a.png", "0/b.png"]


def test_a_thousand_pictures_take_a_second(tmp_path: Path) -> None:
    noise_picture(1024, 768).save(tmp_path / "0.png", compress_level=1)
    for number in range(1, 1000):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "0.png")
    begun = time.process_time()
    assert len(collected(tmp_path).pictures) == 1000
    assert time.process_time() - begun < 2  # decoding them all would take twenty times as long


def test_a_picture_without_its_table_of_colours_is_damaged() -> None:
    buffer = io.BytesIO()
    Image.new("P", (9, 7), 3).save(buffer, "PNG")
    data = buffer.getvalue()
    begin = data.index(b"PLTE") - 4
    without = data[:begin] + data[begin + 12 + int.from_bytes(data[begin : begin + 4], "big") :]
    for read in (read_rgb, read_full, read_alpha):
        with pytest.raises(ValueError, match="table of colours"):
            read(without)
