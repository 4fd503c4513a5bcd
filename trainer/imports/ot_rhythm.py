"""When OneTrainer saves, validates and draws: a number and a unit each (``modules/util/enum/TimeUnit.py``)."""

from __future__ import annotations

from trainer.imports.draft import Draft
from trainer.imports.sd_arguments import KEEPS_ALL


def put_rhythm(draft: Draft) -> None:
    """Previews, checkpoints and validation, by steps or epochs; there is no clock here."""
    _put(draft, "samples", "sample_after")
    if _put(draft, "output.save", "save_every"):
        draft.config["output"]["keep_last"] = KEEPS_ALL
        note = "every save is kept there; here each can be resumed from and takes more disk"
        draft.tell("output.keep_last", KEEPS_ALL, "save_every", note=note)
    if draft.config.get("validation", {}).get("path"):
        _put(draft, "validation", "validate_after")
        if not draft.flag("validation"):
            del draft.config["validation"]["path"]
    draft.all_unused(("validation", "validate_after", "validate_after_unit"), "said by the concepts, or not validated")


def _put(draft: Draft, setting: str, key: str) -> bool:
    """Set one of them; whether there is any."""
    unit, count = draft.text(f"{key}_unit"), draft.whole(key) or 0
    prefix = f"{setting}_every" if setting.startswith("output") else f"{setting}.every"
    accumulated = draft.whole("gradient_accumulation_steps") or 1
    if unit == "EPOCH" and count:
        draft.put(f"{prefix}_epochs", count, key, f"{key}_unit")
        return True
    if unit == "STEP" and count:
        note = "" if accumulated == 1 else f"counted in batches there, {accumulated} of which are a step"
        draft.put(f"{prefix}_steps", max(1, count // accumulated), key, f"{key}_unit", note=note)
        return True
    if unit in ("SECOND", "MINUTE", "HOUR"):
        if draft.is_given(key) or draft.is_given(f"{key}_unit"):
            draft.lost(key, f"went by the clock; set {prefix}_steps")
        draft.unused(f"{key}_unit", "told with its number")
        return False
    if not setting.startswith("validation"):
        draft.put(f"{prefix}_steps", 0, key, f"{key}_unit")
    draft.all_unused((key, f"{key}_unit"), "never")
    return False
