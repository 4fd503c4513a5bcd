"""The page: read the options, build it, serve it. What it shows is in ``ui``, what it runs is in ``trainer``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
from pathlib import Path

from trainer.commands.arguments import workspace_of
from trainer.errors import UserError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7860


def main(argv: list[str] | None = None) -> int:
    """Serve the page until interrupted. Returns the exit code: 0 ended, 2 wrong options."""
    args = _parser().parse_args(argv)
    try:
        _serve(args)
    except UserError as error:
        for problem in error.problems:
            sys.stderr.write(f"error: {problem}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="app.py", description="LoRA Atelier's page.")
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port (default: {DEFAULT_PORT})")
    parser.add_argument("--workspace", type=Path, help="folder for runs, caches and results")
    parser.add_argument("--allow", type=Path, action="append", default=[], metavar="DIR", help="folder it may open too")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument(
        "--share",
        action="store_true",
        help="make a public link with Gradio's relay, whose program is downloaded and run; needs --auth-file",
    )
    parser.add_argument("--auth-file", type=Path, metavar="F", help="file with one name:password a line")
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="other name it is asked for by: of a proxy, a tunnel or a container, such as atelier.example or box:8443",
    )
    return parser


def _serve(args: argparse.Namespace) -> None:
    from ui.exposure import allowed_hosts, check_exposure
    from ui.passwords import Door, read_users

    door = Door(read_users(args.auth_file)) if args.auth_file else None
    names = allowed_hosts(args.allowed_host, args.port)
    check_exposure(args.host, args.share, names, has_password=door is not None)
    workspace = workspace_of(args)

    from ui.serving import check_folders, check_port, prepare_process, start

    check_port(args.host, args.port)
    allowed = check_folders(args.allow)
    prepare_process(workspace)
    with contextlib.suppress(KeyboardInterrupt):
        url = start(
            workspace, allowed, host=args.host, port=args.port, door=door, share=args.share, allowed_hosts=names
        )
        sys.stdout.write(
            f"LoRA Atelier is at {url}\nWorkspace: {workspace.dir}\n{_who_may_enter(args.auth_file)}\n"
            "Ctrl+C ends the page; training goes on.\n"
        )
        sys.stdout.flush()
        if not args.no_browser:
            _open_browser(url)
        threading.Event().wait()


def _who_may_enter(auth_file: Path | None) -> str:
    from ui.passwords import is_readable_by_others

    if auth_file is None:
        return "Every account of this machine can open it; with --auth-file F it asks for a password."
    if is_readable_by_others(auth_file):
        return f"Other accounts of this machine can read the passwords: chmod 600 {auth_file}"
    return f"It asks for a password: {auth_file}"


def _open_browser(url: str) -> None:
    import webbrowser

    webbrowser.open(url)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # Gradio's threads would keep the process for some seconds
