"""CLIP text encoders with their tokenizers: captions of any length to the states of one of the encoder's layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from trainer.families.emphasis import parse_emphasis
from trainer.families.lazy_part import LazyPart

CONTENT_TOKENS = 75
"""Tokens of a caption that CLIP reads at once; begin and end come on top."""


class Tokens(NamedTuple):
    """Captions as CLIP reads them: ids (B, chunks, L) int64, and weights (B, T) of the joined chunks' tokens."""

    ids: Tensor
    weights: Tensor


class ClipText:
    """A CLIP text encoder and its tokenizer, each loaded when it is first used.

    Attributes:
        part: the encoder.
    """

    def __init__(self, part: LazyPart[Any], load_tokenizer: Callable[[], CLIPTokenizer]) -> None:
        self.part = part
        self._load_tokenizer = load_tokenizer

    @property
    def encoder(self) -> Any:
        """A ``CLIPTextModel``, or a ``CLIPTextModelWithProjection``, which also sums a caption up in one vector."""
        return self.part.module

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """Makes the encoder's ids."""
        return self._load_tokenizer()

    @property
    def layers(self) -> int:
        """Transformer layers of the encoder."""
        return self.part.config.num_hidden_layers

    def encode(self, tokens: Tokens, *, skip: int, final_norm: bool, weighted: bool) -> tuple[Tensor, Tensor | None]:
        """Tokens to states (B, T, C), and to their summaries (B, P) where the encoder makes them.

        Args:
            tokens: of B captions.
            skip: layers left out at the end: 0 gives the last layer's states, 1 those of the one before.
            final_norm: whether the encoder's final layer norm follows.
            weighted: whether the tokens' weights count.
        """
        encoder = self.encoder
        ids = tokens.ids.to(encoder.device)
        output = encoder(ids.flatten(0, 1), output_hidden_states=skip > 0 or not final_norm)
        if skip == 0 and final_norm:
            states = output.last_hidden_state
        else:
            states = output.hidden_states[-1 - skip]
            states = encoder.final_layer_norm(states) if final_norm else states
        states = _join_chunks(states.unflatten(0, ids.shape[:2]))
        if weighted:
            states = _emphasise(states, tokens.weights.to(states))
        if not isinstance(encoder, CLIPTextModelWithProjection):
            return states, None
        return states, output.text_embeds[:: ids.shape[1]]  # that of the first chunk, as sd-scripts takes it

    def tokenize(self, captions: list[str], *, max_token_length: int, weighted: bool) -> Tokens:
        """Tokens of B captions, on the CPU.

        Args:
            captions: B texts.
            max_token_length: 75, or a multiple of it that is read in chunks of 75.
            weighted: read ``(word:1.3)`` as emphasis.
        """
        chunks = max_token_length // CONTENT_TOKENS
        room = min(self.tokenizer.model_max_length, self.part.config.max_position_embeddings) - 2
        begin, end, pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        all_ids, all_weights = [], []
        for caption in captions:
            pieces = parse_emphasis(caption) if weighted else [(caption, 1.0)]
            tokens = [
                (token, weight)
                for text, weight in pieces
                for token in self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            ][: room * chunks]
            ids = [token for token, _ in tokens]
            rows = [ids[start : start + room] for start in range(0, room * chunks, room)]
            # a short chunk is padded behind its end token, as CLIP was trained
            all_ids.append([[begin, *row, end, *[pad] * (room - len(row))] for row in rows])
            all_weights.append([1.0, *[weight for _, weight in tokens], *[1.0] * (room * chunks - len(tokens) + 1)])
        return Tokens(torch.tensor(all_ids), torch.tensor(all_weights))


def _join_chunks(states: Tensor) -> Tensor:
    """(B, chunks, L, C) to (B, T, C): one begin, every chunk's content, one end, as kohya's trainers join them."""
    content = states[:, :, 1:-1].flatten(1, 2)
    return torch.cat([states[:, 0, :1], content, states[:, -1, -1:]], dim=1)


def _emphasise(states: Tensor, weights: Tensor) -> Tensor:
    """Scale each token's state by its weight, then the whole so that its mean stays (A1111's way)."""
    scaled = states * weights[..., None]
    before, after = states.float().mean((-2, -1), keepdim=True), scaled.float().mean((-2, -1), keepdim=True)
    return scaled * (before / after).to(scaled)
