"""A tiny CLIP with random weights that transformers loads like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from trainer.demo import MODEL_DIR

SIDE = 32
LAYERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny_clip(folder: Path) -> transformers.CLIPModel:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer")
    text = {
        **LAYERS,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "max_position_embeddings": 20,
    }
    vision = {**LAYERS, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(1)
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    return model.double().eval()


def unit(vectors: torch.Tensor) -> np.ndarray:
    found = vectors.detach().double().numpy()
    return found / np.linalg.norm(found, axis=-1, keepdims=True)
