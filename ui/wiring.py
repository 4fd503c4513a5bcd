"""How handlers are wired: the keyword arguments that an event of Gradio gets, by what its handler is like.

What is chosen in a dropdown is told by ``change``, which comes also when the program puts a value there, while other
fields may still hold their old ones; or by ``input``, which comes twice at a choice, and each time the field loses
focus: only handlers that do nothing the second time follow it. ``select`` comes for the same choice once more, but not
for choices by keys.

``then`` does not run after an event that failed, whatever Gradio's documentation says: ``failure`` does. Two events of
one moment, such as the two ``input`` of a choice, both run in every trigger mode.
"""

from __future__ import annotations

from typing import Any

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For quick handlers that raise nothing."""
TELLING: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
"""For handlers that may raise: Gradio shows what went wrong only for events that go through its queue."""
IN_TURN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""For handlers that may raise, and of which the next call is to wait for the one before."""
EVERY_TIME: dict[str, Any] = {"trigger_mode": "multiple"}
"""Beside one of these: each press counts, also while the one before is on its way. Gradio drops it otherwise."""
LAST_COUNTS: dict[str, Any] = {"trigger_mode": "always_last"}
"""Beside one of these: what comes while the one before is on its way is done once more, as things stand then,
unless that one fails. Not for handlers that take what a script sent along: they would get the first event's."""
