"""The Settings tab: folders, look, picture model, optimizers, machine, disk."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.config_training import CLASS_PATH
from trainer.errors import UserError
from trainer.files import size_bytes
from trainer.remote.hosts import hosts
from trainer.runs.settings import AppSettings, change_settings, read_settings
from trainer.runs.store import Workspace
from trainer.studio import Studio
from ui import disk_use, hub_cards, machine, studio_view
from ui.context import AppContext
from ui.messages import as_html, inform, tells_problems
from ui.run_view import file_size
from ui.scripted import kept
from ui.wiring import IN_TURN, LAST_COUNTS

THEMES = {"system": "As the system", "light": "Light", "dark": "Dark"}
KEPT: dict[str, Any] = {**IN_TURN, **LAST_COUNTS}
"""For fields: what is chosen while the choice before is still being kept is kept too."""
_LEAST_MINUTES = {"studio_idle_minutes": 1, "trainer_ready_minutes": 0, "hung_run_minutes": 0}


@dataclass(frozen=True)
class SettingsTab:
    """What other parts of the page use.

    Attributes:
        folders: the list of open folders, as HTML; changes when one is added or removed.
    """

    folders: gr.HTML


def build(context: AppContext) -> SettingsTab:
    """Lay the tab out and wire it."""
    with gr.Row(elem_classes=["two-columns"]):
        with gr.Column(scale=5, elem_classes=["main-column"]):
            folders = _folders(context)
            _disk(context)
            with gr.Column(elem_classes=["card"]):
                _title("Downloads and caches", "They are got or made anew when they are needed.")
                hub_cards.cache_card(context, _this_tab())
        with gr.Column(scale=3, min_width=320, elem_classes=["side"]):
            _look(context)
            _studio(context)
            _trainer(context)
            _optimizers(context)
            with gr.Column(elem_classes=["card"]):
                _title("Hugging Face account", "For models behind terms, and to share LoRAs.")
                hub_cards.account_card(_this_tab())
            _machine()
            _other_machines(context.workspace)
    return SettingsTab(folders)


def add_folder(context: AppContext, text: str) -> Path:
    """Open a folder to the page. Raises UserError."""
    given = text.strip()
    path = Path(given).expanduser()
    if not given or not path.is_absolute():
        raise UserError("folder.relative", f"{given!r} is not a full path.", "Give the path from the root on.")
    resolved = path.resolve()
    if not resolved.is_dir():
        raise UserError("folder.missing", f"{resolved} is not a folder.", "Check the path.")
    if resolved == Path(resolved.anchor):
        raise UserError("folder.root", "This would open the whole disk to the page.", "Choose a folder on it.")
    if any(resolved.is_relative_to(folder) for folder in context.allowed_folders()):
        raise UserError("folder.known", f"{resolved} is open already.", "Nothing is to be done.")
    change_settings(context.workspace, lambda now: now.model_copy(update={"folders": [*now.folders, str(resolved)]}))
    return resolved


def remove_folder(workspace: Workspace, folder: str) -> None:
    """Close a folder to the page again; its files stay as they are."""

    def without(now: AppSettings) -> AppSettings:
        return now.model_copy(update={"folders": [known for known in now.folders if known != folder]})

    change_settings(workspace, without)


def change(workspace: Workspace, **changes: Any) -> None:
    """Change some of the settings file. Raises UserError for values that are not allowed."""
    for name in changes.keys() & _LEAST_MINUTES.keys():
        least, minutes = _LEAST_MINUTES[name], changes[name]
        if not isinstance(minutes, int | float) or not least <= minutes <= 1440 or minutes != int(minutes):
            hint = f"Give a whole number from {least} to 1440."
            raise UserError("settings.minutes", f"{minutes} minutes are not allowed.", hint)
        changes[name] = int(minutes)
    change_settings(workspace, lambda now: AppSettings.model_validate(now.model_dump() | changes))


def allow_optimizers(workspace: Workspace, lines: str) -> None:
    """Let runs use optimizer classes, one a line. Raises UserError for lines that name no class."""
    given = [line.strip() for line in lines.splitlines() if line.strip()]
    for line in given:
        if not re.fullmatch(CLASS_PATH, line):
            message = f"{line!r} is not the full name of a class."
            raise UserError("settings.optimizer", message, "Write it like torch.optim.RAdam, one a line.")
    change(workspace, allowed_optimizers=list(dict.fromkeys(given)))


def _folders(context: AppContext) -> gr.HTML:
    with gr.Column(elem_classes=["card"]):
        _title("Folders", "The page may read and write in these folders, and nowhere else.")
        listing = gr.HTML(_folders_html(context), elem_id="folders", padding=False)
        with gr.Row(elem_classes=["preset-row"]):
            path = gr.Textbox(
                label="Open another folder",
                placeholder="/path/to/pictures",
                elem_id="new-folder",
                elem_classes=["field"],
                interactive=True,
            )
            add = gr.Button("Open", scale=0, min_width=90, elem_id="add-folder")
        problem = gr.HTML("", elem_id="folder-problem", padding=False)
        with gr.Row(elem_classes=["preset-row"]):
            known = gr.Dropdown(
                _own_folders(context), label="Close a folder", elem_classes=["field"], interactive=True, elem_id="known"
            )
            remove = gr.Button("Close", scale=0, min_width=90, elem_id="remove-folder")

    def shown(message: str = "") -> list[Any]:
        choices = gr.update(choices=_own_folders(context), value=None)
        return [_folders_html(context), choices, message]

    def on_add(text: str) -> list[Any]:
        try:
            add_folder(context, text or "")
        except UserError as error:
            return [gr.skip(), gr.skip(), as_html(error), gr.skip()]
        return [*shown(), ""]

    def on_remove(folder: str | None) -> list[Any]:
        remove_folder(context.workspace, folder or "")
        return shown()

    gr.on([add.click, path.submit], on_add, path, [listing, known, problem, path], **IN_TURN)
    remove.click(on_remove, known, [listing, known, problem], **IN_TURN)
    context.page.load(shown, outputs=[listing, known, problem])
    return listing


def _look(context: AppContext) -> None:
    with gr.Column(elem_classes=["card"]):
        _title("Look", "")
        choices = [(label, name) for name, label in THEMES.items()]
        theme = gr.Dropdown(
            choices,
            value=read_settings(context.workspace).theme,
            label="Colours",
            filterable=False,
            elem_id="theme",
            elem_classes=["field"],
            interactive=True,
        )
    theme.input(lambda chosen: change(context.workspace, theme=chosen), theme, None, **KEPT)
    theme.input(None, theme, None, js="theme => atelier.setTheme(theme)")
    context.page.load(lambda: [read_settings(context.workspace).theme], outputs=[theme])


def _studio(context: AppContext) -> None:
    with gr.Column(elem_classes=["card"]):
        _title("Picture model", "It stays loaded for Generate and for merge previews, so that pictures come quickly.")
        info = "Frees its memory; the next picture takes some seconds more."
        _minutes(context, "studio_idle_minutes", info, "studio-minutes")
        seen, held = kept(), gr.HTML("", padding=False, elem_id="studio-held")
        go = gr.Button("Let it go now", elem_id="studio-let-go", size="sm", elem_classes=["fold"])
    studio = Studio(context.workspace, read_settings(context.workspace).studio_idle_minutes)

    def look(shown: str) -> list[str] | None:
        now = studio_view.held(studio.info())
        return None if now == shown else [now, now]

    go.click(tells_problems(lambda: studio_view.let_go(studio)), None, None, **IN_TURN)
    context.page.poll(look, [seen], [seen, held])


def _trainer(context: AppContext) -> None:
    with gr.Column(elem_classes=["card"]):
        _title("Trainer", "It is loaded while the Train tab is looked at, so that a training begins at once.")
        info = "Frees 0.4 GB of memory; the next start takes some seconds more. With 0 none is loaded."
        _minutes(context, "trainer_ready_minutes", info, "trainer-minutes")
        info = "A run that hangs in a driver or on a disk is told of, and then ended. With 0 it is only told of."
        _minutes(context, "hung_run_minutes", info, "hung-minutes", "End a run after minutes of doing nothing")


def _minutes(
    context: AppContext, name: str, info: str, elem_id: str, label: str = "Let it go after minutes without use"
) -> None:
    """A field for the minutes of a setting, which are kept once they are typed, or told what is wrong with them."""
    minutes = gr.Number(
        getattr(read_settings(context.workspace), name),
        label=label,
        info=info,
        elem_id=elem_id,
        elem_classes=["field"],
        interactive=True,
    )
    problem = gr.HTML("", padding=False)

    def on_change(given: float) -> str:
        try:
            change(context.workspace, **{name: given})
        except UserError as error:
            return as_html(error)
        return ""

    gr.on([minutes.blur, minutes.submit], on_change, minutes, problem, **KEPT)
    context.page.load(lambda: [getattr(read_settings(context.workspace), name)], outputs=[minutes])


def _optimizers(context: AppContext) -> None:
    with gr.Column(elem_classes=["card"]):
        _title("Other optimizers", "Classes that the setting Optimizer class may name; runs load their code.")
        lines = gr.Textbox(
            label="Allowed classes, one a line",
            placeholder="torch.optim.RAdam",
            lines=2,
            max_lines=6,
            elem_id="allowed-optimizers",
            elem_classes=["field"],
            interactive=True,
        )
        problem = gr.HTML("", padding=False)

    def shown() -> list[str]:
        return ["\n".join(read_settings(context.workspace).allowed_optimizers)]

    def on_change(given: str) -> str:
        try:
            allow_optimizers(context.workspace, given or "")
        except UserError as error:
            return as_html(error)
        return ""

    lines.blur(on_change, lines, problem, **KEPT)
    context.page.load(shown, outputs=[lines])


def _machine() -> None:
    with gr.Column(elem_classes=["card"]):
        _title("This machine", "")
        table = gr.HTML("", elem_id="machine", padding=False)
        look = gr.Button("Look again", size="sm", elem_classes=["fold"])
    gr.on([look.click, _this_tab().select], lambda: _table(machine.facts()), None, table, **IN_TURN)


def _other_machines(workspace: Workspace) -> None:
    """What there is: adding one, which gives this program another machine's login to use, is for the command line."""

    def shown() -> str:
        found = hosts(workspace)
        table = _table([(host.name, f"{host.address}, in {host.folder}") for host in found]) if found else ""
        return f"{table}<p class='quiet'>Added with <code>./launch.sh trainer remote add NAME user@machine</code></p>"

    with gr.Column(elem_classes=["card"]):
        _title("Other machines", "Runs can be trained there over SSH: choose one beside Start training.")
        listing = gr.HTML(shown(), elem_id="other-machines", padding=False)
    _this_tab().select(shown, None, listing, **IN_TURN)


def _disk(context: AppContext) -> None:
    with gr.Column(elem_classes=["card"]):
        _title("Where files go", str(context.workspace.dir))
        table = gr.HTML("", elem_id="disk", padding=False)
        with gr.Row():
            clear = gr.Button("Clear caches", elem_id="clear-caches", scale=0, min_width=140)
            models = gr.Button("Remove converted models", elem_id="clear-models", scale=0, min_width=220)

    def clearing(what: Callable[[Workspace], int]) -> Callable[[], str]:
        @tells_problems
        def on_clear() -> str:
            freed = what(context.workspace)
            inform(f"{file_size(freed)} freed.")
            return _disk_html(context.workspace)

        return on_clear

    clear.click(clearing(disk_use.clear_caches), None, table, **IN_TURN)
    models.click(clearing(disk_use.clear_converted_models), None, table, **IN_TURN)
    _this_tab().select(lambda: _disk_html(context.workspace), None, table, **IN_TURN)


def _this_tab() -> gr.Tab:
    """The tab that is being built: the machine and the disk are looked at when it is opened, not before."""
    block: Any = gr.context.Context.block
    while not isinstance(block, gr.Tab):
        block = block.parent
    return block


def _title(title: str, about: str) -> None:
    text = f"<p>{html.escape(about)}</p>" if about else ""
    gr.HTML(f'<div class="card-title"><h2>{html.escape(title)}</h2>{text}</div>', padding=False)


def _own_folders(context: AppContext) -> list[str]:
    return read_settings(context.workspace).folders


def _folders_html(context: AppContext) -> str:
    rows = [("Workspace", str(context.workspace.dir))]
    rows += [("Command line", str(folder)) for folder in context.extra_folders]
    rows += [("Opened here", folder) for folder in _own_folders(context)]
    return _table(rows)


def _disk_html(workspace: Workspace) -> str:
    rows = [
        (place.title, f"{file_size(size)}, {place.about}" if (size := size_bytes(place.path)) else place.about)
        for place in disk_use.places(workspace)
    ]
    return _table([*rows, ("Disk", disk_use.free_text(workspace))])


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in rows)
    return f'<dl class="fact-list">{cells}</dl>'
