"""A folder of pictures written anew in other sizes, shapes and formats, with their captions and masks.

Pixels are scaled as training scales them; transparent ones premultiplied, so that hidden colours do not bleed. What is
neither scaled nor converted is copied byte for byte. Whatever a file says beside its pixels (EXIF with place and
camera, generation settings) is left out of pictures that are written anew.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageColor

from trainer.curation.crops import Box
from trainer.curation.framing import Frame, Framing, frame, framing_problems
from trainer.curation.picture_sets import (
    IMAGES,
    MASKS,
    count_of,
    free_paths,
    name_within,
    out_problems,
    own_caption_bytes,
    path_within,
    read_set,
    table_notes,
)
from trainer.curation.smart_crop import smart_offset
from trainer.data.folders import Picture
from trainer.data.image_files import PICTURE_ERRORS, FullPicture, read_full, read_grey, why_unreadable
from trainer.data.resample import resize
from trainer.errors import Problem, UserError
from trainer.outputs import new_output
from trainer.runs.events import EventSink

FileFormat = Literal["keep", "png", "jpg", "webp"]
FILE_FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)

_WRITTEN_AS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_KEPT_AS = {"PNG": "PNG", "JPEG": "JPEG", "MPO": "JPEG", "WEBP": "WEBP", "BMP": "BMP", "AVIF": "AVIF"}
"""MPO is several JPEGs in one file; whatever else hides behind a picture's ending becomes PNG."""
_ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "AVIF": ".avif"}
_WITH_ALPHA = ("PNG", "WEBP", "AVIF")
_FINE_QUALITY = 90
_SHAPE_TOLERANCE = 0.02
_WORKERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ConversionOptions:
    """What becomes of the pictures.

    Attributes:
        framing: size, shape and what is cut off.
        names: of the pictures that are meant, within the folder; None for all.
        format: of the files written.
        quality: 1 to 100, of JPEG and WebP; WebP of 100 is without loss.
        background: colour that transparent parts become, as ``white`` or ``#808080``; None keeps them transparent
            where the format can, and makes them white elsewhere.
        masks: folder of masks; None for none.
    """

    framing: Framing
    names: Sequence[str] | None = None
    format: FileFormat = "keep"
    quality: int = 95
    background: str | None = None
    masks: Path | None = None


@dataclass
class Conversion:
    """What was written. ``pictures_dir`` and ``masks_dir`` are within ``out``; notes are sentences for the user."""

    out: Path
    pictures_dir: str
    masks_dir: str | None
    pictures: int = 0
    copied: int = 0
    captions: int = 0
    masks: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    """One picture, and where it goes (without its ending) below the new folder's pictures."""

    picture: Picture
    stem: PurePosixPath
    box: Box | None


def convert_pictures(
    folder: Path, out: Path, options: ConversionOptions, boxes: Mapping[str, Box], events: EventSink
) -> Conversion:
    """Write the pictures of ``folder`` to the new folder ``out``; all of it or nothing.

    A picture that cannot be read is left out with a warning.

    Args:
        folder: pictures in it and below it are taken.
        out: made by this; its folders are those of ``folder``.
        options: what becomes of them.
        boxes: drawn by hand, by the picture's path within the folder.
        events: told ``progress`` and ``warning``.

    Raises:
        UserError: all problems at once, when something is wrong with the folders or options.
    """
    sources = [folder, options.masks] if options.masks else [folder]
    problems = [*option_problems(options), *out_problems(out, sources)]
    if options.framing.crop == "hand" and not boxes:
        hint = "Draw some in the editor first, or choose another crop."
        problems.append(Problem("pictures.no_boxes", "crop: no crop box is drawn in this folder.", hint, "crop"))
    if problems:
        raise UserError.many(problems)
    found = read_set(folder, options.masks, options.names)
    masked = any(picture.mask for picture in found.pictures)
    result = Conversion(out, IMAGES if masked else ".", MASKS if masked else None)
    result.notes = table_notes(found)
    result.skipped = [(name_within(each.path, folder), each.reason) for each in found.skipped]
    tasks = _tasks(found.pictures, boxes if options.framing.crop == "hand" else {})
    with new_output(out) as place:
        _convert_all(tasks, _Writer(place, result, options), events)
        if out.exists():  # made meanwhile by somebody else
            raise UserError.many(out_problems(out, []))
    return result


def save_like(full: FullPicture, picture: Image.Image, target: Path) -> None:
    """Save what was made of a picture in that one's own format; PNG where its ending stands for no format."""
    kind = _KEPT_AS.get(full.format, "PNG")
    picture.save(target, kind, **_saving(kind, ConversionOptions.quality))


def option_problems(options: ConversionOptions) -> list[Problem]:
    """What is wrong with the options themselves."""
    problems = list(framing_problems(options.framing))
    if not 1 <= options.quality <= 100:
        message = f"quality: {options.quality} is not from 1 to 100."
        problems.append(Problem("pictures.quality", message, "95 is nearly without loss.", "quality"))
    try:
        ImageColor.getrgb(options.background or "white")
    except ValueError:
        message = f"background: {options.background!r} is not a colour."
        problems.append(Problem("pictures.background", message, "Such as white, grey or #808080.", "background"))
    return problems


def _tasks(pictures: list[Picture], boxes: Mapping[str, Box]) -> list[_Task]:
    inside = [path_within(picture) for picture in pictures]
    stems = [path.with_suffix("") for path in free_paths(inside)]
    return [
        _Task(picture, stem, boxes.get(path.as_posix()))
        for picture, path, stem in zip(pictures, inside, stems, strict=True)
    ]


def _convert_all(tasks: list[_Task], writer: _Writer, events: EventSink) -> None:
    happened: Counter[str] = Counter()
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        for done, (task, outcome) in enumerate(zip(tasks, pool.map(writer.write, tasks), strict=True)):
            events.emit("progress", what="writing pictures", done=done, total=len(tasks))
            happened.update(outcome.happened)
            for reason in outcome.warnings:
                name = path_within(task.picture).as_posix()
                writer.result.skipped.append((name, reason))
                events.emit("warning", code="pictures.skipped", message=f"{name}: {reason}.", hint="Look at it.")
    finally:
        pool.shutdown(cancel_futures=True)  # a request to stop must not wait for the pictures still queued
    events.emit("progress", what="writing pictures", done=len(tasks), total=len(tasks))
    result = writer.result
    result.pictures, result.copied = happened["written"], happened["copied"]
    result.captions, result.masks = happened["caption"], happened["mask"]
    result.notes += _notes(happened)


def _notes(happened: Counter[str]) -> list[str]:
    told = {
        "small": "{} smaller than the size asked for: not enlarged.",
        "unboxed": "{} without a crop box of its own: kept whole, or cropped to the shape at the centre.",
        "profile": "{} with a colour profile that cannot be used: colours are taken as sRGB.",
        "flattened": "{} with transparent parts, which became the background's colour.",
        "copied": "{} copied as it is: nothing had to be changed.",
    }
    return [text.format(count_of(happened[key], "picture")) for key, text in told.items() if happened[key]]


@dataclass
class _Outcome:
    """What happened to one picture."""

    happened: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class _Writer:
    """Writes one picture after the other, from several threads."""

    def __init__(self, place: Path, result: Conversion, options: ConversionOptions) -> None:
        self.result = result
        self._options = options
        self._pictures = place / result.pictures_dir
        self._masks = place / (result.masks_dir or "")
        self._pictures.mkdir(parents=True)

    def write(self, task: _Task) -> _Outcome:
        """Write the picture, its caption and its mask."""
        outcome = _Outcome()
        try:
            full = read_full(task.picture.path.read_bytes())
        except PICTURE_ERRORS as error:
            outcome.warnings.append(why_unreadable(error))
            return outcome
        view = _View.of(full.image, task.box, self._options.framing)
        self._write_picture(task, full, view, outcome)
        caption = own_caption_bytes(task.picture)
        if caption is not None:
            (self._pictures / task.stem).with_name(f"{task.stem.name}.txt").write_bytes(caption)
            outcome.happened.append("caption")
        if task.picture.mask is not None:
            self._write_mask(task.picture.mask, task, view, outcome)
        return outcome

    def _write_picture(self, task: _Task, full: FullPicture, view: _View, outcome: _Outcome) -> None:
        options = self._options
        kept_as = _KEPT_AS.get(full.format)
        kind = _WRITTEN_AS.get(options.format, kept_as or "PNG")
        has_alpha = full.image.mode == "RGBA"
        keeps_alpha = has_alpha and options.background is None and kind in _WITH_ALPHA
        target = (self._pictures / task.stem).with_name(task.stem.name + _ENDINGS[kind])
        target.parent.mkdir(parents=True, exist_ok=True)
        if view.is_whole and full.as_stored and kind == kept_as and keeps_alpha == has_alpha:
            shutil.copyfile(task.picture.path, target)
            outcome.happened.append("copied")
        else:
            picture = view.apply(full.image)
            if has_alpha and not keeps_alpha:
                picture = _on_background(picture, options.background or "white")
                outcome.happened.append("flattened")
            picture.save(target, kind, **_saving(kind, options.quality))
        outcome.happened.append("written")
        checks = {"small": view.is_small, "unboxed": options.framing.crop == "hand" and task.box is None}
        checks["profile"] = full.profile_failed
        outcome.happened += [name for name, holds in checks.items() if holds]

    def _write_mask(self, path: Path, task: _Task, view: _View, outcome: _Outcome) -> None:
        try:
            mask = read_grey(path.read_bytes())
        except PICTURE_ERRORS as error:
            outcome.warnings.append(f"its mask was left out: {why_unreadable(error)}")
            return
        if abs(mask.width * view.full_height / (mask.height * view.full_width) - 1) > _SHAPE_TOLERANCE:
            outcome.warnings.append("its mask was left out: its sides are not in the picture's proportion")
            return
        target = (self._masks / task.stem).with_name(f"{task.stem.name}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        view.apply(mask).save(target)
        outcome.happened.append("mask")


@dataclass(frozen=True)
class _View:
    """What is kept of a picture: a box of it, scaled, and cropped from there."""

    full_width: int
    full_height: int
    box: Box | None
    frame: Frame
    left: int
    top: int
    is_small: bool

    @classmethod
    def of(cls, image: Image.Image, box: Box | None, framing: Framing) -> _View:
        """The view of an upright picture."""
        part = image.crop(box.pixels(*image.size)) if box else image
        wanted = frame(part.width, part.height, framing)
        scaled, kept = (wanted.scaled_width, wanted.scaled_height), (wanted.width, wanted.height)
        seen = _on_background(part, "white") if part.mode == "RGBA" else part
        left, top = smart_offset(seen, scaled, kept) if framing.crop == "smart" else wanted.centre()
        small = framing.rule != "keep" and not framing.upscale
        is_small = small and frame(part.width, part.height, _enlarging(framing)) != wanted
        return cls(*image.size, box, wanted, left, top, is_small)

    @property
    def is_whole(self) -> bool:
        """Whether this is the picture as it is."""
        whole = Frame(self.full_width, self.full_height, self.full_width, self.full_height)
        return self.box is None and self.frame == whole

    def apply(self, image: Image.Image) -> Image.Image:
        """The view of the picture, or of its mask, which may be of another size."""
        part = image.crop(self.box.pixels(*image.size)) if self.box else image
        scaled = _scaled(part, self.frame.scaled_width, self.frame.scaled_height)
        return scaled.crop((self.left, self.top, self.left + self.frame.width, self.top + self.frame.height))


def _enlarging(framing: Framing) -> Framing:
    return Framing(framing.rule, framing.width, framing.height, framing.crop, framing.aspect, upscale=True)


def _scaled(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image
    if image.mode != "RGBA":
        return Image.fromarray(_as_bytes(resize(image, width, height)))
    values = np.asarray(image, dtype=np.float32)
    opacity = values[..., 3:] / 255
    channels = [*np.moveaxis(values[..., :3] * opacity, 2, 0), opacity[..., 0]]
    scaled = [resize(Image.fromarray(np.ascontiguousarray(channel)), width, height) for channel in channels]
    alpha = scaled[3].clip(0, 1)
    colours = [np.divide(channel, alpha, out=np.zeros_like(channel), where=alpha > 0) for channel in scaled[:3]]
    return Image.fromarray(_as_bytes(np.stack([*colours, alpha * 255], axis=2)), "RGBA")


def _as_bytes(pixels: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _on_background(picture: Image.Image, colour: str) -> Image.Image:
    ground = Image.new("RGBA", picture.size, (*ImageColor.getrgb(colour)[:3], 255))
    return Image.alpha_composite(ground, picture).convert("RGB")


def _saving(kind: str, quality: int) -> dict[str, Any]:
    """Pillow's options: fine JPEGs keep the colours of every pixel."""
    if kind == "JPEG":
        return {"quality": quality, "subsampling": 0 if quality >= _FINE_QUALITY else -1}
    if kind == "WEBP":
        return {"quality": quality, "lossless": quality == 100, "exact": True}
    return {"quality": quality} if kind == "AVIF" else {}
