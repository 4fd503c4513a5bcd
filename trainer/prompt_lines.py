"""Preview prompts as lines of text, in the notation of sd-scripts: ``a cat --n blurry --w 512 --h 768 --d 42 --l 7``.

``--n`` negative prompt, ``--w`` width, ``--h`` height, ``--d`` seed, ``--l`` guidance, ``--s`` steps, ``--ss`` sampler
(``dpmpp_2m_karras``: with its schedule) and, which sd-scripts has for the whole run only, ``--cs`` clip skip. Capital
letters do as well. Other flags keep their dashes and are refused by the config, which knows no such setting: sd-scripts
drops them, and the text behind them, in silence. A line that starts with ``{`` is a YAML mapping; what the notation
cannot say is written so.
"""

from __future__ import annotations

import json
import re
from typing import Any

from trainer.sampler_names import sampling_of
from trainer.yaml_texts import YamlError, load_yaml

FLAGS: dict[str, str] = {
    "n": "negative",
    "w": "width",
    "h": "height",
    "d": "seed",
    "l": "guidance",
    "s": "steps",
    "ss": "sampler",
    "cs": "clip_skip",
}
_FLAG = re.compile(r"\s--([A-Za-z]\w*)(?=\s)")


def parse_line(line: str) -> dict[str, Any]:
    """One line as the values of a preview prompt; values that are not numbers stay text, for validation to name."""
    text = line.strip()
    if text.startswith("{"):
        try:
            values = load_yaml(text)
        except YamlError:
            values = None
        if isinstance(values, dict):
            return values
    prompt, *rest = _FLAG.split(f" {text} ")
    values = {"prompt": prompt.strip()}
    for flag, given in zip(rest[::2], rest[1::2], strict=True):
        name = FLAGS.get(flag.lower(), f"--{flag}")
        told = sampling_of(given) if name == "sampler" else {}
        values |= told or {name: _value(name, given.strip())}
    return values


def parse_lines(text: str) -> list[dict[str, Any]]:
    """One prompt for each line that is neither empty nor a ``#`` comment."""
    lines = [line.strip() for line in text.splitlines()]
    return [parse_line(line) for line in lines if line and not line.startswith("#")]


def format_line(values: dict[str, Any], defaults: dict[str, Any]) -> str:
    """A preview prompt as a line; values equal to ``defaults`` are left out. ``parse_line`` reads the same back."""
    changed = {name: value for name, value in values.items() if value != defaults.get(name)}
    if "schedule" in changed:
        changed["sampler"] = values["sampler"]  # one flag tells both
    parts = [str(changed.pop("prompt", ""))]
    for flag, name in FLAGS.items():
        if name in changed:
            with_schedule = f"_{changed['schedule']}" if name == "sampler" and "schedule" in changed else ""
            parts.append(f"--{flag} {_number_text(changed[name])}{with_schedule}")
    line = " ".join(parts)
    wanted = {"prompt": values.get("prompt", "")} | {name: values[name] for name in changed}
    if parse_line(line) == wanted and line.strip() and not line.startswith("#") and "\n" not in line:
        return line
    return json.dumps(wanted, ensure_ascii=False)


def flags_in_words() -> str:
    """The flags and what they set: ``--n negative, --w width, ...``."""
    return ", ".join(f"--{flag} {name}" for flag, name in FLAGS.items())


def _value(name: str, text: str) -> Any:
    if name == "negative":
        return text
    if name == "sampler":  # one that nobody has, for validation to refuse
        return text.lower()
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _number_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
