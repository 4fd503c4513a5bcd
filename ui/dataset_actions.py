"""What the Dataset tab does when something is pressed. Holds the context and caches, no state of a user."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.captioners import CAPTIONERS
from trainer.curation import caption_edits
from trainer.curation.caption_edits import Change, Edit
from trainer.curation.edit_log import EditLog, Outcome
from trainer.curation.intake import dataset_folder, take_in
from trainer.data.caption_files import read_caption
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.jobs import JobInfo, job, start_job
from ui import dataset_view
from ui.context import AppContext
from ui.dataset_view import Library, Listing, Query
from ui.job_progress import JobReader, Progress
from ui.run_view import duration
from ui.thumbnails import Thumbnails

View = dict[str, Any]
"""What the picture grid shows and sends along: folder, query, page, the page's cards, names of ticked pictures."""

COMMANDS = ("caption", "dataset")
_RECENT_SECONDS = 300.0


@dataclass(frozen=True)
class CaptionOrder:
    """What is asked of a caption job; texts as typed."""

    captioner: str
    model: str = ""
    prompt: str = ""
    trigger: str = ""
    prefix: str = ""
    suffix: str = ""
    overwrite: bool = False


@dataclass(frozen=True)
class Shown:
    """The open dataset after something happened: the grid, what undo and redo would do, the doctor's findings."""

    view: View
    undo: str
    redo: str
    findings: list[dict[str, Any]]
    checked: float | None


class DatasetActions:
    """Opening, paging, editing, captioning and checking datasets for the page."""

    def __init__(self, context: AppContext, thumbnails: Thumbnails) -> None:
        self._context = context
        self._thumbnails = thumbnails
        self._library = Library(self._may_read)
        self._jobs = JobReader(context.workspace)

    def choices(self) -> list[tuple[str, str]]:
        """The workspace's datasets as (name, folder)."""
        root = self._context.workspace.datasets_dir
        return [(folder.relative_to(root).as_posix(), str(folder)) for folder in dataset_view.datasets(root)]

    def open(self, path: str) -> Shown:
        """Open a folder and remember it. Raises UserError when it may not be opened or holds no pictures."""
        if not path.strip():
            raise UserError("dataset.no_folder", "No folder is given.", "Choose a dataset, or type a folder's path.")
        folder = self._context.allowed(path.strip())
        shown = self._shown(folder, Query())
        write_json(self._memory, {"folder": str(folder)})
        return shown

    def remembered(self) -> Shown | None:
        """The dataset that was open last; None when there is none, or it is gone or no longer allowed."""
        try:
            return self._shown(self._context.allowed(read_json(self._memory)["folder"]), Query())
        except (OSError, ValueError, KeyError, TypeError, UserError):
            return None

    def turn(self, view: View, wanted: Mapping[str, Any]) -> Shown:
        """Another page, search, filter or tag."""
        folder = self._folder(view)
        shown = self._shown(folder, Query.of(wanted), self._library.recent(folder))
        return replace(shown, view={**shown.view, "asked": wanted.get("asked")})

    def refresh(self, view: View) -> Shown:
        """The same page as it is on disk now."""
        shown = self._shown(self._folder(view), _query(view))
        return replace(shown, view={**shown.view, "asked": view.get("asked")})

    def save(self, view: View, name: str, before: str | None, text: str) -> Shown:
        """Write one caption, unless the file changed since the editor showed it: then tell what it holds now."""
        folder = self._folder(view)
        entry = self._library.recent(folder).named(name)
        outcome = self._log(folder).apply(f"caption of {name}", [Change(entry.caption_name, before, text)])
        shown = self.refresh(view)
        if outcome.conflicts:
            theirs = read_caption(entry.own.file)
            return replace(shown, view={**shown.view, "clash": {"name": name, "theirs": theirs}})
        return replace(shown, view={**shown.view, "saved": name})

    def preview(self, view: View, scope: str, edit: Edit) -> list[Change]:
        """What an edit would change."""
        return self._changes(view, scope, edit)[1]

    def edit(self, view: View, scope: str, title: str, edit: Edit) -> tuple[Shown, Outcome]:
        """Change captions of all, shown or selected pictures."""
        folder, changes = self._changes(view, scope, edit)
        outcome = self._log(folder).apply(title, changes) if changes else Outcome(title, 0)
        return self.refresh(view), outcome

    def undo(self, view: View) -> tuple[Shown, Outcome]:
        """Take back the last edit."""
        folder = self._folder(view)
        self._refuse_while_captioning(folder)
        outcome = self._log(folder).undo()
        return self.refresh(view), outcome

    def redo(self, view: View) -> tuple[Shown, Outcome]:
        """Do the last edit taken back again."""
        folder = self._folder(view)
        self._refuse_while_captioning(folder)
        outcome = self._log(folder).redo()
        return self.refresh(view), outcome

    def upload(self, files: Sequence[str], name: str) -> tuple[Shown, int, list[tuple[str, str]]]:
        """Take files into the workspace's dataset of this name and open it."""
        folder = dataset_folder(self._context.workspace.datasets_dir, name)
        intake = take_in([Path(file) for file in files], folder)
        return self.open(str(folder)), intake.added, intake.skipped

    def start_captions(self, view: View, order: CaptionOrder) -> None:
        """Start a caption job on the open folder. Raises UserError when one is running."""
        folder = self._folder(view)
        if order.captioner not in CAPTIONERS:
            raise UserError("caption.unknown", "No captioner is chosen.", "Choose one.", "captioner")
        model = order.model.strip()
        if model and Path(model).expanduser().exists():
            model = str(self._context.allowed(model))
        texts = {"prompt": order.prompt, "trigger": order.trigger, "prefix": order.prefix, "suffix": order.suffix}
        command = [f"--captioner={order.captioner}", f"--workspace={self._context.workspace.dir}"]
        command += [f"--model={model}"] if model else []
        command += [f"--{name}={text}" for name, text in texts.items() if text.strip()]
        command += ["--overwrite"] if order.overwrite else []
        self._start(["caption", str(folder), *command], f"Captions for {folder.name}")

    def start_check(self, view: View, resolution: int) -> None:
        """Start the doctor on the open folder. Raises UserError when a job is running there."""
        folder = self._folder(view)
        self._start(["dataset", str(folder), f"--resolution={resolution}"], f"Check of {folder.name}")

    def cancel(self, job_id: str) -> None:
        """Ask a job to end."""
        job(self._context.workspace, job_id).cancel()

    def job_panel(self, folder: str, shown: str) -> dict[str, Any] | None:
        """What the job panel shows for the open folder; None when that is ``shown`` already.

        ``key`` names the state that is shown; an empty panel has an empty one.
        """
        latest = self._jobs.latest(Path(folder), COMMANDS) if folder else None
        if latest is None:
            return {"key": "", "folder": folder} if shown else None
        if shown.startswith(f"{latest.id} ended"):
            return None
        info, progress = self._jobs.read(latest)
        panel = _panel(info, progress) | {"folder": folder}
        if info.state != "running" and time.time() - (info.ended or 0) > _RECENT_SECONDS:
            panel = {"key": f"{latest.id} ended", "folder": folder}
        return panel if panel["key"] != shown else None

    def _may_read(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._context.allowed_folders())

    def _shown(self, folder: Path, query: Query, listing: Listing | None = None) -> Shown:
        findings, checked = self._findings(folder)
        undo, redo = self._log(folder).titles()
        view = dataset_view.view(listing or self._library.listing(folder), query, findings, self._thumbnails)
        return Shown(view, undo, redo, findings, checked)

    def _changes(self, view: View, scope: str, edit: Edit) -> tuple[Path, list[Change]]:
        folder = self._folder(view)
        listing: Listing = self._library.listing(folder)
        findings, _ = self._findings(folder)
        entries = dataset_view.scoped(listing, scope, _query(view), findings, view.get("selected") or [])
        return folder, dataset_view.changes(entries, edit)

    def _findings(self, folder: Path) -> tuple[list[dict[str, Any]], float | None]:
        """What the doctor found when it last looked at the folder, and when that was."""
        latest = self._jobs.latest(folder, ["dataset"])
        info = latest.read() if latest else None
        if info is None or info.result is None or info.state != "finished":
            return [], None
        return info.result["findings"], info.ended

    def _folder(self, view: View) -> Path:
        """The open folder. The browser names it, so it is checked each time."""
        folder = view.get("folder") if isinstance(view, dict) else None
        if not isinstance(folder, str) or not folder:
            raise UserError("dataset.no_folder", "No dataset is open.", "Open a folder of pictures first.")
        return self._context.allowed(folder)

    def _start(self, command: list[str], title: str) -> None:
        self._refuse_while_captioning(Path(command[1]))
        start_job(self._context.workspace, command, title)

    def _refuse_while_captioning(self, folder: Path) -> None:
        latest = self._jobs.latest(folder, COMMANDS)
        if latest is not None and latest.read().state == "running":
            message = "A job is working on this dataset."
            raise UserError("dataset.busy", message, "Wait until it has ended, or cancel it.")

    def _log(self, folder: Path) -> EditLog:
        return EditLog.of(self._context.workspace, folder)

    @property
    def _memory(self) -> Path:
        return self._context.workspace.dir / "dataset.json"


def tag_edit(kind: str, tag: str) -> tuple[str, Edit]:
    """A tag edit by the name of its button: (title for undo, edit). Raises UserError for a blank tag."""
    edits = {
        "first": (f"trigger word {tag.strip()}", lambda: caption_edits.put_trigger_first(tag)),
        "add": (f"add {tag.strip()}", lambda: caption_edits.add_tag(tag)),
        "remove": (f"remove {tag.strip()}", lambda: caption_edits.remove_tag(tag)),
        "unique": ("remove double tags", caption_edits.remove_duplicate_tags),
    }
    title, make = edits[kind]
    return title, make()


def _query(view: View) -> Query:
    asked = view.get("query")
    return Query.of({**(asked if isinstance(asked, dict) else {}), "page": view.get("page")})


def _panel(info: JobInfo, progress: Progress) -> dict[str, Any]:
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
        "lines": [*progress.warnings, *_outcome(info)],
    }


def _outcome(info: JobInfo) -> list[str]:
    """What an ended job has to say."""
    if info.state == "running":
        return []
    if info.error:
        return [f"{problem['message']} {problem['hint']}".strip() for problem in info.error]
    result = info.result or {}
    if "written" in result:
        return [f"{result['written']} captions written, {result['kept']} pictures already had one."]
    if "findings" in result:
        count = len(result["findings"])
        return [f"{result['pictures']} pictures looked at: {count or 'no'} {'finding' if count == 1 else 'findings'}."]
    return ["Stopped. What is written stays; starting again goes on from there."] if info.state == "stopped" else []
