"""A command line of sd-scripts: ``accelerate launch ... train_network.py --network_dim 32 ...``, as people paste it.

Lines may end in ``\\`` (Linux), ``^`` (Windows) or a backtick (PowerShell).
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from trainer.errors import UserError
from trainer.imports import values
from trainer.imports.base import ConfigKind, Document, Imported
from trainer.imports.draft import Draft
from trainer.imports.kinds.sd_scripts import with_network_arguments, without_sections
from trainer.imports.sd_arguments import DEFAULTS, TRAINS_NO_LORA, put_arguments
from trainer.imports.toml_texts import TomlError, load_toml

_LABEL = "sd-scripts command line"
_LINE_END = re.compile(r"[ \t]*[\\^`][ \t]*\r?\n")
_WINDOWS_PATH = re.compile(r"[A-Za-z]:\\|\w\\\w")
_SCRIPT = re.compile(r"(\w+)\.py$")
_LAUNCHER = "launcher."
_SCRIPT_KEY = "script"


def _recognises(document: Document) -> bool:
    return document.syntax == "command"


def _read(document: Document) -> Imported:
    """Raises UserError for a command that trains something else, or that cannot be taken apart."""
    words = split_command(str(document.data))
    place = next((number for number, word in enumerate(words) if _SCRIPT.search(word)), None)
    script = words[place] if place is not None else ""
    if any(name in script for name in TRAINS_NO_LORA):
        message = f"{script} trains a whole model or something else than a LoRA."
        raise UserError("import.no_lora", message, "Give a command of train_network.py or sdxl_train_network.py.")
    launcher = parse_flags(words[:place] if place is not None else [])
    given = parse_flags(words[place + 1 :] if place is not None else words)
    if not given:
        raise UserError("import.empty", "This command gives no settings.", "Paste all of it, with its --flags.")
    from_file = _config_file(given, document)
    started = {f"{_LAUNCHER}{key}": value for key, value in launcher.items()} | {_SCRIPT_KEY: script}
    draft = Draft(with_network_arguments(from_file | given | started), DEFAULTS)
    if draft.is_given("config_file") and not from_file:
        draft.lost("config_file", "that file is not here; import it by itself")
    sdxl = _tell_script(draft, script)
    put_arguments(draft, document.companion, sdxl=sdxl)
    draft.all_unused([_SCRIPT_KEY, *(key for key in draft.untold() if key.startswith(_LAUNCHER))], "how it was started")
    return draft.finished(_LABEL)


def split_command(text: str) -> list[str]:
    """The words of a command. Raises UserError for a quote that is not closed."""
    joined = _LINE_END.sub(" ", text)
    lexer = shlex.shlex(joined.replace("\r", ""), posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    if _WINDOWS_PATH.search(joined):
        lexer.escape = ""  # a backslash is a part of the path
    try:
        return list(lexer)
    except ValueError as error:
        raise UserError("import.command", "A quotation mark of this command is not closed.", "Close it.") from error


def parse_flags(words: list[str]) -> dict[str, Any]:
    """Flags with their values: one as text, several as a list, none as true. The last of the same flag counts."""
    found: dict[str, list[str] | str] = {}
    current = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            current, equals, inline = word[2:].partition("=")
            current = current.replace("-", "_")
            found[current] = inline if equals else []
        elif current and isinstance(found[current], list):
            found[current] = [*found[current], word]
    return {key: _value(value) for key, value in found.items()}


def _value(given: list[str] | str) -> Any:
    if isinstance(given, str):
        return given
    return True if not given else given[0] if len(given) == 1 else given


def _config_file(given: dict[str, Any], document: Document) -> dict[str, Any]:
    """The keys of ``--config_file``, where it is named and can be read; sections of it are only for the eye."""
    name = values.text(given.get("config_file", ""))
    text = document.companion(name if name.endswith(".toml") else f"{name}.toml") if name else None
    try:
        data = load_toml(text) if text is not None else {}
    except TomlError:
        return {}
    return without_sections(data)


def _tell_script(draft: Draft, script: str) -> bool | None:
    """Whether the script trains SDXL; None where that is not said."""
    other = re.search(r"(flux|sd3|lumina|hunyuan_image|anima)_train_network", script)
    if other:
        draft.lost(_SCRIPT_KEY, f"{other[1]} models cannot be trained here; choose a Stable Diffusion 1, 2 or XL model")
    return "sdxl" in script if script.endswith("train_network.py") else None


KIND = ConfigKind(label=_LABEL, recognises=_recognises, read=_read)
