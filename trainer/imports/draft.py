"""Settings on their way from another program's file to a config, with a line of the report for each key."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.config import Config
from trainer.config_io import parse_config
from trainer.errors import Problem, UserError
from trainer.imports import values
from trainer.imports.base import Imported, Line, Report

_MOST_REPAIRS = 20
"""Values that a config refuses one after another; more than that, and the file is something else."""
_MOST_KEYS = 20_000
_ITS_DEFAULT = "not said in the file; that program's default"
_EMPTY = "empty in the file"
_OFF = "off in the file"


@dataclass(frozen=True)
class Rule:
    """A key that means the same as a setting of ours.

    Attributes:
        key: of the file.
        setting: dotted name of ours.
        read: the value as ours; None for one that is not allowed there.
    """

    key: str
    setting: str
    read: Callable[[Any], Any]


class Draft:
    """What a file gave so far, as plain values of a config and as lines of the report.

    Keys are flat and dotted. Values come as they stand in the file; a key that is blank or missing has the value that
    the other program would use.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        defaults: Mapping[str, Any],
        as_written: Mapping[str, tuple[str, Any]] | None = None,
        remarks: Mapping[str, str] | None = None,
    ) -> None:
        """Begin with a file's keys.

        Args:
            given: the file's keys and values.
            defaults: what the other program uses where the file says nothing.
            as_written: a key's name and value in the file, where these are others.
            remarks: why a key holds another value than the file's; whatever it sets is told as guessed.
        """
        self._given = dict(given)
        self._defaults = defaults
        self._as_written = as_written or {}
        self._remarks = remarks or {}
        self._told: set[str] = set()
        self._assumed: list[tuple[str, str]] = []
        self._lines: dict[str, list[tuple[str, Line]]] = {name: [] for name in _LISTS}
        self.config: dict[str, Any] = {}

    def untold(self) -> list[str]:
        """The keys of the file that nothing was told of yet."""
        return [key for key in self._given if key not in self._told]

    def is_given(self, key: str) -> bool:
        """Whether the file says something under a key."""
        return not values.is_blank(self._given.get(key))

    def value(self, key: str) -> Any:
        """What holds for a key: the file's value, else the default, else None."""
        return self._given[key] if self.is_given(key) else self._defaults.get(key)

    def number(self, key: str) -> float | None:
        """The key's value as a number. One that is none is told as lost, and the default holds."""
        return self._read(key, values.number, "a number")

    def whole(self, key: str) -> int | None:
        """The key's value as a whole number, else as ``number``."""
        return self._read(key, values.whole, "a whole number")

    def flag(self, key: str) -> bool:
        """Whether a key is on; a value that is neither on nor off is told as lost, and the default holds."""
        return bool(self._read(key, values.flag, "true or false"))

    def text(self, key: str) -> str:
        """The key's value as text; empty where there is none."""
        value = self.value(key)
        return "" if values.is_blank(value) else values.text(value)

    def put(self, setting: str, value: Any, *keys: str, note: str = "") -> None:
        """Set one of our settings from these keys; with a note it is told as guessed."""
        *sections, last = setting.split(".")
        target = self.config
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
        self.tell(setting, value, *keys, note=note)

    def tell(self, setting: str, value: Any, *keys: str, note: str = "") -> None:
        """Tell that these keys are what a setting says now; with a note as guessed."""
        given = [key for key in keys if self.is_given(key)]
        for key in given or keys[:1]:
            is_written = not values.is_blank(self._written(key)[1])
            guess = note or self._remarks.get(key, "")
            line = self._line(key, setting, values.shown(setting, value), guess or ("" if is_written else _ITS_DEFAULT))
            self._add("guessed" if guess else "mapped", key, line)
            if key in self._given:
                self._told.add(key)
            else:
                self._assumed.append((setting, key))
        for key in keys:
            self.unused(key, _EMPTY)

    def lost(self, key: str, note: str) -> None:
        """Tell that a key has no equivalent; where it is off, that it has no effect."""
        if key in self._given and values.is_off(self._given[key]):
            self.unused(key, _EMPTY if values.is_blank(self._given[key]) else _OFF)
            return
        self._told.add(key)
        self._add("no_equivalent", key, self._line(key, note=note))

    def move_to_lost(self, setting: str, why: str) -> None:
        """Tell that what was told of a setting is not taken over after all."""
        for name in ("mapped", "guessed"):
            moved = [(key, line) for key, line in self._lines[name] if line.setting == setting]
            self._lines[name] = [each for each in self._lines[name] if each not in moved]
            for key, line in moved:
                self._add("no_equivalent", key, Line(line.source, line.given, note=why))

    def unused(self, key: str, note: str) -> None:
        """Tell that a key of the file changes nothing here."""
        if key in self._given and key not in self._told:
            self._told.add(key)
            self._add("no_effect", key, self._line(key, note=note))

    def apply(self, rules: Iterable[Rule]) -> None:
        """Take over the keys that mean the same as a setting of ours."""
        for rule in rules:
            value = self.value(rule.key)
            if values.is_blank(value):
                self.unused(rule.key, _EMPTY)
                continue
            read = rule.read(value)
            if read is None:
                self.lost(rule.key, f"not a value of {rule.setting}")
            else:
                self.put(rule.setting, read, rule.key)

    def all_lost(self, notes: Mapping[str, str]) -> None:
        """Tell keys of the file that have no equivalent, by what is to be said of each."""
        for key, note in notes.items():
            if key in self._given and key not in self._told:
                self.lost(key, note)

    def all_unused(self, keys: Iterable[str], note: str) -> None:
        """Tell keys of the file that change nothing here."""
        for key in keys:
            self.unused(key, note)

    def finished(self, kind: str) -> Imported:
        """The config and the report. A value that a config refuses is told as lost, and our default holds.

        Raises UserError where no config can be made of it.
        """
        for key in self.untold():
            self.lost(key, "not a key that is known here; nothing was done with it")
        config = self._settled()
        defaults = Config().model_dump(mode="json")
        plain = config.model_dump(mode="json")
        same = {key for setting, key in self._assumed if at(plain, setting) == at(defaults, setting)}
        lists = {
            name: [line for key, line in lines if not (line.note == _ITS_DEFAULT and key in same)]
            for name, lines in self._lines.items()
        }
        return Imported(config, Report(kind, **lists))

    def _settled(self) -> Config:
        for _ in range(_MOST_REPAIRS):
            try:
                return parse_config(self.config)
            except UserError as error:
                dropped = [self._drop(problem) for problem in error.problems]
                if not any(dropped):
                    raise
        return parse_config(self.config)

    def _drop(self, problem: Problem) -> str:
        """Take out the value that a problem is about; its name, or nothing where it cannot be told which."""
        setting = problem.field
        if isinstance(at(self.config, setting), dict):
            setting = self._blamed(setting, problem.message)
        setting = _set_in(self.config, setting)
        if not setting:
            return ""
        parent, _, last = setting.rpartition(".")
        target = at(self.config, parent) if parent else self.config
        del target[last]
        self.move_to_lost(setting, str(problem))
        return setting

    def _blamed(self, section: str, message: str) -> str:
        """The setting that a complaint about a section as a whole is about: it begins with its name, or says it."""
        found = at(self.config, section)
        words = re.findall(r"[a-z_0-9]+", message.removeprefix(f"{section}: "))
        inside = [word for number, word in enumerate(words) if word in found and (number == 0 or "_" in word)]
        if inside:
            return f"{section}.{inside[0]}"
        dotted = [name for name in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", message) if at(self.config, name) is not None]
        return dotted[0] if dotted else section if section.count(".") > 1 else ""

    def _read(self, key: str, read: Callable[[Any], Any], what: str) -> Any:
        value = self.value(key)
        if values.is_blank(value):
            return None
        found = read(value)
        if found is None:
            self.lost(key, f"not {what}; that program's default is used")
            found = read(self._defaults.get(key))
        return found

    def _line(self, key: str, setting: str = "", value: str = "", note: str = "") -> Line:
        name, given = self._written(key)
        return Line(name, values.shown(name, given if key in self._given else self.value(key)), setting, value, note)

    def _written(self, key: str) -> tuple[str, Any]:
        """A key's name and value as they stand in the file; None where it has none."""
        return self._as_written.get(key, (key, self._given.get(key)))

    def _add(self, name: str, key: str, line: Line) -> None:
        if all(line != told for _, told in self._lines[name]):
            self._lines[name].append((key, line))


_LISTS = ("mapped", "guessed", "no_equivalent", "no_effect")


def at(config: Any, setting: str) -> Any:
    """The value at a dotted name in plain values; None where there is none."""
    for part in setting.split(".") if setting else []:
        if isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, dict):
            config = config.get(part)
        else:
            return None
    return config


def _set_in(config: dict[str, Any], setting: str) -> str:
    """The nearest name at or above a setting that plain values hold; empty where there is none."""
    parts = setting.split(".")
    while parts and parts != [""]:
        holder = at(config, ".".join(parts[:-1])) if len(parts) > 1 else config
        if isinstance(holder, dict) and parts[-1] in holder:
            return ".".join(parts)
        parts.pop()
    return ""


def flattened(data: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, and lists of them, as one with dotted keys: ``concepts.0.path``. Other lists stay values.

    Raises UserError for more keys than a settings file can have.
    """
    items = list(itertools.islice(_flat_items(data, ""), _MOST_KEYS + 1))
    if len(items) > _MOST_KEYS:
        raise UserError(
            "import.large", f"This holds more than {_MOST_KEYS} values.", "Check that it is a settings file."
        )
    return dict(items)


def _flat_items(data: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flat_items(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            yield from _flat_items(dict(enumerate(value)), f"{name}.")
        else:
            yield name, value


def numbered(draft: Draft, prefix: str) -> list[str]:
    """The entries of a list by their flat names: ``concepts.0.``, ``concepts.1.`` ..."""
    found = {key.split(".")[1] for key in draft.untold() if key.startswith(f"{prefix}.") and key.count(".") > 1}
    return [f"{prefix}.{number}." for number in sorted(found, key=int)]
