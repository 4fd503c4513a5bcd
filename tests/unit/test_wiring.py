"""How events are wired is said in one place."""

from __future__ import annotations

from pathlib import Path

from ui import wiring

UI = Path(wiring.__file__).parent


def test_no_other_file_has_such_arguments_of_its_own() -> None:
    own = {path.relative_to(UI).as_posix() for path in UI.rglob("*.py") if '"show_progress":' in path.read_text()}
    assert own == {"wiring.py"}
