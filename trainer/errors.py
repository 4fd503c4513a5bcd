"""The problems a user can cause, and how they are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what the user gave.

    Attributes:
        code: stable, machine-readable name such as ``dataset.no_pictures``.
        message: one sentence: field, what was given, what is allowed.
        hint: one sentence: what to do next.
        field: dotted config name such as ``train.learning_rate``; empty where no field is to blame.
    """

    code: str
    message: str
    hint: str = ""
    field: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UserError(Exception):
    """Wrong input: shown without a traceback, exit code 2. Holds every problem found, not just the first."""

    def __init__(self, code: str, message: str, hint: str = "", field: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(code, message, hint, field),)
        super().__init__(str(self.problems[0]))

    @classmethod
    def many(cls, problems: list[Problem]) -> UserError:
        """Build one error out of several problems. Raises ValueError for an empty list."""
        if not problems:
            raise ValueError("UserError.many needs at least one problem")
        first = problems[0]
        error = cls(first.code, first.message, first.hint, first.field)
        error.problems = tuple(problems)
        error.args = ("\n".join(str(problem) for problem in problems),)
        return error


class JobFailed(Exception):
    """A job could not go on, for a reason that is told in its log: exit code 1.

    Attributes:
        problem: the reason in plain words.
        log_path: where the details are; None until the job's own log has them.
    """

    def __init__(self, problem: Problem, log_path: Path | None = None) -> None:
        self.problem = problem
        self.log_path = log_path
        super().__init__(str(problem))


class StoppedOnRequest(Exception):
    """The user asked for an end (stop request, SIGINT, SIGTERM) and what had to be saved is saved: exit code 3."""
