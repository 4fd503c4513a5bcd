"""Letters of every script that the machine has a font for, on one line; what no font has does no harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from trainer.grids import lettering
from trainer.grids.lettering import Lettering, faces_for

RUSSIAN, BOX = "красная", "\U0010fffd"


@pytest.fixture
def a_font_of_the_system() -> Path:
    """One that has Cyrillic letters, as nearly every desktop has."""
    found = [face for face in faces_for([RUSSIAN]) if face is not None]
    if not found:
        pytest.skip("no font with Cyrillic letters on this machine")
    return found[0]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next look at the system's fonts is a new one."""
    lettering._nearest.cache_clear()


def written(letters: Lettering, text: str) -> Image.Image:
    image = Image.new("L", (200, 30), 255)
    letters.write(ImageDraw.Draw(image), (0, 0), text, "black")
    return image


def test_plain_texts_need_no_other_font() -> None:
    assert faces_for(["a red star, 512x768", "Seed", ""]) == (None,)
    letters = Lettering((None,), 18)
    assert letters.length("a red star") == ImageFont.load_default(18).getlength("a red star")


def test_letters_that_pillow_lacks_come_from_a_font_that_has_them(a_font_of_the_system: Path) -> None:
    face = a_font_of_the_system
    letters, theirs = Lettering((None, face), 18), ImageFont.truetype(str(face), 18)
    assert letters.length(RUSSIAN) == theirs.getlength(RUSSIAN)
    own = ImageFont.load_default(18)
    assert letters.length(f"star {RUSSIAN} 7") == pytest.approx(
        own.getlength("star ") + theirs.getlength(f"{RUSSIAN} ") + own.getlength("7")
    )
    expected = Image.new("L", (200, 30), 255)
    ImageDraw.Draw(expected).text((0, 18), RUSSIAN, fill="black", font=theirs, anchor="ls")
    assert written(letters, RUSSIAN).tobytes() == expected.tobytes()
    assert written(letters, RUSSIAN).tobytes() != written(Lettering((None,), 18), RUSSIAN).tobytes()


def test_broken_fonts_and_letters_that_none_has_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: None
) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    (tmp_path / "LastResort.ttf").write_bytes(b"not even looked at")
    monkeypatch.setattr(lettering, "_font_folders", lambda: [tmp_path, tmp_path / "not there"])
    lettering._system_fonts.cache_clear()
    try:
        assert faces_for([RUSSIAN]) == (None,)
        assert lettering._system_fonts() == (tmp_path / "broken.ttf",)
    finally:
        lettering._system_fonts.cache_clear()
        lettering._nearest.cache_clear()
    letters = Lettering((None,), 18)
    assert letters.length(BOX) > 0 and written(letters, f"a{BOX}").getbbox()


def test_plain_fonts_go_before_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["Face-BoldItalic.ttf", "FaceMono.ttf", "Face.ttf", "notes.txt", "deep/Other-Regular.otf"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(lettering, "_font_folders", lambda: [tmp_path])
    lettering._system_fonts.cache_clear()
    try:
        found = [path.name for path in lettering._system_fonts()]
    finally:
        lettering._system_fonts.cache_clear()
    assert found == ["Face.ttf", "Other-Regular.otf", "FaceMono.ttf", "Face-BoldItalic.ttf"]
