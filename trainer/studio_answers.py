"""What the studio's process tells about requests, also when the disk is full for a while."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from pathlib import Path

from trainer.errors import Problem
from trainer.studio import Answer, Studio, waiting_paths, write_answer
from trainer.studio_drawing import KEPT_PREVIEWS, PlainPictures

KEPT_ANSWERS = 500


class Answers:
    """The answers of a studio. One that cannot be written is kept in mind, and its request is not answered again."""

    def __init__(self, studio: Studio, plain: PlainPictures) -> None:
        self._studio = studio
        self._plain = plain
        self._untold: dict[Path, Answer] = {}

    def waiting(self) -> list[Path]:
        """The requests without a final answer, most urgent first."""
        return [path for path in waiting_paths(self._studio.requests_dir) if path not in self._untold]

    def tell(self, answer: Answer) -> None:
        """Say how far a request is."""
        with suppress(OSError):  # it says how far something is: the end is what counts
            write_answer(self._studio.answers_dir, answer, durable=False)

    def finish(self, path: Path, answer: Answer) -> None:
        """Give the final answer, and clear away what belongs to the request."""
        answer = answer.model_copy(update={"ended": answer.ended or time.time(), "live": ""})
        try:
            write_answer(self._studio.answers_dir, answer)
        except OSError:
            if path not in self._untold:
                log_error()
            self._untold[path] = answer
            return
        self._untold.pop(path, None)
        for left in (path, path.with_suffix(".cancel"), path.with_suffix(".first"), self._studio.live_path(path.stem)):
            left.unlink(missing_ok=True)
        self.tidy()

    def finish_late(self) -> None:
        """Try again to give the answers that could not be written."""
        for path, answer in list(self._untold.items()):
            self.finish(path, answer)

    def tidy(self) -> None:
        """Keep the newest answers and preview pictures only."""
        for old in sorted(self._studio.previews_dir.glob("*.png"))[:-KEPT_PREVIEWS]:
            if old not in self._plain:
                old.unlink(missing_ok=True)
        for old in sorted(self._studio.answers_dir.glob("*.json"))[:-KEPT_ANSWERS]:
            old.unlink(missing_ok=True)


def failed(answer: Answer, *problems: Problem) -> Answer:
    """The answer that says why there will be none."""
    return answer.model_copy(update={"state": "failed", "error": [vars(problem) for problem in problems]})


def log_error() -> None:
    """The exception that is being handled, for whoever reads the log."""
    with suppress(OSError):  # the log may lie on the full disk too
        traceback.print_exc()
