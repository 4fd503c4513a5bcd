"""Every setting of a prompt line reaches the preview: another picture, and its own entry in the PNG's text."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from tests.recipe.tiny_runs import of_type, train_here
from trainer.pictures import read_settings
from trainer.runs.store import Run, Workspace

PLAIN = "a red circle --w 64 --h 64 --d 1 --l 3 --s 2 --ss ddim"
CHANGED: dict[str, tuple[str, str, Any]] = {
    "a red circle": ("a blue square", "prompt", "a blue square"),
    "--w 64": ("--w 128", "width", 128),
    "--h 64": ("--h 128", "height", 128),
    "--d 1": ("--d 2", "seed", 2),
    "--l 3": ("--l 6", "guidance", 6),
    "--s 2": ("--s 3", "steps", 3),
    "--ss ddim": ("--ss euler_a", "sampler", "euler_a"),
    "--d": ("--n a red circle --d", "negative", "a red circle"),
    "--ss": ("--cs 2 --ss", "clip_skip", 2),
}


@pytest.fixture(scope="module")
def drawn(config_of, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run with the plain line and one line for each change."""
    lines = [PLAIN, *(PLAIN.replace(old, new, 1) for old, (new, _, _) in CHANGED.items())]
    run = Workspace(tmp_path_factory.mktemp("workspace")).create_run(
        config_of(train__max_steps=1, samples__every_steps=1, samples__at_start=False, samples__prompts=lines)
    )
    train_here(run)
    return run


@pytest.mark.parametrize("number", range(1, len(CHANGED) + 1), ids=[new for new, _, _ in CHANGED.values()])
def test_a_setting_changes_the_preview(drawn: Run, number: int) -> None:
    paths = {event["index"]: drawn.dir / event["path"] for event in of_type(drawn, "sample")}
    _, name, value = list(CHANGED.values())[number - 1]
    settings, plain = read_settings(paths[number]), read_settings(paths[0])
    assert settings[name] == value
    assert {key for key in plain if settings[key] != plain[key]} == {name}, "and nothing else"
    with Image.open(paths[number]) as picture, Image.open(paths[0]) as before:
        assert picture.size == (settings["width"], settings["height"])
        assert picture.size != before.size or picture.tobytes() != before.tobytes()
