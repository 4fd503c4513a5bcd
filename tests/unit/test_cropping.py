"""A picture cropped in place keeps its format; Undo brings every byte back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.dataset_samples import noise_picture
from trainer.curation.cropping import crop_in_place
from trainer.curation.crops import Box
from trainer.curation.edit_log import EditLog
from trainer.curation.mask_files import mask_name
from trainer.errors import UserError

QUARTER = Box(0.5, 0.0, 1.0, 0.5)


@pytest.mark.parametrize("name", ["sub/a.png", "a.jpg", "a.webp", "a.bmp"])
def test_the_box_is_cut_out_upright_and_undone(tmp_path: Path, name: str) -> None:
    upright = noise_picture(10, 6).resize((400, 240))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    mask = noise_picture(400, 240, 1).convert("L")
    (tmp_path / mask_name(name)).parent.mkdir(parents=True)
    mask.save(tmp_path / mask_name(name))
    before, kind = path.read_bytes(), Image.open(path).format
    log = EditLog(tmp_path / "log", tmp_path)
    outcome = log.apply("crop", crop_in_place(tmp_path, name, QUARTER))
    assert outcome.written == 2 and outcome.conflicts == ()
    with Image.open(path) as cropped:
        assert cropped.format == kind and cropped.getexif().get(0x0112, 1) == 1
        turned = name.endswith(".bmp")  # its files know no rotation: what is stored is what is seen
        seen = upright.transpose(Image.Transpose.ROTATE_90) if turned else upright
        wanted = seen.crop(QUARTER.pixels(*seen.size))
        difference = np.abs(np.asarray(cropped.convert("RGB"), float) - np.asarray(wanted, float))
        assert cropped.size == wanted.size and difference.mean() < (8 if kind in ("JPEG", "WEBP") else 1e-9)
    assert Image.open(tmp_path / mask_name(name)).size == (200, 120)
    log.undo()
    assert path.read_bytes() == before
    assert np.array_equal(np.asarray(Image.open(tmp_path / mask_name(name))), np.asarray(mask))


def test_a_broken_picture_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"a\.png cannot be cropped: it is not a picture"):
        crop_in_place(tmp_path, "a.png", QUARTER)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.png"]
