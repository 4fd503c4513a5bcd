"""Pictures in batches through a captioner: decoded ahead of it, and a picture that fails does not end the job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainer.captioners.base import Captioner
from trainer.data.image_files import PICTURE_ERRORS, read_rgb, why_unreadable
from trainer.data.own_captions import OwnCaption
from trainer.errors import JobFailed, Problem, StoppedOnRequest, UserError

_HOPELESS = 5  # pictures failing one after the other, none having worked, before the captioner is to blame


@dataclass(frozen=True)
class Subject:
    """A picture to be captioned. ``name`` and ``caption_name``, its caption file's, are relative to the folder."""

    name: str
    path: Path
    own: OwnCaption
    caption_name: str


Described = tuple[Subject, list[str] | str]
"""A picture and its texts, or the reason why there is none: a clause such as "it is damaged"."""


def described(
    pictures: Sequence[Subject], captioner: Captioner, batch_size: int, times: int
) -> Iterator[list[Described]]:
    """Each batch of pictures with their texts, ``times`` for each. The next batch is decoded meanwhile.

    Raises:
        UserError: what the captioner raises, such as too little memory.
        JobFailed: no picture works.
    """
    worked, failed = False, 0
    for batch in _decoded(pictures, batch_size):
        readable = [(subject, image) for subject, image in batch if isinstance(image, Image.Image)]
        texts = dict(zip((subject.name for subject, _ in readable), _texts(captioner, readable, times), strict=True))
        errors = [text for text in texts.values() if isinstance(text, Exception)]
        worked = worked or len(errors) < len(texts)
        failed += len(errors)
        if errors and not worked and failed >= min(_HOPELESS, len(pictures)):
            message = f"The captioner fails on every picture: {_reason(errors[-1])}."
            raise JobFailed(Problem("caption.fails", message, "Try other options or another model.")) from errors[-1]
        yield [(subject, image if isinstance(image, str) else _told(texts[subject.name])) for subject, image in batch]


def _texts(
    captioner: Captioner, pictures: Sequence[tuple[Subject, Image.Image]], times: int
) -> list[list[str] | Exception]:
    """The texts of each picture; where a batch fails, its pictures are tried one by one."""
    if not pictures:
        return []
    paths, images = [subject.path for subject, _ in pictures], [image for _, image in pictures]
    try:
        runs = [captioner.captions(images, paths) for _ in range(times)]
    except (UserError, JobFailed, StoppedOnRequest):
        raise
    except MemoryError as error:
        message = "The memory is too small for this captioner and so many pictures at a time."
        raise UserError("caption.out_of_memory", message, "Choose fewer at a time.", "batch_size") from error
    except Exception as error:  # models fail on odd pictures in many ways
        if len(pictures) == 1:
            return [error]
        return [found for one in pictures for found in _texts(captioner, [one], times)]
    return [list(texts) for texts in zip(*runs, strict=True)]


def _decoded(pictures: Sequence[Subject], size: int) -> Iterator[list[tuple[Subject, Image.Image | str]]]:
    """Batches of pictures, or why one cannot be read; the next batch is read in a thread."""
    batches = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        ahead = pool.submit(_read_all, batches[0]) if batches else None
        for following in [*batches[1:], None]:
            if ahead is None:
                return
            ready = ahead.result()
            ahead = pool.submit(_read_all, following) if following is not None else None
            yield ready


def _read_all(pictures: Sequence[Subject]) -> list[tuple[Subject, Image.Image | str]]:
    return [(subject, _read(subject.path)) for subject in pictures]


def _read(path: Path) -> Image.Image | str:
    try:
        return read_rgb(path.read_bytes())
    except PICTURE_ERRORS as error:
        return why_unreadable(error)


def _told(texts: list[str] | Exception) -> list[str] | str:
    return f"the captioner failed on it ({_reason(texts)})" if isinstance(texts, Exception) else texts


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
