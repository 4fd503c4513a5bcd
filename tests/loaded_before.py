"""What the first model that a process loads makes the libraries prepare: imported before processes are forked."""

from __future__ import annotations

from transformers import CLIPTextModel

from trainer.demo import MODEL_DIR

CLIPTextModel.from_pretrained(MODEL_DIR / "text_encoder")
