"""What the validations of a run came to: which checkpoint is the best, and whether to stop early. Never torch.

All decisions follow from the losses alone, and the losses are part of every checkpoint: a run that was killed and
resumed decides as one that nobody touched.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class _Length(NamedTuple):
    """How many steps a run was to have, and when that was asked for: not known of runs of older versions."""

    max_steps: int
    asked: float | None

    def is_the_same(self, other: _Length) -> bool:
        return self.max_steps == other.max_steps and self.asked in (None, other.asked)


class ValidationHistory:
    """The validation losses of a run by step, and what follows from them.

    The best step is the one of the lowest loss, the earlier one of equals. Step 0 is the base model's own loss, to
    compare with; it is not a result, and never the best.
    """

    def __init__(self, patience: int | None) -> None:
        """``patience``: validations without a better one after which it is enough; None for no limit."""
        self._patience = patience
        self._losses: dict[int, float] = {}
        self._waiting_since = 0
        self._ended: _Length | None = None

    def add(self, step: int, loss: float) -> None:
        """Take the loss of a step."""
        self._losses[step] = loss

    def __contains__(self, step: int) -> bool:
        return step in self._losses

    def relative(self, step: int) -> float | None:
        """A step's loss as a share of the one before training; None where either is missing or not finite."""
        loss, first = self._losses.get(step), self._losses.get(0)
        if loss is None or not first or not math.isfinite(loss / first):
            return None
        return loss / first

    @property
    def best_step(self) -> int | None:
        """The step of the lowest finite loss; None before there is one."""
        steps = [step for step, loss in sorted(self._losses.items()) if step > 0 and math.isfinite(loss)]
        return min(steps, key=lambda step: self._losses[step], default=None)

    @property
    def waited(self) -> int:
        """Validations since the best one, or since a run that had ended was extended."""
        since = max(self.best_step or 0, self._waiting_since)
        return sum(step > since for step in self._losses)

    @property
    def enough(self) -> bool:
        """Whether patience has run out."""
        return self._patience is not None and self.waited >= self._patience

    @property
    def why_enough(self) -> str:
        """What patience has run out over, in words."""
        best = self.best_step
        than = f"step-{best:06d} ({self.loss(best):.5g})" if best else "before"
        return f"{self.waited} validations in a row were no better than {than}"

    def loss(self, step: int) -> float:
        """The loss of a step that was validated."""
        return self._losses[step]

    def end_at(self, max_steps: int, asked: float) -> None:
        """Note that the run ends, early or not.

        Args:
            max_steps: that it was to have.
            asked: when it was given that length, in Unix seconds.
        """
        self._ended = _Length(max_steps, asked)

    def go_on(self, step: int, max_steps: int, asked: float) -> None:
        """A run that had ended goes on at ``step``: where it was given a length anew, patience starts anew.

        That may be the length it had: a run that stopped early did not come to it. A run that was merely interrupted
        while it ended, ends.
        """
        if self._ended is not None and not self._ended.is_the_same(_Length(max_steps, asked)):
            self._waiting_since, self._ended = step, None

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        losses = [[step, loss] for step, loss in sorted(self._losses.items())]
        max_steps, asked = (None, None) if self._ended is None else self._ended
        return {"losses": losses, "waiting_since": self._waiting_since, "ended_at": max_steps, "asked": asked}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self._losses = {int(step): float(loss) for step, loss in state["losses"]}
        self._waiting_since, ended_at = state["waiting_since"], state["ended_at"]
        self._ended = None if ended_at is None else _Length(ended_at, state.get("asked"))
