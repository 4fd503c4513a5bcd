"""Settings of a picture in which nothing is as by default, with texts that are hard to keep."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, Any] = {
    "prompt": "a red star, (neon:1.3), naïve “quotes” 絵\nsecond line",
    "negative": "blurry: very, ugly",
    "width": 128,
    "height": 192,
    "steps": 12,
    "guidance": 4.5,
    "seed": 2**63 - 1,
    "sampler": "dpmpp_2m",
    "schedule": "karras",
    "model": "demo",
    "loras": [{"path": "/somewhere/neon style.safetensors", "weight": -0.75, "parts": "text_encoder:0"}],
    "clip_skip": 2,
    "max_token_length": 150,
    "weighted": True,
    "count": 3,
    "batch_size": 2,
    "init_image": "/somewhere/inputs/0123456789abcdef.png",
    "strength": 0.4,
    "fit": "pad",
    "mask": "/somewhere/inputs/fedcba9876543210.png",
    "mask_blur": 7,
    "inpaint_area": "masked",
    "mask_padding": 48,
    "hires_scale": 1.0,
    "hires_steps": 9,
    "hires_strength": 0.65,
    "hires_upscaler": "lanczos",
}
