"""75, 150 and 225 tokens, with and without emphasis, against chunks and weights worked out here in float64."""

from __future__ import annotations

import pytest
import torch

from trainer.config import ModelSettings
from trainer.families import load_family
from trainer.families.base import Family

PIECES = [("red circle ", 1.0), ("blue ", 1.3), ("square " * 80, 1.0), ("green ", 1.1), ("star " * 70, 1.0)]
CAPTION = "red circle (blue :1.3)" + "square " * 80 + "(green )" + "star " * 70


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("length", [75, 150, 225])
@pytest.mark.parametrize("weighted", [False, True])
def test_chunks_and_weights(family: Family, length: int, weighted: bool) -> None:
    tokenizer, encoder = family.tokenizer, family.text_encoders["text_encoder"]  # type: ignore[attr-defined]
    room, chunks = tokenizer.model_max_length - 2, length // 75
    pieces = PIECES if weighted else [(CAPTION, 1.0)]
    tokens = [
        (token, weight) for text, weight in pieces for token in tokenizer(text, add_special_tokens=False).input_ids
    ]
    assert len(tokens) > room  # more than one chunk
    tokens = tokens[: room * chunks]
    states, weights = [], [1.0]
    for number in range(chunks):
        part = tokens[number * room : (number + 1) * room]
        ids = [tokenizer.bos_token_id, *(token for token, _ in part), tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (room - len(part))
        with torch.no_grad():
            output = encoder(torch.tensor([ids])).last_hidden_state[0].double()
        states.append(output[0 if number == 0 else 1 : None if number == chunks - 1 else -1])
        weights += [weight for _, weight in part] + [1.0] * (room - len(part))
    expected, scale = torch.cat(states), torch.tensor([*weights, 1.0], dtype=torch.float64)[:, None]
    if weighted:
        emphasised = expected * scale
        expected = emphasised * (expected.mean() / emphasised.mean())
    with torch.no_grad():
        found = family.encode_captions([CAPTION], max_token_length=length, clip_skip=1, weighted=weighted)
    assert found.hidden_states.shape == (1, room * chunks + 2, expected.shape[1])
    torch.testing.assert_close(found.hidden_states[0].double(), expected, atol=2e-5, rtol=1e-5)
