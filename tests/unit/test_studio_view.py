"""What the Settings tab says of the picture process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_studio import FAST, quiet
from trainer.errors import UserError
from trainer.runs.store import Workspace
from trainer.studio import Studio, StudioInfo
from ui.studio_view import held, let_go


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (StudioInfo(), "No model is loaded."),
        (StudioInfo(state="loading", model="demo"), "Loading demo."),
        (
            StudioInfo(
                state="ready", model="demo", device="cpu", memory_bytes=512_000_000, loras=["/a/neon.safetensors"]
            ),
            "Loaded: demo, for the processor. 512.0 MB of memory. LoRAs: neon.",
        ),
        (StudioInfo(state="drawing", model="<b>", device="cuda:0"), "Loaded: &lt;b&gt;, for the GPU."),
        (StudioInfo(state="ready", model="demo", device="cpu", savers=["In tiles."]), "<p class='quiet'>In tiles.</p>"),
        (StudioInfo(state="ready", model="demo", replays="Not <1>."), "<p class='quiet'>Not &lt;1&gt;.</p>"),
    ],
)
def test_words(info: StudioInfo, words: str) -> None:
    assert words in held(info)


def test_it_is_not_let_go_while_pictures_wait(tmp_path: Path) -> None:
    studio = quiet(Studio(Workspace(tmp_path), 1))
    let_go(studio)
    studio.generate(FAST)
    with pytest.raises(UserError, match="in use"):
        let_go(studio)
