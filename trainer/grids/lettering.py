"""What is written on sheets, in any script: Pillow's own letters, and those of the system's fonts that it lacks.

Pillow comes with a font of few letters (no accents, no Cyrillic, nothing of Asia), and no font lies with this program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

Face = Path | None
"""A font's file; None for Pillow's own."""
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_MOST_FACES = 4
_MOST_LOOKED_AT = 400
_SUFFIXES = (".ttf", ".otf", ".ttc")
_UNUSUAL = ("bold", "italic", "oblique", "mono", "condensed", "narrow", "serif", "light", "black", "emoji", "symbol")
"""Words in the names of fonts that are taken only where no plain one has a letter."""
_NO_FONT = "lastresort"
"""macOS' has a picture of the script for each letter."""
_NOWHERE = "\U0010fffe"
"""No letter: fonts show it as they show those that they lack."""


class Lettering:
    """Letters of a size, from several fonts.

    Attributes:
        size_px: their height.
    """

    def __init__(self, faces: tuple[Face, ...], size_px: int) -> None:
        """``faces``: see ``faces_for``; each letter is of the first that has it."""
        self.size_px = size_px
        self._fonts = [_opened(face, size_px) for face in faces]
        self._font_of: dict[str, _Font] = {}

    def length(self, text: str) -> float:
        """Width of a text in pixels."""
        return sum(font.getlength(run) for run, font in self._runs(text))

    def write(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, ink: str) -> None:
        """Write a line; ``place`` is its left upper corner, and letters of all fonts stand on one line."""
        left, top = place
        for run, font in self._runs(text):
            if isinstance(font, ImageFont.FreeTypeFont):
                draw.text((left, top + self.size_px), run, fill=ink, font=font, anchor="ls")
            else:
                draw.text((left, top), run, fill=ink, font=font)
            left += font.getlength(run)

    def _runs(self, text: str) -> Iterator[tuple[str, _Font]]:
        """Neighbouring letters of one font."""
        run, last = "", self._fonts[0]
        for letter in text:
            font = last if letter.isspace() else self._chosen(letter)
            if font is not last and run:
                yield run, last
                run = ""
            run, last = run + letter, font
        if run:
            yield run, last

    def _chosen(self, letter: str) -> _Font:
        if letter not in self._font_of:
            having = (font for font in self._fonts if not _lacking(font, {letter}))
            self._font_of[letter] = next(having, self._fonts[0])
        return self._font_of[letter]


def faces_for(texts: Iterable[str]) -> tuple[Face, ...]:
    """The fonts that together have the letters of these texts, as far as this machine has them; Pillow's own first."""
    faces: list[Face] = [None]
    lacking = _lacking(_opened(None, 16), {letter for text in texts for letter in text if not letter.isspace()})
    while lacking and len(faces) < _MOST_FACES:
        face, left = _nearest(frozenset(lacking))
        if face is None or left == lacking:
            break
        faces.append(face)
        lacking = set(left)
    return tuple(faces)


@lru_cache(maxsize=64)
def _nearest(letters: frozenset[str]) -> tuple[Face, frozenset[str]]:
    """The system's font that lacks fewest of some letters, and those that it lacks."""
    best: tuple[Face, frozenset[str]] = (None, letters)
    for path in _system_fonts():
        try:
            left = frozenset(_lacking(_opened(path, 16), letters))
        except OSError:
            continue  # no outlines, such as those of emoji
        if len(left) < len(best[1]):
            best = path, left
        if not left:
            break
    return best


def _lacking(font: _Font, letters: Iterable[str]) -> set[str]:
    """The letters that a font shows as it shows what is none."""
    none = _looks(font, _NOWHERE)
    return {letter for letter in letters if _looks(font, letter) == none}


def _looks(font: _Font, letter: str) -> bytes:
    try:
        mask = font.getmask(letter)
    except UnicodeEncodeError:  # a Pillow without FreeType knows Latin-1 alone
        return b""
    return repr(mask.size).encode() + bytes(mask)


def _opened(face: Face, size_px: int) -> _Font:
    """Raises OSError for a file that is no font."""
    return ImageFont.load_default(size_px) if face is None else ImageFont.truetype(str(face), size_px)


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[Path, ...]:
    """The fonts of this machine, plain ones first."""
    found = [path for folder in _font_folders() for path in sorted(folder.rglob("*")) if _is_font(path)]
    return tuple(sorted(found, key=_unusual)[:_MOST_LOOKED_AT])


def _is_font(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and _NO_FONT not in path.stem.lower()


def _unusual(path: Path) -> int:
    return sum(word in path.stem.lower().replace("sansserif", "") for word in _UNUSUAL)


def _font_folders() -> list[Path]:
    """Where each system keeps its fonts: those of the user first."""
    home, known = Path.home(), os.environ
    if sys.platform == "win32":
        local = Path(known.get("LOCALAPPDATA", home)) / "Microsoft" / "Windows" / "Fonts"
        return [local, Path(known.get("WINDIR", "C:/Windows")) / "Fonts"]
    if sys.platform == "darwin":
        return [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    data = [known.get("XDG_DATA_HOME") or str(home / ".local/share")]
    data += (known.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    return [home / ".fonts", *(Path(folder) / "fonts" for folder in data)]
