"""Preparing the process and serving the page with the checks in front of it."""

from __future__ import annotations

import errno
import logging
import os
import socket
from pathlib import Path

from starlette.middleware import Middleware

from trainer.errors import UserError
from trainer.runs.interrupted import keep_workers
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.early_script import EarlyScript
from ui.exposure import page_hosts
from ui.passwords import Door
from ui.security import LocalOnlyMiddleware

MAX_UPLOAD = "2gb"
LOG_NAME = "page.log"


def check_port(host: str, port: int) -> None:
    """Raise UserError when the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except (OSError, OverflowError) as error:
            raise UserError("app.port", f"--host {host} --port {port}: {_reason(error)}.", _remedy(error)) from error


def check_folders(folders: list[Path]) -> tuple[Path, ...]:
    """The folders resolved. Raises UserError naming each that does not exist."""
    resolved = tuple(folder.expanduser().resolve() for folder in folders)
    missing = [folder for folder in resolved if not folder.is_dir()]
    if missing:
        listing = ", ".join(map(str, missing))
        raise UserError("app.folder", f"--allow {listing}: there is no such folder.", "Check the path.")
    return resolved


def prepare_process(workspace: Workspace) -> None:
    """Set what Gradio reads when it is imported: no calls out, temporary files in the workspace, a log file.

    The process also leaves its folder for an empty one: Gradio serves files of the working folder on request.
    """
    temporary, empty, logs = (workspace.dir / name for name in ("tmp/page", "tmp/empty", "logs"))
    try:
        for folder in (temporary, empty, logs):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            "app.workspace", f"The workspace {workspace.dir} cannot be written: {error}.", "Choose another --workspace."
        ) from error
    os.environ |= {
        "FORWARDED_ALLOW_IPS": os.environ.get("FORWARDED_ALLOW_IPS", ""),  # else anybody here may claim an address
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        "GRADIO_TEMP_DIR": str(temporary),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": _with_loopback(os.environ.get("NO_PROXY", "")),
    }
    os.chdir(empty)
    handler = logging.FileHandler(logs / LOG_NAME, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("lora_atelier").addHandler(handler)


def start(
    workspace: Workspace,
    allowed: tuple[Path, ...],
    *,
    host: str,
    port: int,
    door: Door | None,
    share: bool,
    allowed_hosts: frozenset[str] = frozenset(),
) -> str:
    """Build and serve the page in the background; returns its address."""
    from ui import shell, theme  # gradio reads the environment when it is imported

    context = AppContext(workspace, allowed)
    keep_workers(workspace)  # runs may be waiting since the machine went down
    page = shell.build_page(context)
    _let_the_queue_rest(page)
    hosts = page_hosts(host, port)
    guard = Middleware(LocalOnlyMiddleware, hosts=hosts, allowed=allowed_hosts, door=door, share=share)
    early = Middleware(EarlyScript, script=theme.asset("early.js"))
    _, local_url, share_url = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        footer_links=[],
        _frontend=False,  # else Gradio gives up where a busy machine takes over 3 s to answer its first request
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size=MAX_UPLOAD,
        app_kwargs={
            "middleware": [guard, early],
            "routes": context.page.routes,
            "openapi_url": None,
            "docs_url": None,
            "redoc_url": None,
        },
        theme=theme.make_theme(),
        css=theme.style_sheet(),
        head=theme.head(),
    )
    return share_url or local_url


def _let_the_queue_rest(page: object) -> None:
    """Gradio's queue looks for work every millisecond, about 7 % of a core while nothing happens: every 20 ms does."""
    queue = getattr(page, "_queue", None)
    for name, seconds in (("sleep_when_free", 0.02), ("progress_update_sleep_when_free", 0.1)):
        if hasattr(queue, name):  # private names, gone in another version of Gradio
            setattr(queue, name, seconds)


def _with_loopback(no_proxy: str) -> str:
    return ",".join([*filter(None, [no_proxy]), "127.0.0.1", "localhost"])


def _reason(error: OSError | OverflowError) -> str:
    if isinstance(error, OverflowError):
        return "a port is a number from 1 to 65535"
    if error.errno == errno.EADDRINUSE:
        return "something else already uses this port"
    if error.errno == errno.EACCES:
        return "this port needs administrator rights"
    return f"this address cannot be used ({error.strerror or error})"


def _remedy(error: OSError | OverflowError) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "LoRA Atelier may be open already; otherwise add --port with another number."
    return "Choose another --host or --port."
