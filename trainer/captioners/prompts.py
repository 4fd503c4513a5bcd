"""What models that chat are asked for: templates by what a LoRA is trained on, and the trigger word in them.

A caption says what the LoRA shall not learn as part of its trigger word: what stands in words stays changeable. So the
templates name the subject by the trigger word, and ask for everything around it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TRIGGER = "{trigger}"
"""Stands in prompts for the trigger word."""

TemplateName = Literal["tags", "sentence", "prose", "style"]

_SENTENCE = re.compile(r"[^.!?\n]*" + re.escape(TRIGGER) + r"[^.!?\n]*[.!?]?[ ]?")


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt for a purpose.

    Attributes:
        label: name on the page: what it writes, and for which models.
        text: the prompt; ``{trigger}`` stands for the trigger word.
    """

    label: str
    text: str


TEMPLATES: dict[TemplateName, PromptTemplate] = {
    "tags": PromptTemplate(
        "Tags, for SDXL anime models",
        "List what is to be seen in this picture as Danbooru tags: lower case, separated by commas, nothing else. "
        "Begin with how many people there are (1girl, 2boys, no humans), then go on with pose, expression, clothing, "
        "objects, view, background and light. "
        "The tag for the main subject is {trigger}: put it first, and leave out what is always so about it.",
    ),
    "sentence": PromptTemplate(
        "One short sentence, for SD 1.5 and SDXL",
        "Describe this picture in one plain sentence of at most 25 words: the subject, what it does, where it is. "
        "Call the main subject {trigger}. "
        "No introduction, no opinion.",
    ),
    "prose": PromptTemplate(
        "Prose, for FLUX, Qwen-Image and other new models",
        "Describe this picture in three to five plain sentences: the subject and what it does, clothing, objects, "
        "surroundings, view, light and colours, and how the picture was made (photo, painting, 3D ...). "
        "Call the main subject {trigger}, and leave out what is always so about it. "
        "Say only what is to be seen. No introduction, no opinion, no list.",
    ),
    "style": PromptTemplate(
        "Content only, for a LoRA of a style",
        "Describe in one to three plain sentences what this picture shows: subjects, what they do, objects, "
        "surroundings. "
        "Say nothing about how it is drawn, painted or photographed, about colours, light or mood: "
        "that is what {trigger} stands for. "
        "No introduction, no opinion.",
    ),
}


def with_trigger(values: Mapping[str, Any], trigger: str) -> dict[str, Any]:
    """Plain option values with the trigger word in place of each ``{trigger}``.

    Without a trigger word the sentences that speak of it are left out.
    """
    return {name: fill(value, trigger) if isinstance(value, str) else value for name, value in values.items()}


def fill(prompt: str, trigger: str) -> str:
    """One prompt, likewise."""
    trigger = trigger.strip()
    return prompt.replace(TRIGGER, trigger) if trigger else _SENTENCE.sub("", prompt).strip()
