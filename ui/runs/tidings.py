"""How the runs stand, for the page's title and the system's notifications."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trainer.runs.store import ENDED, RunInfo
from ui.context import AppContext
from ui.runs.board import RunsBoard
from ui.scripted import scripted

TOLD_SECONDS = 900
"""How long an ended run is told: a page that nobody looks at asks once a minute."""
MOST = 20


def build(context: AppContext, board: RunsBoard) -> None:
    """Lay the switch for notifications out, and answer the script that asks: ``assets/tidings.js``."""
    scripted("run-notify", css=("runs/panel",), js=("dataset/dom", "runs/notify"))

    def now(request: Request) -> Response:
        return JSONResponse({"runs": tidings(board.desk.runs().infos, time.time())})

    context.page.route("/atelier/runs/now", now)


def tidings(infos: Sequence[RunInfo], now: float) -> list[dict[str, Any]]:
    """Runs that wait, go on or have just ended; those that are trained first, then the newest."""
    told = [info for info in infos if info.state not in ENDED or now - (info.ended or 0) < TOLD_SECONDS]
    told.sort(key=lambda info: (info.state in ENDED or info.state in ("queued", "paused"), -info.created))
    return [
        {
            "id": info.id,
            "name": info.name,
            "state": info.state,
            "step": info.step,
            "max_steps": info.max_steps,
            "error": (info.error or "").partition("\n")[0],
        }
        for info in told[:MOST]
    ]
