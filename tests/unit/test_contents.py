"""What has changed in a training set, told in words."""

from __future__ import annotations

import pytest

from trainer.data.contents import Contents, differences

BEFORE: Contents = {"0/a": ["1", "x", "a.png"], "0/b": ["2", "y", "b.png"]}


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (BEFORE, ""),
        ({}, ""),
        (BEFORE | {"0/a": ["9", "x", "a.png"]}, "1 changed picture (a.png)"),
        (BEFORE | {"0/a": ["1", "z", "a.png"]}, "1 changed caption (a.png)"),
        ({"0/a": BEFORE["0/a"]}, "1 missing picture (b.png)"),
        (
            BEFORE | {f"0/{name}": ["1", "x", f"{name}.png"] for name in "fedc"},
            "4 new pictures (c.png, d.png, e.png, ...)",
        ),
    ],
)
def test_differences(now: Contents, told: str) -> None:
    assert differences(BEFORE, now) == told


def test_of_a_checkpoint_that_does_not_know_nothing_is_said() -> None:
    assert differences({}, BEFORE) == ""
