"""One picture request while it is drawn: its pictures one by one, how far they are, and what they are going to be."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

from trainer.drawing import OnStep, Progress
from trainer.errors import UserError
from trainer.generate import Painter, exact_settings, save_picture
from trainer.live_picture import save_live_picture
from trainer.picture_pace import PicturePace
from trainer.pictures import PictureSettings, save_png
from trainer.studio import Answer, Request, Studio, waiting_paths, write_answer

KEPT_PREVIEWS = 40
PROGRESS_EVERY_S = 0.2
LIVE_EVERY_S = 0.5


class Cancelled(Exception):
    """Nobody waits for this picture any more."""


class PlainPictures:
    """Pictures without LoRAs that were drawn for comparisons, to be used again."""

    def __init__(self) -> None:
        self._paths: OrderedDict[str, Path] = OrderedDict()

    def __contains__(self, path: Path) -> bool:
        return path in self._paths.values()

    def get(self, settings: PictureSettings) -> Path | None:
        """The picture of these settings, where it is still there."""
        path = self._paths.get(settings.model_dump_json())
        return path if path is not None and path.exists() else None

    def keep(self, settings: PictureSettings, path: Path) -> None:
        """Remember a picture, and forget the one that has not been used for longest where they are many."""
        key = settings.model_dump_json()
        self._paths[key] = path
        self._paths.move_to_end(key)
        if len(self._paths) > KEPT_PREVIEWS:
            self._paths.popitem(last=False)


def check_wanted(studio: Studio, request: Request) -> None:
    """Raise Cancelled where somebody asked for an end of the request, or for a newer preview."""
    if (studio.requests_dir / f"{request.id}.cancel").exists():
        raise Cancelled
    newest = next(iter(waiting_paths(studio.requests_dir)), None)
    if request.kind == "preview" and (newest is None or newest.stem != request.id):
        raise Cancelled


class Drawing:
    """A request and its answer; pictures that an earlier process made of it are kept.

    Args:
        studio: whose it is.
        request: what is to be drawn.
        answer: how far it is, told as it goes.
        painter: has the request's model.
        plain: pictures without LoRAs, to be used again.
    """

    def __init__(
        self, studio: Studio, request: Request, answer: Answer, painter: Painter, plain: PlainPictures
    ) -> None:
        self._studio = studio
        self._request = request
        self._answer = answer
        self._painter = painter
        self._plain = plain
        with_loras = request.looks
        without = [look.model_copy(update={"loras": []}) for look in with_loras]
        pairs = zip(without, with_loras, strict=True)
        self._looks = [look for pair in pairs for look in pair] if request.compare else with_loras
        self._steps = painter.steps(request.settings)
        answer.steps = self._steps * len(self._looks)
        self._count_steps()

    @property
    def is_done(self) -> bool:
        """Whether all pictures are there."""
        return len(self._answer.pictures) == len(self._looks)

    def draw_next(self) -> None:
        """Draw the next pictures and tell of them. Raises Cancelled, and UserError as ``Painter.draw`` does."""
        number = len(self._answer.pictures)
        looks = self._drawn_together(number)
        is_plain = self._request.compare and number % 2 == 0
        path = self._plain.get(looks[0]) if is_plain else None
        if path is None:
            self._painter.use(looks[0].loras)
            images = self._draw(looks)
            check_wanted(self._studio, self._request)  # a picture that comes too late is not shown for a moment
            for image, look in zip(images, looks, strict=True):
                with self._saving():
                    path = self._save(image, look)
                self._answer.pictures.append(str(path))
        else:
            self._answer.pictures.append(str(path))
        if is_plain and path is not None:
            self._plain.keep(looks[0], path)
        self._answer.live = ""
        self._count_steps()
        with suppress(OSError):  # the pictures themselves are there
            write_answer(self._studio.answers_dir, self._answer)

    def _drawn_together(self, number: int) -> list[PictureSettings]:
        """The next pictures, as many as are wanted in one batch and differ in their seeds alone."""
        first = self._looks[number]
        most = 1 if self._request.kind == "preview" else first.batch_size
        group = self._looks[number : number + most]
        return [look for look in group if look.model_copy(update={"seed": first.seed}) == first]

    def _draw(self, looks: list[PictureSettings]) -> list[Image.Image]:
        begun = time.monotonic()
        seeds = [look.seed for look in looks]
        images = self._painter.draw_together(looks[0], seeds, self._after_step(looks))
        with suppress(OSError):  # a full disk is told of where the picture is saved
            seconds = (time.monotonic() - begun) / len(looks)
            PicturePace(self._studio.workspace).note(looks[0], self._painter.size(looks[0]), seconds)
        return images

    def _after_step(self, looks: list[PictureSettings]) -> OnStep:
        """What is called after each denoising step: ends pictures nobody wants, tells how far this one is, shows it."""
        before, told, shown = self._answer.step, 0.0, time.monotonic()
        path = self._studio.live_path(self._request.id)

        def after_step(progress: Progress) -> None:
            nonlocal told, shown
            check_wanted(self._studio, self._request)
            self._answer.step = before + progress.done * len(looks)
            now = time.monotonic()
            with suppress(OSError):  # both are only to look at meanwhile
                if now - shown > LIVE_EVERY_S:
                    shown = now
                    save_live_picture(path, self._painter.family, progress.step, looks[0].guidance)
                    self._answer.live = str(path)
                if now - told > PROGRESS_EVERY_S:
                    told = now
                    write_answer(self._studio.answers_dir, self._answer, durable=False)

        return after_step

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Tell of a disk that is full, or refuses."""
        try:
            yield
        except OSError as error:
            message = f"The picture could not be saved in {self._studio.workspace.dir}: {error.strerror or error}."
            raise UserError("picture.not_saved", message, "Free some space there, then draw it again.") from error

    def _save(self, image: Image.Image, look: PictureSettings) -> Path:
        if self._request.kind != "preview":
            return save_picture(self._painter, image, look, look.seed, self._studio.workspace.pictures_dir)
        path = self._studio.previews_dir / f"{self._request.id}-{len(self._answer.pictures)}.png"
        save_png(image, path, exact_settings(self._painter, look, look.seed).model_dump())
        return path

    def _count_steps(self) -> None:
        self._answer.step = self._steps * len(self._answer.pictures)
