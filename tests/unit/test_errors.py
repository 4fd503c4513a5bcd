"""How problems are told."""

from __future__ import annotations

import pytest

from trainer.errors import JobFailed, Problem, UserError


def test_a_user_error_says_what_and_what_to_do() -> None:
    error = UserError("data.none", "The folder is empty.", "Add pictures.", "dataset.sources")
    assert str(error) == "The folder is empty. Add pictures."
    assert error.problems == (Problem("data.none", "The folder is empty.", "Add pictures.", "dataset.sources"),)
    assert str(Problem("a", "No hint.")) == "No hint."


def test_several_problems_are_one_error() -> None:
    error = UserError.many([Problem("a", "One.", "Do."), Problem("b", "Two.")])
    assert str(error) == "One. Do.\nTwo."
    assert [problem.code for problem in error.problems] == ["a", "b"]
    with pytest.raises(ValueError, match="at least one"):
        UserError.many([])


def test_a_failed_job_tells_its_problem() -> None:
    assert (
        str(JobFailed(Problem("memory", "Too little memory.", "Lower the rank.")))
        == "Too little memory. Lower the rank."
    )
