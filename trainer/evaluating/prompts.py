"""Which prompts an evaluation draws, and which show drift. Never torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainer.config import Config, SamplePrompt
from trainer.data.plain_captions import replace_trigger
from trainer.evaluating.settings import GENERAL_PROMPTS, EvaluationSettings


def prompts_to_draw(config: Config, settings: EvaluationSettings, captions: Sequence[str]) -> list[SamplePrompt]:
    """The run's preview prompts in turn, each time with the next seed; captions where it has none."""
    spread = _spread(captions, settings.pictures)
    own = config.samples.prompts or [SamplePrompt.model_validate({"prompt": caption}) for caption in spread]
    drawn = []
    for number in range(settings.pictures):
        prompt = own[number % len(own)]
        changes = {"seed": prompt.seed + number // len(own), "steps": settings.steps or prompt.steps}
        drawn.append(prompt.model_copy(update=changes))
    return drawn


def prompts_for_drift(config: Config, settings: EvaluationSettings) -> list[str]:
    """Those of the settings, or general ones and the run's preview prompts without the trigger."""
    if settings.drift_prompts:
        return list(dict.fromkeys(settings.drift_prompts))
    trigger = config.output.trigger
    own = [_without(trigger, each.prompt) for each in config.samples.prompts] if trigger else []
    return list(dict.fromkeys([*GENERAL_PROMPTS, *own]))


def _without(trigger: str, prompt: str) -> str:
    """The prompt without the trigger and the comma behind it."""
    plain, _ = replace_trigger(prompt, trigger, "")
    return re.sub(r"(\s*,)+", ",", re.sub(r"\s+", " ", plain)).strip(" ,")


def _spread(captions: Sequence[str], most: int) -> list[str]:
    different = list(dict.fromkeys(captions)) or [""]
    count = min(most, len(different))
    return [different[len(different) * number // count] for number in range(count)]
