"""Addresses of pictures, asked without a browser."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from trainer.runs.store import Workspace
from trainer.studio import Studio
from ui.context import AppContext
from ui.media import add_routes, live_url


def test_the_picture_being_drawn_is_served_as_it_stands(tmp_path: Path) -> None:
    context = AppContext(Workspace(tmp_path))
    add_routes(context)
    client = TestClient(Starlette(routes=context.page.routes))
    path = Studio(context.workspace, 1).live_path("1-generate-a")
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(path)
    first = live_url(path)
    answer = client.get(first)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content == path.read_bytes()
    os.utime(path, ns=(1, 1))
    assert live_url(path) != first
    path.unlink()
    assert client.get(first).status_code == 404
    assert client.get("/atelier/live/..%2fstudio.json").status_code == 404
