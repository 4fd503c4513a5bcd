"""A grid as one picture: every cell with the values of its column and row, a block for each value of z."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

from trainer.data.image_files import open_picture
from trainer.grids.lettering import Face, Lettering, faces_for
from trainer.grids.spec import Cell, GridSpec
from trainer.grids.store import Grid
from trainer.pictures import save_png

LONGEST_SIDE_PX = 16_000
MOST_PIXELS = 80_000_000
"""A larger sheet is scaled down: Pillow warns of what has 89 million or more, and it takes 0.3 GB to make."""
SMALLEST_CELL_PX = 24
_GROUND, _INK, _QUIET, _BLANK, _PROBLEM = "#ffffff", "#1f1d19", "#5b574d", "#f0eee8", "#a3271c"
_MOST_LINES = 4
_MOST_TEXT = 400
"""Characters of a label that are looked at; what does not fit is left out anyway."""


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels.

    Attributes:
        cell: of the box that each picture is put into.
        shape: columns, rows and blocks.
        blocks: how many across and down.
        letters: that labels are written in.
        lines: that the values of x need.
        left: room for the values of y.
        has_blocks: whether each block has a heading.
    """

    cell: tuple[int, int]
    shape: tuple[int, int, int]
    blocks: tuple[int, int]
    letters: Lettering
    lines: int
    left: int
    has_blocks: bool

    @property
    def gap(self) -> int:
        return max(2, self.letters.size_px // 3)

    @property
    def line(self) -> int:
        return round(self.letters.size_px * 1.3)

    @property
    def top(self) -> int:
        """Room for the heading, the title and the values of x."""
        return self.line * (self.lines + 1 + self.has_blocks) + 3 * self.gap

    @property
    def block(self) -> tuple[int, int]:
        """Size of a block, with some ground around it."""
        width = self.left + self.shape[0] * (self.cell[0] + self.gap) + 2 * self.line
        return width, self.top + self.shape[1] * (self.cell[1] + self.gap) + 2 * self.line

    @property
    def sheet(self) -> tuple[int, int]:
        """Size of all, with a line at the foot."""
        return self.block[0] * self.blocks[0], self.block[1] * self.blocks[1] + self.line + self.gap


def write_sheet(grid: Grid, spec: GridSpec) -> float:
    """Draw ``sheet.png``, with the whole grid in its settings; returns how large its pictures are in it, 1 for full."""
    drawn = {cell for cell in spec.cells() if grid.is_drawn(cell)}
    largest = _largest(grid, drawn)
    faces = faces_for(_texts(spec))
    scale = _scale(spec, largest, faces)
    layout = _layout(spec, largest, scale, faces)
    sheet = Image.new("RGB", layout.sheet, _GROUND)
    draw = ImageDraw.Draw(sheet)
    for z in range(spec.shape[2]):
        origin = z % layout.blocks[0] * layout.block[0], z // layout.blocks[0] * layout.block[1]
        _write_labels(draw, layout, spec, z, origin)
        for cell in spec.cells():
            if cell.z == z:
                _put_cell(sheet, draw, layout, grid, cell, origin, drawn=cell in drawn)
    _write_foot(draw, layout, spec, scale)
    about = {"grid": spec.model_dump(exclude={"base"}), "sheet_scale": scale}
    save_png(sheet, grid.sheet_path, spec.base.model_dump() | about)
    return scale


def _largest(grid: Grid, drawn: set[Cell]) -> tuple[int, int]:
    """The box that every picture fits into."""
    width, height = 64, 64
    for cell in drawn:
        with open_picture(grid.picture(cell)) as image:
            width, height = max(width, image.width), max(height, image.height)
    return width, height


def _texts(spec: GridSpec) -> list[str]:
    """All that is written on a sheet."""
    axes = [text for axis in spec.axes.values() for text in (axis.title, *axis.labels)]
    return [*(text[:_MOST_TEXT] for text in axes), spec.base.prompt[:_MOST_TEXT], spec.base.model, "…:%()"]


def _scale(spec: GridSpec, largest: tuple[int, int], faces: tuple[Face, ...]) -> float:
    """1, or less where the sheet would be too large."""
    scale = 1.0
    for _ in range(8):  # labels do not shrink with the pictures: come near in steps
        width, height = _layout(spec, largest, scale, faces).sheet
        too_much = max(max(width, height) / LONGEST_SIDE_PX, math.sqrt(width * height / MOST_PIXELS))
        if too_much <= 1 or min(largest) * scale <= SMALLEST_CELL_PX:
            break
        scale = scale / too_much * 0.99
    return scale


def _layout(spec: GridSpec, largest: tuple[int, int], scale: float, faces: tuple[Face, ...]) -> _Layout:
    """As much room as the labels need; blocks go across or down, whichever comes nearer to a square."""
    cell = max(1, round(largest[0] * scale)), max(1, round(largest[1] * scale))
    font_px = max(9, min(40, cell[0] // 10))
    letters = Lettering(faces, font_px)
    measure = letters.length
    lines = max(len(wrapped(label, measure, cell[0], _MOST_LINES)) for label in spec.x.labels)
    left = 0
    if spec.y is not None:
        longest = max(measure(label[:_MOST_TEXT]) for label in [spec.y.title, *spec.y.labels])
        left = round(min(longest, max(cell[0], font_px * 8))) + font_px

    def laid(across: int) -> _Layout:
        blocks = across, math.ceil(spec.shape[2] / across)
        return _Layout(cell, spec.shape, blocks, letters, lines, left, spec.z is not None)

    choices = [laid(across) for across in range(1, spec.shape[2] + 1)]
    return min(choices, key=lambda layout: abs(math.log(layout.sheet[0] / layout.sheet[1])))


def _write_labels(draw: ImageDraw.ImageDraw, layout: _Layout, spec: GridSpec, z: int, origin: tuple[int, int]) -> None:
    line, (width, height) = layout.line, layout.cell
    left, top = origin[0] + line + layout.left, origin[1] + line
    across = layout.block[0] - 2 * line - layout.left
    if spec.z is not None:
        _write(draw, layout, f"{spec.z.title}: {spec.z.labels[z]}", (left, top), (across, line), _INK)
        top += line + layout.gap
    _write(draw, layout, spec.x.title, (left, top), (across, line), _QUIET)
    for x, label in enumerate(spec.x.labels):
        place = left + x * (width + layout.gap), top + line + layout.gap // 2
        _write(draw, layout, label, place, (width, line * layout.lines), _INK)
    if spec.y is None:
        return
    room, below = layout.left - layout.gap, origin[1] + line + layout.top
    _write(draw, layout, spec.y.title, (origin[0] + line, below - line - layout.gap), (room, line), _QUIET)
    for y, label in enumerate(spec.y.labels):
        _write(draw, layout, label, (origin[0] + line, below + y * (height + layout.gap)), (room, height), _INK)


def _put_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    layout: _Layout,
    grid: Grid,
    cell: Cell,
    origin: tuple[int, int],
    *,
    drawn: bool,
) -> None:
    width, height = layout.cell
    left = origin[0] + layout.line + layout.left + cell.x * (width + layout.gap)
    top = origin[1] + layout.line + layout.top + cell.y * (height + layout.gap)
    if drawn:
        with open_picture(grid.picture(cell)) as image:
            picture = image.convert("RGB")
        picture.thumbnail(layout.cell, Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        return
    draw.rectangle((left, top, left + width - 1, top + height - 1), fill=_BLANK)
    failed = grid.failure(cell)
    words = " ".join(problem["message"] for problem in failed) or "Not drawn"
    pad = layout.gap
    ink = _PROBLEM if failed else _QUIET
    _write(draw, layout, words, (left + pad, top + pad), (width - 2 * pad, height - 2 * pad), ink)


def _write_foot(draw: ImageDraw.ImageDraw, layout: _Layout, spec: GridSpec, scale: float) -> None:
    base = spec.base
    words = f"{base.prompt} ({base.model})" if base.prompt else base.model
    if scale < 1:
        words = f"Pictures at {scale:.0%} of their size. {words}"
    width, height = layout.sheet
    place = layout.line, height - layout.line - layout.gap
    _write(draw, layout, words, place, (width - 2 * layout.line, layout.line), _QUIET)


def _write(
    draw: ImageDraw.ImageDraw, layout: _Layout, text: str, place: tuple[int, int], room: tuple[int, int], ink: str
) -> None:
    """Text in a box: wrapped between words, or within those that are too long, and cut with an ellipsis."""
    lines = wrapped(text, layout.letters.length, room[0], max(1, room[1] // layout.line))
    for number, words in enumerate(lines):
        layout.letters.write(draw, (place[0], place[1] + number * layout.line), words, ink)


def wrapped(text: str, length: Callable[[str], float], width: float, most_lines: int) -> list[str]:
    """A text in lines of at most ``width``, as ``length`` measures them; the last one ends in … where it is cut."""
    lines = [""]
    for word in text[:_MOST_TEXT].split():
        joined = f"{lines[-1]} {word}".strip()
        if length(joined) <= width:
            lines[-1] = joined
            continue
        lines += [word] if lines[-1] else []
        lines[-1] = word
        while length(lines[-1]) > width and len(lines[-1]) > 1:
            fits = _characters(lines[-1], length, width)
            lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    if len(lines) <= most_lines:
        return lines
    last = f"{lines[most_lines - 1]}…"
    if length(last) > width:
        last = f"{last[: _characters(last, length, width - length('…'))]}…"
    return [*lines[: most_lines - 1], last]


def _characters(word: str, length: Callable[[str], float], width: float) -> int:
    """How many letters of a word fit, 1 at least."""
    return max(1, bisect_right(range(1, len(word)), width, key=lambda end: length(word[:end])))
