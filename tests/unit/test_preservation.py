"""Plain captions, adapters switched off, and what preservation needs to be set."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainer.config import Config
from trainer.config_io import parse_config
from trainer.data.plain_captions import plain_caption, plain_captions
from trainer.errors import UserError
from trainer.families import FAMILIES
from trainer.families.base import Conditioning, Family
from trainer.lora.adapter import add_adapters, without_adapters


@pytest.mark.parametrize(
    ("caption", "plain"),
    [
        ("a photo of sks on grass", "a photo of dog on grass"),
        ("SKS, Sks; sks's", "dog, dog; dog's"),
        ("a photo of asks and sksy", "dog"),
        ("", "dog"),
    ],
)
def test_the_class_word_takes_the_triggers_place(caption: str, plain: str) -> None:
    assert plain_caption(caption, "sks", "dog") == plain


def test_words_are_taken_literally() -> None:
    assert plain_caption("(s+k) here", "s+k", r"a \1 dog") == r"(a \1 dog) here"


def test_captions_are_preserved_only_where_asked() -> None:
    assert plain_captions(["a sks"], Config()) == []
    config = parse_config({"loss": {"preserve": {"class_word": "dog"}}, "output": {"trigger": "sks"}})
    assert plain_captions(["a sks", "else"], config) == ["a dog", "dog"]


def small_model(**lora: Any) -> Family:
    torch.manual_seed(0)
    family = FAMILIES["sd1"].random("demo", device=torch.device("cpu"), dtype=torch.float32)
    if lora:
        for trainable in add_adapters(family, Config.model_validate({"lora": lora}).lora, seed=1):
            torch.nn.init.normal_(trainable.parameter, std=0.1)
    return family


def answer(family: Family) -> torch.Tensor:
    text = family.encode_captions(["a dog"], max_token_length=75, clip_skip=1, weighted=False)
    latents = torch.ones(1, 4, 8, 8)
    return family.predict(latents, torch.tensor([5]), Conditioning(text.hidden_states, {}), torch.zeros(1, 6))


@pytest.mark.parametrize(
    ("kind", "train"),
    [
        ("lora", "unet"),
        ("lora", "text_encoder"),
        ("lora", "both"),
        ("dora", "both"),
        ("loha", "both"),
        ("lokr", "both"),
    ],
)
def test_without_adapters_the_model_is_what_it_was(kind: str, train: str) -> None:
    plain, family = answer(small_model()), small_model(type=kind, rank=2, train=train)
    with_lora = answer(family)
    with without_adapters(family):
        assert torch.equal(answer(family), plain)
    assert not torch.allclose(with_lora, plain, atol=1e-3)
    assert torch.equal(answer(family), with_lora)
    answer(family).sum().backward()
    parts = (family.denoiser, *family.text_encoders.values())
    learning = [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
    assert learning and all(parameter.grad is not None for parameter in learning), "they learn on"


def test_frozen_factors_stay_frozen_without_adapters_and_back() -> None:
    family = small_model(type="lora", rank=2, train="both")
    for encoder in family.text_encoders.values():
        encoder.requires_grad_(False)
    learns = {name: each.requires_grad for name, each in family.text_encoders["text_encoder"].named_parameters()}
    with without_adapters(family):
        pass
    assert {
        name: each.requires_grad for name, each in family.text_encoders["text_encoder"].named_parameters()
    } == learns
    assert any(each.requires_grad for each in family.denoiser.parameters())


def test_a_model_without_adapters_has_none_to_switch_off() -> None:
    with pytest.raises(ValueError, match="no adapters"), without_adapters(small_model()):
        pass


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"loss": {"preserve": {"class_word": "dog"}}}, "output", "set output.trigger"),
        (
            {"loss": {"preserve": {"class_word": ""}}, "output": {"trigger": "a"}},
            "loss.preserve.class_word",
            "at least",
        ),
        ({"loss": {"preserve": {}}, "output": {"trigger": "a"}}, "loss.preserve.class_word", "missing"),
        (
            {"lora": {"max_norm": 1}, "train": {"optimizer": "schedule_free_adamw", "lr_scheduler": "constant"}},
            "train",
            "lora.max_norm",
        ),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_config(values)
    assert [problem.field for problem in caught.value.problems] == [field]
