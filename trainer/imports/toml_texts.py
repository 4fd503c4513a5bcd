"""Reading TOML that anybody may have written."""

from __future__ import annotations

from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError


class TomlError(ValueError):
    """Why a text is no TOML that can be read."""


def load_toml(text: str) -> dict[str, Any]:
    """The plain values of a TOML text. Raises TomlError."""
    try:
        return tomlkit.parse(text).unwrap()
    except RecursionError as error:
        raise TomlError("it is nested too deeply") from error
    except (TOMLKitError, ValueError) as error:
        raise TomlError(str(error)) from error
