"""Training, merging and generation of Stable Diffusion LoRAs. Works without the page in ``ui``."""

__version__ = "0.1.0"
