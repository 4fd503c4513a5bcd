"""What every panel of the Dataset tab builds on: the open folder, its pages, its edits, its jobs.

Holds the context and caches, no state of a user: the browser names the folder with each request. No Gradio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.curation.caption_edits import Edit
from trainer.curation.edit_log import EditLog, Outcome, PastEdit
from trainer.curation.steps import Change, Step
from trainer.errors import UserError
from trainer.jobs import DIED, JobInfo, job, start_job
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.dataset import view as dataset_view
from ui.dataset.diagnosis import Diagnoses, panel
from ui.dataset.filters import Facts, Query, matching
from ui.dataset.library import Entry, Library, Listing
from ui.dataset.memory import DatasetMemory
from ui.dataset.sizes import PictureSizes
from ui.dataset.train_form import dataset_settings
from ui.dataset.view import Pages, as_ticked, picked, ticked
from ui.job_progress import JobReader, Progress
from ui.run_view import duration

View = dict[str, Any]
"""What the picture grid shows and sends along: folder, query, page, the page's cards, names of ticked pictures."""

Report = Callable[[dict[str, Any]], str]
"""What a finished command answered, in a sentence for the job panel."""

Opens = Callable[[dict[str, Any]], str]
"""The folder of pictures that a finished command made, to be opened from the job panel; empty for none."""

_RECENT_SECONDS = 300.0
_STOPPED = "Stopped. What is written stays; starting again goes on from there."


@dataclass(frozen=True)
class Telling:
    """How the job panel tells the end of a command.

    Attributes:
        report: what a finished one answered.
        opens: the folder that it made.
        stopped: what is said of a cancelled one.
        goes_on: whether one that was cancelled or killed goes on where it was when it is started again.
    """

    report: Report
    opens: Opens
    stopped: str
    goes_on: bool


@dataclass(frozen=True)
class Shown:
    """The open dataset after something happened: the grid, its edits, the doctor's findings.

    Attributes:
        undo, redo: titles of what they would act on; empty for nothing.
        version: of the edits, as ``EditLog.version`` gives it.
        history: edits that can be undone or redone, the latest first.
        findings, checked: what the doctor found when it last looked, and when that was.
        trigger: the dataset's trigger word, when it was opened just now.
    """

    view: View
    undo: str
    redo: str
    version: str
    history: list[PastEdit]
    findings: list[dict[str, Any]]
    checked: float | None
    trigger: str | None = None

    @property
    def opened(self) -> bool:
        """Whether it was opened just now."""
        return self.trigger is not None


class DatasetDesk:
    """Opens, pages and edits datasets for the page, and runs jobs on them."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.memory = DatasetMemory(context.workspace.dir / "dataset.json")
        self.thumbnails = context.thumbnails
        self._sizes = PictureSizes(context.workspace.cache_dir / "picture-sizes", context.allowed_folders)
        self._pages = Pages(self.thumbnails, self._sizes)
        self._library = Library(context.allowed_folders)
        self._jobs = JobReader(context.workspace)
        self.diagnoses = Diagnoses(context.workspace)
        self._tellings: dict[str, Telling] = {}

    def tells(
        self,
        command: str,
        report: Report,
        *,
        opens: Opens = lambda result: "",
        stopped: str = _STOPPED,
        goes_on: bool = False,
    ) -> None:
        """Have the job panel follow jobs of this trainer command, and tell how they ended, see ``Telling``."""
        self._tellings[command] = Telling(report, opens, stopped, goes_on)

    def choices(self) -> list[tuple[str, str]]:
        """The workspace's datasets as (name, folder)."""
        root = self.workspace.datasets_dir
        return [(folder.relative_to(root).as_posix(), str(folder)) for folder in dataset_view.datasets(root)]

    def open(self, path: str) -> Shown:
        """Open a folder and remember it. Raises UserError when it may not be opened or holds no pictures."""
        if not path.strip():
            raise UserError("dataset.no_folder", "No folder is given.", "Choose a dataset, or type a folder's path.")
        folder = self.context.allowed(path.strip())
        shown = self._opened(folder)
        self.memory.opened(folder)
        return shown

    def remembered(self) -> Shown | None:
        """The dataset that was open last; None when there is none, or it is gone or no longer allowed."""
        try:
            return self._opened(self.context.allowed(self.memory.folder)) if self.memory.folder else None
        except (OSError, UserError):
            return None

    def _opened(self, folder: Path) -> Shown:
        self.diagnoses.look_again(folder)
        return replace(self._shown(folder, Query()), trigger=self.memory.trigger(folder))

    def turn(self, view: View, wanted: Mapping[str, Any]) -> Shown:
        """Another page, search, filter or tag."""
        folder, query = self.folder(view), _query(wanted)
        listing = self._library.recent(folder)
        shown = self._shown(folder, query, view, listing)
        now = self._library.again(folder, [card["name"] for card in shown.view["cards"]])
        if now is not listing:  # what is on the page was changed by another program
            shown = self._shown(folder, query, view, now)
        return replace(shown, view={**shown.view, "asked": wanted.get("asked")})

    def pick(self, view: View, wanted: Mapping[str, Any]) -> Shown:
        """Tick pictures on all pages: all that match, all but the ticked ones, or a range."""
        folder, query = self.folder(view), _query(view)
        listing = self._library.recent(folder)
        found = matching(listing, query, self.facts(listing))
        names = picked(found, ticked(view), str(wanted["how"]), wanted["start"], wanted["end"])
        shown = self._shown(folder, query, {**view, "ticked": as_ticked(names)}, listing)
        return replace(shown, view={**shown.view, "asked": wanted.get("asked"), "picked": as_ticked(names)})

    def refresh(self, view: View) -> Shown:
        """The same page as it is on disk now."""
        shown = self._shown(self.folder(view), _query(view), view)
        return replace(shown, view={**shown.view, "asked": view.get("asked")})

    def save(self, view: View, name: str, before: str | None, text: str) -> Shown:
        """Write one caption, unless the file changed since the editor showed it: then tell what it holds now."""
        folder = self.folder(view)
        entry = self.entry(folder, name)
        change = Change(entry.caption_name, before, text)
        outcome = self.log(folder).apply(f"caption of {name}", [change], by=_window(view))
        listing = self._library.again(folder, [name])
        shown = self._shown(folder, _query(view), view, listing)
        told: dict[str, Any] = {"saved": name}
        if outcome.conflicts:
            told = {"clash": {"name": name, "theirs": listing.named(name).own.stored, "mine": text}}
        return replace(shown, view={**shown.view, "asked": view.get("asked"), **told})

    def entry(self, folder: Path, name: str) -> Entry:
        """The picture of this name as it is now. Raises UserError when it is not, or no longer, in the folder."""
        self._library.recent(folder).named(name)
        return self._library.again(folder, [name]).named(name)  # a file may have become a link that leads out

    def recent(self, folder: Path) -> Listing:
        """The pictures of a folder as they were some seconds ago at most. Raises UserError when there are none."""
        return self._library.recent(folder)

    def scoped(self, view: View, scope: str) -> list[Entry]:
        """The pictures of a scope: ``all``, ``shown`` or ``selected``. Raises UserError when that is none."""
        folder = self.folder(view)
        listing = self._library.listing(folder)
        return dataset_view.scoped(listing, scope, _query(view), self.facts(listing), ticked(view))

    def chosen(self, view: View, scope: str) -> dict[str, list[str]]:
        """The pictures of a scope, as ``start`` takes them for a command that has ``--names``; all need no list."""
        return {} if scope == "all" else {"names": [entry.name for entry in self.scoped(view, scope)]}

    def preview(self, view: View, scope: str, edit: Edit) -> list[Change]:
        """What an edit of captions would change."""
        return dataset_view.changes(self.scoped(view, scope), edit)

    def edit(self, view: View, scope: str, title: str, edit: Edit) -> tuple[Shown, Outcome]:
        """Change captions of all, shown or selected pictures."""
        return self.apply(view, title, self.preview(view, scope, edit))

    def apply(self, view: View, title: str, steps: Sequence[Step]) -> tuple[Shown, Outcome]:
        """Do steps as one edit that can be undone."""
        folder = self.folder(view)
        outcome = self.log(folder).apply(title, steps, by=_window(view)) if steps else Outcome(title, 0)
        return self.refresh(view), outcome

    def undo(self, view: View, seen: str | None = None) -> tuple[Shown, Outcome]:
        """Take back the last edit. Raises UserError for one from elsewhere, done since the version ``seen``."""
        folder = self.folder(view)
        self.refuse_while_busy(folder)
        outcome = self.log(folder).undo(seen, _window(view))
        return self.refresh(view), outcome

    def redo(self, view: View, seen: str | None = None) -> tuple[Shown, Outcome]:
        """Do the last edit taken back again. Raises UserError like ``undo``."""
        folder = self.folder(view)
        self.refuse_while_busy(folder)
        outcome = self.log(folder).redo(seen, _window(view))
        return self.refresh(view), outcome

    def go_to(self, view: View, number: int, seen: str | None = None) -> tuple[Shown, list[Outcome]]:
        """Undo or redo until this edit is the last in effect; 0 takes back all. Raises UserError like ``undo``."""
        folder = self.folder(view)
        self.refuse_while_busy(folder)
        outcomes = self.log(folder).go_to(number, seen, _window(view))
        return self.refresh(view), outcomes

    def version(self, folder: str) -> str:
        """The version of a folder's edits, for a page to see whether anything happened; empty for no folder."""
        return self.log(self.context.allowed(folder)).version() if folder else ""

    def elsewhere(self, view: View) -> str:
        """Which change of the open dataset this page did not make, in words; empty for its own, or a job's."""
        folder = self.folder(view)
        last = next((edit for edit in self.log(folder).history() if edit.in_effect), None)
        if self._busy(folder) or (last is not None and last.by in ("", _window(view))):
            return ""
        return f'The last change now is "{last.title}".' if last else "All changes were taken back."

    def start(
        self,
        view: View,
        command: list[str],
        title: str,
        options: Sequence[str] = (),
        lists: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Start a job on the open folder: ``command``, the folder, ``options``, and ``lists`` (see ``start_job``).

        Raises UserError while one runs.
        """
        folder = self.folder(view)
        self.refuse_while_busy(folder)
        start_job(self.workspace, [*command, str(folder), *options], f"{title} {folder.name}", lists)

    def cancel(self, job_id: str) -> None:
        """Ask a job to end."""
        job(self.workspace, job_id).cancel()

    def go_on(self, view: View, job_id: str) -> None:
        """Start a job that was cancelled or killed once more. Raises UserError for any other, and while one runs."""
        folder = self.folder(view)
        self.refuse_while_busy(folder)
        info = job(self.workspace, job_id).read()
        if info.command[1:2] != [str(folder)] or not self._goes_on(info):
            raise UserError("job.over", "This job cannot go on.", "Start a new one.")
        start_job(self.workspace, info.command, info.title)

    def job_panel(self, folder: str, shown: str) -> dict[str, Any] | None:
        """What the job panel shows for the open folder; None when that is ``shown`` already.

        ``key`` names the state that is shown; an empty panel has an empty one.
        """
        latest = self._jobs.latest(Path(folder), list(self._tellings)) if folder else None
        if latest is None:
            return {"key": "", "folder": folder} if shown else None
        if shown.startswith(f"{latest.id} ended"):
            return None
        info, progress = self._jobs.read(latest)
        offers = {"opens": self._opens(info), "goes_on": self._goes_on(info)}
        panel = _panel(info, progress, self._outcome(info)) | {"folder": folder, **offers}
        if info.state != "running" and time.time() - (info.ended or 0) > _RECENT_SECONDS:
            panel = {"key": f"{latest.id} ended", "folder": folder}
        return panel if panel["key"] != shown else None

    def facts(self, listing: Listing) -> Facts:
        """What the filter goes by: the doctor's findings, the sizes read so far, how training is meant."""
        findings, checked = self.findings(listing.folder)
        meant = dataset_settings(self.context).model_copy(update={"resolution": self.memory.resolution})
        return Facts(findings, self._sizes.known(listing), meant, checked)

    def _shown(
        self, folder: Path, query: Query, before: Mapping[str, Any] | None = None, listing: Listing | None = None
    ) -> Shown:
        log = self.log(folder)
        version = log.version()  # before the listing: what comes between is then shown twice, not missed
        listing = listing or self._library.listing(folder)
        facts = self.facts(listing)
        page = self._pages.page(listing, query, facts, before or {})
        return Shown(page, *log.titles(), version, log.history(), list(facts.findings), facts.checked)

    def findings(self, folder: Path) -> tuple[list[dict[str, Any]], float | None]:
        """What the doctor found when it last looked at the folder, and when that was."""
        diagnosis = self.diagnoses.read(folder)
        return diagnosis.as_json(), diagnosis.checked

    def findings_panel(self, folder: Path) -> dict[str, Any]:
        """What the panel of the doctor's findings shows."""

        def addresses(names: Sequence[str]) -> list[str]:
            token = self.thumbnails.register(folder, names)
            times = [_modified_ns(folder / name) for name in names]
            return [self.thumbnails.address("thumb", token, number, time) for number, time in enumerate(times)]

        return panel(self.diagnoses.read(folder), addresses)

    def folder(self, view: View) -> Path:
        """The open folder. The browser names it, so it is checked each time."""
        folder = view.get("folder") if isinstance(view, dict) else None
        if not isinstance(folder, str) or not folder:
            raise UserError("dataset.no_folder", "No dataset is open.", "Open a folder of pictures first.")
        return self.context.allowed(folder)

    def refuse_while_busy(self, folder: Path) -> None:
        """Raise UserError when a job works on the folder."""
        if self._busy(folder):
            message = "A job is working on this dataset."
            raise UserError("dataset.busy", message, "Wait until it has ended, or cancel it.")

    def _busy(self, folder: Path) -> bool:
        latest = self._jobs.latest(folder, list(self._tellings))
        return latest is not None and latest.read().state == "running"

    def log(self, folder: Path) -> EditLog:
        """The folder's edits."""
        return EditLog.of(self.workspace, folder)

    @property
    def workspace(self) -> Workspace:
        """Where everything the page makes lies."""
        return self.context.workspace

    def _outcome(self, info: JobInfo) -> list[str]:
        """What an ended job has to say."""
        telling = self._tellings[info.command[0]]
        if info.state == "stopped":
            return [telling.stopped]
        if info.error:
            return [f"{problem['message']} {problem['hint']}".strip() for problem in info.error]
        return [telling.report(info.result)] if info.result is not None else []

    def _opens(self, info: JobInfo) -> str:
        """The folder that a finished job made."""
        done = info.state == "finished" and info.result is not None
        return self._tellings[info.command[0]].opens(info.result or {}) if done else ""

    def _goes_on(self, info: JobInfo) -> bool:
        """Whether the job was cut short, and starting it again goes on where it was."""
        died = info.state == "failed" and [problem["code"] for problem in info.error or []] == [DIED]
        telling = self._tellings.get(info.command[0])
        return telling is not None and telling.goes_on and (died or info.state == "stopped")


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _query(view: Mapping[str, Any]) -> Query:
    asked = view.get("query")
    return Query.of({**(asked if isinstance(asked, dict) else {}), "page": view.get("page")})


def _window(view: View) -> str:
    """The open page that asks, by the name it gave itself."""
    window = view.get("window")
    return window if isinstance(window, str) else ""


def _panel(info: JobInfo, progress: Progress, outcome: list[str]) -> dict[str, Any]:
    running = info.state == "running"
    left = progress.seconds_left if running else None
    return {
        "key": f"{info.id} {progress.done} {progress.what}" if running else f"{info.id} ended",
        "id": info.id,
        "title": info.title,
        "state": info.state,
        "done": progress.done,
        "total": progress.total,
        "what": progress.what or "starting",
        "left": duration(left) if left is not None else "",
        "speed": progress.speed if running else "",
        "lines": [*progress.warnings, *outcome],
    }
