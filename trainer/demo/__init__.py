"""The embedded demo: a tiny, genuinely trained Stable Diffusion, the world it was trained on, and its builder."""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""The shipped weights, a diffusers folder."""

CAPTIONER_DIR = Path(__file__).parent / "captioner"
"""The shipped captioner of the demo's pictures, a BLIP in transformers' layout."""
