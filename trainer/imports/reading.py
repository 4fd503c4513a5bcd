"""From a file, a folder or a text to settings: what it is written in, whose it is, and then what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.files import home_path
from trainer.imports import CONFIG_KINDS
from trainer.imports.base import Document, Imported, ReadText
from trainer.imports.toml_texts import TomlError, load_toml
from trainer.single_file.header import read_header
from trainer.yaml_texts import YamlError, load_yaml

LARGEST_BYTES = 4_000_000
"""Settings are text of some kilobytes; what is larger is another file by mistake."""
_COMMAND = re.compile(r"(?s)^\s*(?:accelerate|python\S*|\S*accelerate\S*|\S+\.py)\s.*?--\w|^\s*--\w+")
_HINT = (
    "These are read: kohya_ss JSON, sd-scripts TOML or command line, OneTrainer JSON, ai-toolkit YAML, our own YAML."
)


def import_path(path: Path, kind: str | None = None) -> Imported:
    """Settings of a file or a run's folder; paths in it that are not absolute are meant from where it lies.

    Args:
        path: a settings file, a .safetensors LoRA, or a folder with a ``config.yaml`` in it.
        kind: a name of ``CONFIG_KINDS``; None to see by the content.

    Raises UserError where it cannot be read, or where it is not known what it is.
    """
    path = home_path(path)
    if path.is_dir():
        path = path / "config.yaml"
    if path.suffix.lower() == ".safetensors":
        metadata = read_header(path, field="file", refuse=lambda what: _refused(path.name, what)).metadata
        return _read(Document("safetensors", metadata), kind, path.name)
    return import_text(read_text(path), path.name, kind, companions_in(path.parent))


def import_text(text: str, name: str, kind: str | None = None, companion: ReadText = lambda name: None) -> Imported:
    """Settings of a text, of which ``name`` is told in messages. Raises UserError as ``import_path``."""
    syntax_of = _command if _COMMAND.search(text) else _structured
    return _read(syntax_of(text, name, companion), kind, name)


def is_own_text(text: str) -> bool:
    """Whether a text is to be read as a config of ours, right or wrong: nobody else's settings look like it."""
    if _COMMAND.search(text):
        return False
    try:
        document = _structured(text, "", lambda name: None)
    except UserError:
        return True  # whose it was meant to be is not known; a config's reader tells what is wrong, and in which line
    return next((name for name, kind in CONFIG_KINDS.items() if kind.recognises(document)), "own") == "own"


def read_text(path: Path) -> str:
    """A settings file's text, whatever its line ends and its byte order mark. Raises UserError."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise _refused(path.name, f"is larger than {LARGEST_BYTES // 1_000_000} MB, which settings are not")
        data = path.read_bytes()
    except OSError as error:
        raise _refused(path.name, f"cannot be read: {error.strerror or error}") from error
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _refused(path.name, "is not text") from error


def companions_in(folder: Path) -> ReadText:
    """Reads files that a settings file names, relative ones from ``folder``; only settings and text files."""

    def companion(name: str) -> str | None:
        path = folder / home_path(name)
        if path.suffix.lower() not in (".txt", ".toml", ".json", ".yaml", ".yml") or not path.is_file():
            return None
        try:
            return read_text(path)
        except UserError:
            return None

    return companion


def _command(text: str, name: str, companion: ReadText) -> Document:
    return Document("command", text, companion)


def _structured(text: str, name: str, companion: ReadText) -> Document:
    if text.lstrip().startswith("{"):
        return Document("json", _json(text, name), companion)
    data, trouble = _yaml(text)
    if isinstance(data, dict):
        return Document("yaml", data, companion)
    try:
        return Document("toml", load_toml(text.replace("\r\n", "\n")), companion)
    except TomlError as error:
        if name.lower().endswith(".toml"):
            raise _refused(name, f"is not valid TOML: {error}") from error
    if trouble:
        raise UserError("config.yaml", f"{name} is not valid YAML{trouble}.", "Check indentation and colons there.")
    if data is None:
        return Document("yaml", {}, companion)
    raise UserError("config.not_a_mapping", f"{name} holds no settings.", _HINT)


def _json(text: str, name: str) -> Any:
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise _refused(name, "is nested too deeply") from error
    except ValueError as error:
        data, trouble = _yaml(text)  # YAML's braces, which may have no quotes
        if trouble or not isinstance(data, dict):
            raise _refused(name, f"is not valid JSON: {error}") from error
    return data


def _yaml(text: str) -> tuple[Any, str]:
    """What a text says as YAML, every key of it as text, and where it is wrong."""
    try:
        return _with_text_keys(load_yaml(text)), ""
    except YamlError as error:
        return None, str(error) or " "


def _with_text_keys(data: Any) -> Any:
    if isinstance(data, list):
        return [_with_text_keys(each) for each in data]
    return {str(key): _with_text_keys(each) for key, each in data.items()} if isinstance(data, dict) else data


def _read(document: Document, kind: str | None, name: str) -> Imported:
    if kind is not None:
        return CONFIG_KINDS[kind].read(document)
    found = [each for each in CONFIG_KINDS.values() if each.recognises(document)]
    if not found:
        raise UserError("import.unknown", f"{name}: it is not known which program's settings these are.", _HINT)
    return found[0].read(document)


def _refused(name: str, what: str) -> UserError:
    return UserError("import.unreadable", f"{name} {what}.", "Check that it is a settings file.")
