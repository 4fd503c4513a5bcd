"""``trainer settings``: every setting of a config, or those that a word finds."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from trainer.errors import UserError
from trainer.runs.events import EventSink

_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look for, and the form of the answer."""
    about = "only settings with this in a name, here or in another trainer, or in the explanation; of several, all"
    parser.add_argument("words", nargs="*", metavar="WORD", help=about)
    parser.add_argument("--markdown", action="store_true", help="as the page docs/settings.md")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Look them up. Raises UserError where nothing is found."""
    from trainer.config_reference import matching, page, reference

    settings = matching(reference(), args.words)
    if not settings:
        message = f"No setting has {' and '.join(map(repr, args.words))} in a name or its explanation."
        raise UserError("settings.none", message, "A shorter word finds more; without one, all are told.", "words")
    return {"markdown": page(settings)} if args.markdown else {"settings": settings}


def describe(answer: dict[str, Any]) -> str:
    """A paragraph for each setting, or the page."""
    return answer["markdown"] if "markdown" in answer else "\n\n".join(map(_paragraph, answer["settings"]))


def _paragraph(facts: dict[str, Any]) -> str:
    from trainer.config_reference import told

    lines = [facts["help"], *told(facts)]
    wrapped = [textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="  ") for line in lines]
    return "\n".join([f"{facts['name']}  ({facts['label']})", *wrapped])
