"""What several of these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Hub, hub_server, use_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in for the Hub, which this process asks; what it gets goes to ``hub`` in the test's folder."""
    with hub_server() as running:
        use_hub(monkeypatch, running.address, tmp_path / "hub")
        yield running
