"""What a settings file of another program is, and what is told of it once it has been read.

A kind of file is one module in ``kinds/`` with a ``KIND``. Nothing of a file is dropped in silence: each of its keys
ends up in exactly one of a report's four lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.config import Config

Syntax = Literal["json", "toml", "yaml", "command", "safetensors"]


@dataclass(frozen=True)
class Line:
    """One thing that is told of a file.

    Attributes:
        source: the file's key, as it stands there: ``network_dim``, ``train.lr``.
        given: its value as text; shortened, and without secrets.
        setting: ours that took it over; empty where there is none.
        value: what that one is set to, as text.
        note: why it was guessed, what is lost and what to do instead, or why it has no effect.
    """

    source: str
    given: str
    setting: str = ""
    value: str = ""
    note: str = ""


@dataclass
class Report:
    """What became of each key of a file.

    Attributes:
        kind: what was read, for people.
        mapped: taken over as it was meant.
        guessed: taken over as nearly as it goes; the note says how it differs.
        no_equivalent: not taken over; the note says what it did and what to do instead.
        no_effect: left out because it changes nothing here: defaults, and how the other program used its machine.
    """

    kind: str
    mapped: list[Line] = field(default_factory=list)
    guessed: list[Line] = field(default_factory=list)
    no_equivalent: list[Line] = field(default_factory=list)
    no_effect: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Imported:
    """Settings that were read, and what is to be said about them."""

    config: Config
    report: Report


ReadText = Callable[[str], "str | None"]
"""The text of another file that the one being read names; None where it is not there or not to be read."""


@dataclass(frozen=True)
class Document:
    """A file before anybody knows whose it is.

    Attributes:
        syntax: what it is written in.
        data: what it holds; for ``command`` the text itself, for ``safetensors`` the metadata.
        companion: reads the files it names, such as a list of concepts.
    """

    syntax: Syntax
    data: Any
    companion: ReadText = lambda name: None

    @property
    def mapping(self) -> dict[str, Any]:
        """The data where it is a mapping, else an empty one."""
        return self.data if isinstance(self.data, dict) else {}


@dataclass(frozen=True)
class ConfigKind:
    """An entry of the list of kinds.

    Attributes:
        label: whose file it is, for people.
        recognises: whether a document is of this kind, by what it holds.
        read: turns it into settings. Raises UserError where it trains no LoRA.
    """

    label: str
    recognises: Callable[[Document], bool]
    read: Callable[[Document], Imported]
