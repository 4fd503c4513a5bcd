"""The real app with an ear on it: ``python watched_app.py FOLDER OUTSIDE``, then the options of ``app.py``.

FOLDER gets ``routes.json``, every route that is served with its methods; ``touched.log``, what Python touched in
OUTSIDE; and ``started.log``, which processes should have been started. None is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gradio as gr
from starlette.routing import BaseRoute

import app
from tests.security.watch import Watch
from trainer.files import write_json


def lines_to(path: Path) -> Callable[[str], None]:
    """Adds lines to a file that is open already, so that the watch does not hear itself."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda line: os.write(descriptor, f"{line!r}\n".encode()) and None


def told(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Address and methods of each route, those of routers in the app included."""
    for route in routes:
        inner: Any = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        path = prefix + getattr(route, "path", "")
        if inner:
            yield from told(inner, path)
        elif path:
            yield path, sorted(getattr(route, "methods", None) or [])


def main() -> None:
    """Serve until ended."""
    folder, outside = Path(sys.argv[1]), Path(sys.argv[2])
    launch = gr.Blocks.launch

    def and_tell(self: gr.Blocks, *args: Any, **options: Any) -> Any:
        answer = launch(self, *args, **options)
        write_json(folder / "routes.json", list(told(self.app.routes)))  # whole, for those who wait for it
        return answer

    gr.Blocks.launch = and_tell
    sys.addaudithook(Watch(outside, lines_to(folder / "touched.log"), lines_to(folder / "started.log")))
    app.main(sys.argv[3:])


if __name__ == "__main__":
    main()
