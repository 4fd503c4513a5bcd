"""Whose access token of the Hugging Face Hub is on this machine. The token itself is never told, kept or asked for.

It comes from the environment or from ``hf auth login`` alone; the hub's own library finds it there.
"""

from __future__ import annotations

import os
from typing import Literal

from huggingface_hub import HfApi, get_token

from trainer.errors import UserError
from trainer.hub_calls import patient
from trainer.hub_errors import HubModel, hub_error
from trainer.runs.events import EventSink

TokenPlace = Literal["environment", "login", "none"]
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
HOW_TO_LOG_IN = "Run hf auth login in a terminal, or set HF_TOKEN, and start the program again."


def token_place() -> TokenPlace:
    """Where the token of this machine is; the hub is not asked."""
    if get_token() is None:
        return "none"
    return "environment" if any(os.environ.get(name) for name in _VARIABLES) else "login"


def no_token() -> UserError:
    """There is no token on this machine."""
    return UserError("hub.no_token", "There is no access token of the Hugging Face Hub on this machine.", HOW_TO_LOG_IN)


def account_name(events: EventSink | None = None) -> str:
    """The name that the hub knows the token by. Raises UserError: none, a wrong one, no network."""
    if get_token() is None:
        raise no_token()
    try:
        return str(patient(lambda: HfApi().whoami(), events)["name"])
    except Exception as error:
        told = hub_error(HubModel("your account", None, "hub", writes=True), error)
        if told is None:
            raise
        raise told from error
