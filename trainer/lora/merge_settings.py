"""How LoRAs are merged with each other: the modes and their settings. Never torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from trainer.errors import Problem, UserError

Mode = Literal["exact", "svd", "ties", "dare", "kohya"]
MODES: tuple[Mode, ...] = get_args(Mode)
RANKED: tuple[Mode, ...] = ("svd", "ties", "dare")
"""Modes whose result is the best approximation of a given rank."""
SPARSE: tuple[Mode, ...] = ("ties", "dare")
"""Modes that keep a share of what each LoRA changes."""
DEFAULT_DENSITY = 0.5

Precision = Literal["fp16", "bf16", "float"]


@dataclass(frozen=True)
class MergeSettings:
    """How the changes of several LoRAs become one.

    Attributes:
        mode: ``exact`` keeps their weighted sum whole, ``svd`` its best approximation of a rank; ``ties`` and ``dare``
            thin the changes out before they are added, so that they disturb each other less; ``kohya`` computes what
            sd-scripts' ``merge_lora.py`` computes.
        rank: largest rank of a layer of the result; needed by ``svd``, ``ties`` and ``dare``, and only there.
        conv_rank: the same for convolutions larger than 1x1; None: ``rank``.
        density: share of each change that is kept, above 0 and up to 1; for ``ties`` and ``dare``.
        seed: of the choice of what ``dare`` keeps.
        precision: number format in which ``kohya`` computes; the other modes take as many digits as they need.
    """

    mode: Mode = "exact"
    rank: int | None = None
    conv_rank: int | None = None
    density: float | None = None
    seed: int | None = None
    precision: Precision = "float"

    def complete(self) -> MergeSettings:
        """The same with the defaults that the mode takes for what is not given."""
        density = DEFAULT_DENSITY if self.density is None and self.mode in SPARSE else self.density
        return replace(self, density=density, seed=self.seed or 0 if self.mode == "dare" else self.seed)

    def check(self) -> None:
        """Raise UserError with every setting that is missing, out of bounds, or of no use for the mode."""
        if self.mode not in MODES:
            message = f"mode: {self.mode!r} is not one of {', '.join(MODES)}."
            raise UserError("merge.mode", message, "Choose one of them.", "mode")
        problems = [*self._rank_problems(), *self._useless()]
        if self.density is not None and not 0 < self.density <= 1:
            message = f"density: {self.density:g} is not allowed; it is a share above 0 and up to 1."
            problems.append(Problem("merge.density", message, "Give a number such as 0.5.", "density"))
        if problems:
            raise UserError.many(problems)

    def _rank_problems(self) -> list[Problem]:
        problems = []
        if self.mode in RANKED and self.rank is None:
            message = f"rank: {self.mode} needs the rank of the result."
            problems.append(Problem("merge.rank", message, "Give a rank, such as 16.", "rank"))
        for name, value in (("rank", self.rank), ("conv_rank", self.conv_rank)):
            if value is not None and value < 1:
                message = f"{name}: {value} is not allowed; it must be 1 or more."
                problems.append(Problem("merge.rank", message, "Give a rank, such as 16.", name))
        return problems

    def _useless(self) -> list[Problem]:
        """Settings that the mode would pass over in silence."""
        useful: dict[str, tuple[Mode, ...]] = {
            "rank": RANKED, "conv_rank": RANKED, "density": SPARSE, "seed": ("dare",),
        }  # fmt: skip
        names = [name for name, modes in useful.items() if getattr(self, name) is not None and self.mode not in modes]
        if self.precision != "float" and self.mode != "kohya":
            names.append("precision")
            useful["precision"] = ("kohya",)
        return [
            Problem(
                f"merge.{name}",
                f"{name}: {self.mode} has no use for it.",
                f"Leave it out, or choose {' or '.join(useful[name])}.",
                name,
            )
            for name in names
        ]
