"""What a run needs on another machine, brought there: the program, what its settings name, and the run folder itself.

There it lies in the host's folder::

    program/<digest>/     this program; another version goes beside it, as a run may still use the older one
    venv/                 what launch.sh installs
    data/ models/ loras/  what settings name, in a folder for each path of this machine: sent once, then what changed
    workspace/            as here: runs/<run id>/ is the same run as here, told in the words of that machine
"""

from __future__ import annotations

import hashlib
import re
import shlex
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.config_io import parse_config, save_config
from trainer.config_paths import paths_in, put_at
from trainer.errors import UserError
from trainer.files import write_json
from trainer.outward_links import refuse_links
from trainer.packing import HIDDEN, PROGRAM, PROGRAM_DIR, planned
from trainer.remote.ssh import Connection, Refused, last_json
from trainer.runs.store import Run, RunInfo

INSTALL_SECONDS = 3600
_WRONG_INPUT = 2
"""Exit code of a trainer command that refuses what it was asked."""
WITHOUT_OWN = [f"--exclude={name}" for name in ("/run.json", "/config.yaml", "/control/", ".*")]
"""Options of rsync that leave out of a run folder what each machine writes for itself."""
_SENT = {"id", "name", "created", "step", "max_steps", "epoch", "extend_to", "extended", "processes"}
_WITHOUT_HIDDEN = [f"--exclude={name}" for name in HIDDEN]


class There:
    """Our folder on a host. Raises UserError where it cannot be made, and Unreachable.

    Attributes:
        program: the digest of the program that is used there: this one, or the one that has begun a run.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.program = program_digest()
        self.name = connection.host.name
        script = 'umask 077; mkdir -p -- "$1/workspace/runs" && cd -- "$1" && pwd -P'
        made = connection.run(script, connection.host.folder)
        self.folder = made.rstrip("\n").rpartition("\n")[2]

    def run_dir(self, run: Run) -> str:
        return f"{self.folder}/workspace/runs/{run.id}"

    def make_folders(self, *paths: str) -> None:
        """See to it that there are such folders."""
        self.connection.run('mkdir -p -- "$@"', *paths)

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return self.connection.run('[ -e "$1" ] && echo yes || echo no', path).split()[-1] == "yes"

    def trainer(self, *arguments: str, seconds: float = 120) -> Any:
        """What a trainer command answers there.

        Raises UserError as the command tells it, Refused when it could not do its work, and Unreachable.
        """
        program = f"{self.folder}/program/{self.program}"
        python = self.connection.host.python
        start = f"{shlex.quote(python)} -m trainer" if python else "bash launch.sh trainer"
        script = f'cd -- "$1" && export LORA_ATELIER_VENV="$2" && shift 2 && exec {start} "$@"'
        workspace = ["--workspace", f"{self.folder}/workspace", "--json"]
        try:
            said = self.connection.run(script, program, f"{self.folder}/venv", *arguments, *workspace, seconds=seconds)
            return last_json(said)
        except (Refused, ValueError) as error:
            told = " ".join(re.findall(r"^error: (.*)", str(error), re.MULTILINE))
            message, hint = f"{self.name}: {told or error}", "The folder there has its logs."
            answered = told and isinstance(error, Refused) and error.exit_code == _WRONG_INPUT
            raise (UserError if answered else Refused)("remote.trainer", message, hint) from error


@cache
def program_digest() -> str:
    """What tells this version of the program from every other: of names and contents of its files."""
    digest = hashlib.sha256()
    for name in PROGRAM:
        top = PROGRAM_DIR / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            hidden = any(fnmatch(part, name) for part in path.relative_to(top).parts for name in HIDDEN)
            if path.is_file() and not hidden:
                digest.update(path.relative_to(PROGRAM_DIR).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def send_program(there: There) -> None:
    """Bring this program there and install what it needs, where that is not done yet."""
    there.program = program_digest()
    target = f"{there.folder}/program/{there.program}"
    sources = [f"{PROGRAM_DIR}/{name}" for name in PROGRAM]
    there.make_folders(target)
    there.connection.send(sources, target, "--perms", "--delete", *_WITHOUT_HIDDEN)
    there.trainer("runs", "list", seconds=INSTALL_SECONDS)


def config_there(config: Config, folder: str) -> tuple[Config, dict[str, Path]]:
    """Settings with the paths that their files have in a host's folder, and what has to be brought to which of them.

    Raises UserError, all problems at once, for files and folders that are not here, and for folders with links that
    lead out of them: what they lead to would be sent.
    """
    packed = planned(config, with_data=True, with_model=True, place_of=_folder_of)
    refuse_links(packed.copies.values(), HIDDEN)
    values = packed.config.model_dump(mode="json", exclude_defaults=True)
    for name, path in list(paths_in(values)):
        if path in packed.copies:
            put_at(values, name, f"{folder}/{path}")
    return parse_config(values), {f"{folder}/{place}": source for place, source in packed.copies.items()}


def send_files(there: There, files: dict[str, Path]) -> None:
    """Bring what settings name there: of what is there already only what has changed, and what is gone here goes."""
    for place, source in files.items():
        folder = source.is_dir()
        end = "/" if folder else ""  # to rsync: what is in it
        there.make_folders(place if folder else str(Path(place).parent))
        there.connection.send([f"{source}{end}"], f"{place}{end}", "--copy-links", "--delete", *_WITHOUT_HIDDEN)


def send_run(there: There, run: Run, config: Config, about_to_be: Callable[[], None]) -> None:
    """Bring a run there as it is here, queued there.

    Its ``run.json`` comes last: without, it is no run. ``about_to_be`` is called before.
    """
    target, host = there.run_dir(run), there.connection.host
    there.make_folders(*(f"{target}/{name}" for name in ("control", "samples", "checkpoints", "output")))
    there.connection.send([f"{run.dir}/"], f"{target}/", "--delete", *WITHOUT_OWN)
    info = run.read()
    sent = RunInfo(
        **info.model_dump(include=_SENT),
        state="queued",
        queued=info.queued or info.created,
        wanted_device=host.devices or None,
    )
    with tempfile.TemporaryDirectory(prefix="atelier-run-") as folder:
        save_config(config, Path(folder, "config.yaml"))
        write_json(Path(folder, "run.json"), sent.model_dump())
        about_to_be()
        for name in ("config.yaml", "run.json"):
            there.connection.send([f"{folder}/{name}"], f"{target}/")


def _folder_of(path: str, number: int) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:12]
