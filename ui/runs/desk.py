"""What the Runs tab reads and remembers: the runs there are, and the one that is shown. No Gradio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.checkpoint_folders import LORA, MANIFEST, checkpoints
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.runs.store import ENDED, Run, Workspace
from ui.run_list import RunList, RunListReader
from ui.run_view import RunReader, RunView, readers_of
from ui.runs.happenings import Happening, HappeningsReader

_FOLLOWED = 8


@dataclass(frozen=True)
class Shown:
    """The run that is shown.

    Attributes:
        run: its folder.
        reader: follows the folder; gives curves.
        view: the run as it is now.
    """

    run: Run
    reader: RunReader
    view: RunView


@dataclass(frozen=True)
class Overview:
    """All runs, and the one among them that is shown; None where there is none."""

    runs: RunList
    shown: Shown | None

    @property
    def selected(self) -> str:
        """Id of the run that is shown; empty for none."""
        return self.shown.run.id if self.shown else ""


class RunsDesk:
    """One object for all open pages: it keeps only what the files say."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._list = RunListReader(workspace)
        self._readers = readers_of(workspace.dir)
        self._happenings: dict[Path, HappeningsReader] = {}
        self._memory = workspace.dir / "last_run.json"

    def look(self, *wanted: str) -> Overview:
        """The runs as they are now, with the first of those ``wanted`` that there is, else the one that was shown last.

        Where that is gone too, one that is going is shown, else the newest.
        """
        runs = self._list.read()
        ids = [info.id for info in runs.infos]
        going = [info.id for info in runs.infos if info.state not in (*ENDED, "queued")]
        known = [run_id for run_id in (*wanted, self.last_shown()) if run_id in ids]
        selected = next(iter([*known, *going, *ids]), "")
        if not selected:
            return Overview(runs, None)
        run = self.run(selected)
        reader = self._readers.of(run)
        return Overview(runs, Shown(run, reader, reader.view()))

    def run(self, run_id: str) -> Run:
        """The run of this id. The browser names it, so it is looked up each time. Raises UserError."""
        return self.workspace.run(run_id)

    def view_of(self, run_id: str) -> RunView:
        """A run as it is now. Raises UserError where there is none."""
        return self._readers.of(self.run(run_id)).view()

    def runs(self) -> RunList:
        """All runs as they are now."""
        return self._list.read()

    def happenings(self, run: Run) -> tuple[int, tuple[Happening, ...]]:
        """What happened in the run that is shown, newest first, and how much in all.

        Only the last few runs asked for are followed: a reader is made anew in the time that reading the file takes.
        """
        reader = self._happenings.setdefault(run.dir, HappeningsReader(run))
        for old in list(self._happenings)[:-_FOLLOWED]:
            self._happenings.pop(old, None)
        return reader.read()

    def remember(self, run_id: str) -> None:
        """Have this run shown when the page is opened again."""
        write_json(self._memory, {"run": run_id})

    def last_shown(self) -> str:
        """The run that was shown last; empty where none was."""
        try:
            return str(read_json(self._memory)["run"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def forget(self, run: Run) -> None:
        """Drop what is kept of a run that is gone."""
        self._readers.forget(run)
        self._happenings.pop(run.dir, None)

    def lora_of(self, run_id: str) -> Path:
        """The finished LoRA of a run, else that of its newest checkpoint. Raises UserError."""
        run = self.run(run_id)
        if run.output_path.is_file():
            return run.output_path
        for folder in reversed(checkpoints(run.checkpoints_dir)):
            if (folder / MANIFEST).is_file() and (folder / LORA).is_file():
                return folder / LORA
        raise UserError("run.no_lora", "This run has not saved a LoRA yet.", "Wait for its end, or press Save now.")
