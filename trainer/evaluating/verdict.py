"""Which checkpoint is the best, by a stated rule, and what else the numbers say. Never torch.

The rule: the lowest validation loss on held-out pictures. Losses within ``TIE`` of the lowest are equal: files round,
and training measured before rounding. Among equals the one that training marked as its best wins, then the one that
drifts least, then the earliest. Without held-out pictures a loss tells nothing of this; then the highest similarity to
the training pictures is taken among checkpoints that copy none, and without that there is no best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.evaluating.results import BASE_STEP, Evaluated

TIE = 0.005
"""Share of the lowest loss within which losses count as equal."""
_RISE = 0.03
"""Share by which the loss must rise again to be called learning by heart."""


def best_of(checkpoints: Sequence[Evaluated], *, held_out: bool, marked: int | None) -> tuple[int | None, str]:
    """The best step and a sentence that says why; None where nothing tells.

    Args:
        checkpoints: what was measured.
        held_out: whether the validation loss is of pictures that were not trained on.
        marked: the step that training marked as its best.
    """
    trained = [each for each in checkpoints if each.step != BASE_STEP]
    losses = {each.step: each.validation_loss for each in trained if each.validation_loss is not None}
    if held_out and losses:
        return _lowest_loss(trained, losses, marked)
    alike = [each for each in trained if each.image_similarity is not None and not each.copies]
    if alike:
        best = max(alike, key=lambda each: (each.image_similarity or 0.0, -each.step))
        return best.step, (
            f"Its pictures are the most similar to the training pictures ({best.image_similarity:.3f}) without copying "
            "one. A validation share in the settings would tell more."
        )
    if marked in {each.step for each in trained}:
        return marked, "Training marked it: it had the lowest validation loss."
    return None, (
        "Nothing measured here tells: set a validation share before training, or give a model that looks at pictures."
    )


def hints_of(checkpoints: Sequence[Evaluated], *, held_out: bool) -> list[str]:
    """What a person should know beside the best step, a sentence each."""
    trained = sorted((each for each in checkpoints if each.step != BASE_STEP), key=lambda each: each.step)
    base = next((each for each in checkpoints if each.step == BASE_STEP), None)
    hints = _about_losses(trained, base) if held_out else []
    copying = [each for each in trained if each.copies]
    if copying:
        worst = max(copying, key=lambda each: each.copies or 0)
        hints.append(
            f"From step {copying[0].step} on, pictures look the same as training pictures ({worst.copies} of "
            f"{len(worst.drawn)} at step {worst.step}): an earlier checkpoint or more pictures would vary more."
        )
    if trained and not held_out and any(each.validation_loss is not None for each in trained):
        hints.append("The loss is of pictures that were trained on: it falls also when they are learned by heart.")
    return hints


def _lowest_loss(trained: Sequence[Evaluated], losses: dict[int, float], marked: int | None) -> tuple[int | None, str]:
    lowest = min(losses.values())
    equal = [each for each in trained if each.step in losses and losses[each.step] <= lowest * (1 + TIE)]
    if len(equal) == 1:
        return equal[0].step, f"It has the lowest validation loss, {lowest:.5g}."
    steps = " and ".join(str(each.step) for each in equal)
    same = f"The validation losses of steps {steps} are equal within {TIE:.1%}"
    if marked in {each.step for each in equal}:
        return marked, f"{same}; training marked this one."
    best = min(equal, key=lambda each: (math.inf if each.drift is None else each.drift, each.step))
    drifts = [each.drift for each in equal if each.drift is not None]
    if len(drifts) == len(equal) and len(set(drifts)) > 1:
        return best.step, f"{same}; this one drifts least."
    return best.step, f"{same}; this one is the earliest."


def _about_losses(trained: Sequence[Evaluated], base: Evaluated | None) -> list[str]:
    losses = [(each.step, each.validation_loss) for each in trained if each.validation_loss is not None]
    if len(losses) < 2:
        return []
    step, lowest = min(losses, key=lambda pair: pair[1])
    last_step, last = losses[-1]
    if base is not None and base.validation_loss is not None and lowest >= base.validation_loss:
        return ["No checkpoint predicts the held-out pictures better than the base model does."]
    if last > lowest * (1 + _RISE):
        rise = last / lowest - 1
        return [
            f"After step {step} the validation loss rises again (by {rise:.0%} until step {last_step}): the training "
            "pictures are being learned by heart."
        ]
    if step == last_step:
        return ["The validation loss was still falling at the last checkpoint: more steps may help."]
    return []
