"""How long the runs of a queue take, from what runs of this workspace took. No Gradio."""

from __future__ import annotations

from pathlib import Path

from trainer.config import Config
from trainer.file_states import Mark, mark_of
from trainer.measurements import config_of, costs_for, kept_measurement, newest_alike
from trainer.pace import KINDS, Costs, Place, epochs_by, pace_of, seconds_left
from trainer.runs.store import Run, RunInfo, Workspace


class Paces:
    """Follows the runs of a workspace; a file is read again only when it has changed."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._costs: dict[Path, tuple[int, Costs | None]] = {}
        self._configs: dict[Path, tuple[Mark, Config | None]] = {}

    def seconds_left(self, info: RunInfo, infos: tuple[RunInfo, ...]) -> float | None:
        """The time that what is left of a run takes, by its own events or those of the newest run like it.

        None where the number of steps is not known, or nothing tells the time of one.
        """
        steps, config = info.extend_to or info.max_steps, self._config(info)
        costs = self._costs_of(info, config, infos) if steps and config else None
        if costs is None or config is None or steps is None:
            return None
        place = Place(info.step, len(KINDS) if info.step else 0)
        return seconds_left(config, costs, place, steps, epochs_by(config, steps, info.batches_per_epoch))

    def _costs_of(self, info: RunInfo, config: Config, infos: tuple[RunInfo, ...]) -> Costs | None:
        own = self._seen(info, config)
        if own is not None:
            return own
        others = (other for other in infos if other.id != info.id and other.step > 0)
        alike = newest_alike(config, others, self._config, self._seen)
        if alike is not None:
            _, other, costs = alike
            return costs_for(config, costs, other)
        measured = kept_measurement(config, self._workspace)
        return None if measured is None else measured.costs

    def _seen(self, info: RunInfo, config: Config) -> Costs | None:
        """What the parts of a run took."""
        path = self._run(info).events_path
        size = path.stat().st_size if path.exists() else 0
        if self._costs.get(path, (-1, None))[0] != size:
            self._costs[path] = (size, pace_of(path).costs(config))
        return self._costs[path][1]

    def _config(self, info: RunInfo) -> Config | None:
        """None where it cannot be read."""
        run = self._run(info)
        mark, known = mark_of(run.config_path), self._configs.get(run.dir)
        if known is None or known[0] != mark:
            known = self._configs[run.dir] = (mark, config_of(run))
        return known[1]

    def _run(self, info: RunInfo) -> Run:
        return Run(self._workspace.runs_dir / info.id)
