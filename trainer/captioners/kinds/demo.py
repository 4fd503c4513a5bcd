"""The built-in captioner: a tiny BLIP that knows the demo's shapes, so that captioning runs without a download."""

from __future__ import annotations

from trainer.captioners.base import Captioner, CaptionerKind, CaptionerOptions
from trainer.captioners.kinds import blip
from trainer.demo import CAPTIONER_DIR

_LONGEST_TOKENS = 12
"""The longest caption has 9; the network knows 16 places, and a beam search would go past them."""


def load(options: CaptionerOptions) -> Captioner:
    """Load the shipped weights. Raises UserError when they are missing or broken."""
    weights, size = str(CAPTIONER_DIR), options.batch_size
    return blip.load(blip.BlipOptions(model=weights, max_new_tokens=_LONGEST_TOKENS, batch_size=size))


KIND = CaptionerKind(
    label="Demo captioner (tiny, built in)",
    about="Knows the demo's coloured shapes and nothing else. Try captioning with it; no download, no GPU.",
    style="prose",
    options=CaptionerOptions,
    load=load,
)
