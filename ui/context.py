"""What every tab is given: the workspace and the folders that requests may name."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

from trainer.config_io import PRESETS_DIR
from trainer.errors import UserError
from trainer.files import home_path
from trainer.hub_names import HUB_ID
from trainer.outward_links import leads_out
from trainer.runs.settings import read_settings
from trainer.runs.store import Workspace
from ui.dataset.thumbnails import Thumbnails
from ui.page import Page


@dataclass(frozen=True)
class AppContext:
    """Made once at start and passed to every tab."""

    workspace: Workspace
    extra_folders: tuple[Path, ...] = ()
    """Folders allowed on the command line, beside the workspace and those in the settings file."""
    page: Page = field(default_factory=Page)
    """Where tabs register pollers, load handlers and routes."""

    def __post_init__(self) -> None:
        self.page.may_serve = lambda path: not leads_out(path, [*self.allowed_folders(), PRESETS_DIR])

    @functools.cached_property
    def thumbnails(self) -> Thumbnails:
        """Small versions of pictures, for all tabs."""
        return Thumbnails(self.workspace.cache_dir / "thumbnails", self.allowed_folders)

    def allowed(self, path: str | Path) -> Path:
        """The resolved path when it lies under an allowed folder. Raises UserError otherwise."""
        try:
            resolved = home_path(path).resolve()
        except (ValueError, RuntimeError, OSError) as error:  # a NUL, links in a circle
            raise UserError("path.wrong", f"{str(path)!r} is no path: {error}.", "Check how it is written.") from error
        roots = self.allowed_folders()
        if not any(resolved.is_relative_to(root) for root in roots):
            listing = ", ".join(str(root) for root in roots)
            raise UserError(
                "path.not_allowed",
                f"The folder {resolved} is not open to the page; allowed are {listing}.",
                "Add it under Settings, Folders.",
            )
        return resolved

    def allowed_model(self, model: str) -> str:
        """A Hugging Face id as it is, or the resolved path of what the page may read. Raises UserError otherwise."""
        if HUB_ID.fullmatch(model) and not Path(model).expanduser().exists():
            return model
        return str(self.allowed(model))

    def allowed_folders(self) -> list[Path]:
        """The workspace, the folders of the command line and those of the settings file, resolved."""
        folders = [self.workspace.dir, *self.extra_folders, *map(Path, read_settings(self.workspace).folders)]
        return [folder.expanduser().resolve() for folder in folders]
