"""The model card: README.md of a repository, with the settings in front that the Hub's page is made of.

Its form: https://huggingface.co/docs/hub/model-cards; the gallery of pictures: .../docs/hub/model-cards#widget.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

LICENSES = (
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
    "openrail++", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear",
    "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "wtfpl", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1",
    "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "lppl-1.3c", "ms-pl",
    "mpl-2.0", "odc-by", "odbl", "ofl-1.1", "osl-3.0", "postgresql", "ncsa", "unlicense", "zlib", "pddl", "unknown",
    "other",
)  # fmt: skip
"""Names that the Hub knows (https://huggingface.co/docs/hub/repositories-licenses); others are told as ``other``."""

_FAMILY_TAGS = {
    "sd_v1": "stable-diffusion",
    "sd_v2": "stable-diffusion",
    "sd_v2_v": "stable-diffusion",
    "sdxl_base_v1-0": "stable-diffusion-xl",
}
_FACTS = (
    ("Rank", "ss_network_dim"),
    ("Alpha", "ss_network_alpha"),
    ("Steps", "ss_steps"),
    ("Epochs", "ss_epoch"),
    ("Learning rate", "ss_learning_rate"),
    ("Optimizer", "ss_optimizer"),
    ("Batch size", "ss_total_batch_size"),
    ("Resolution", "modelspec.resolution"),
    ("Pictures seen in an epoch", "ss_num_train_images"),
)


@dataclass(frozen=True)
class SamplePicture:
    """A picture on the card: its file's name in the repository, and what it was drawn with."""

    name: str
    prompt: str
    negative: str = ""


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        repo: ``owner/name``.
        title: the LoRA's.
        file: name of the LoRA in the repository.
        metadata: of the file, as it is sent.
        base_model: ``owner/name`` of the model it was trained on; None where that is not known.
        samples: pictures, the first one being the example.
        note: the user's own words.
        has_settings: whether the settings are sent as ``settings.yaml``.
    """

    repo: str
    title: str
    file: str
    metadata: Mapping[str, str]
    base_model: str | None = None
    samples: tuple[SamplePicture, ...] = ()
    note: str = ""
    has_settings: bool = False

    @property
    def trigger(self) -> str | None:
        """The word that calls the LoRA."""
        return self.metadata.get("modelspec.trigger_phrase") or None


def model_card(facts: CardFacts) -> str:
    """The text of README.md. Raises ValueError where the library does not take it for a card."""
    body = "\n".join(_body(facts))
    text = f"---\n{_settings(facts).to_yaml()}\n---\n\n{body}\n"
    ModelCard(text)
    return text


def base_model_of(card: object) -> str | None:
    """The base model that a card's settings name, the first one of several; None for none."""
    named = card.get("base_model") if isinstance(card, Mapping) else getattr(card, "base_model", None)
    first = named[0] if isinstance(named, list) and named else named
    return first if isinstance(first, str) and first else None


def _settings(facts: CardFacts) -> ModelCardData:
    metadata = facts.metadata
    own = [tag.strip() for tag in metadata.get("modelspec.tags", "").split(",") if tag.strip()]
    family = _FAMILY_TAGS.get(metadata.get("ss_base_model_version", ""))
    widget = [
        {"text": each.prompt or "-", "output": {"url": each.name}}
        | ({"parameters": {"negative_prompt": each.negative}} if each.negative else {})
        for each in facts.samples
    ]
    more: dict[str, Any] = {"widget": widget} if widget else {}
    if facts.trigger:
        more["instance_prompt"] = facts.trigger
    return ModelCardData(
        base_model=facts.base_model,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["text-to-image", "lora", "diffusers", "template:sd-lora", *([family] if family else []), *own],
        **_license(metadata.get("modelspec.license", "")),
        **more,
    )


def _license(given: str) -> dict[str, str]:
    if not given.strip():
        return {}
    name = given.strip().lower()
    if name in LICENSES:
        return {"license": name}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name).strip("-") or "own"}


def _body(facts: CardFacts) -> Iterator[str]:
    metadata = facts.metadata
    yield f"# {_one_line(facts.title)}"
    for text in (metadata.get("modelspec.description", ""), facts.note):
        if text.strip():
            yield from ("", text.strip())
    if facts.samples:
        yield from ("", "<Gallery />")
    if facts.trigger:
        yield from ("", "## Trigger word", "", f"Use {_code(facts.trigger)} in the prompt.")
    yield from _with_diffusers(facts)
    yield from _with_programs(facts)
    yield from _training(facts)


def _with_diffusers(facts: CardFacts) -> Iterator[str]:
    base = facts.base_model or "PATH_OR_ID_OF_THE_BASE_MODEL"
    prompt = facts.samples[0].prompt if facts.samples else facts.trigger or "a prompt"
    yield from (
        "",
        "## With diffusers",
        "",
        "```python",
        "import torch",
        "from diffusers import AutoPipelineForText2Image",
    )
    yield from ("", f"pipeline = AutoPipelineForText2Image.from_pretrained({_text(base)}, torch_dtype=torch.float16)")
    yield 'pipeline.to("cuda")'
    yield f"pipeline.load_lora_weights({_text(facts.repo)}, weight_name={_text(facts.file)})"
    yield f'pipeline({_text(prompt)}).images[0].save("picture.png")'
    yield "```"


def _with_programs(facts: CardFacts) -> Iterator[str]:
    stem = facts.file.removesuffix(".safetensors")
    yield from ("", "## With ComfyUI, Forge, A1111 or InvokeAI", "")
    yield f"Download {_code(facts.file)} and put it into:"
    yield from ("", f"- ComfyUI: `models/loras`, then the node *Load LoRA* with {_code(facts.file)}.")
    yield f"- Forge and A1111: `models/Lora`, then {_code(f'<lora:{stem}:1>')} in the prompt."
    yield f"- InvokeAI: *Models*, *Add Model*, {_code(facts.repo)}."


def _training(facts: CardFacts) -> Iterator[str]:
    rows = [(label, facts.metadata[name]) for label, name in _FACTS if facts.metadata.get(name, "None") != "None"]
    yield from ("", "## Training", "")
    base = facts.base_model or facts.metadata.get("ss_sd_model_name", "")
    if base:
        yield from (f"Trained on {_code(base)}.", "")
    if rows:
        yield from ("| | |", "|---|---|", *(f"| {label} | {_cell(value)} |" for label, value in rows), "")
    if facts.has_settings:
        yield from ("All settings are in [settings.yaml](settings.yaml); paths are left out.", "")
    yield "Made with LoRA Atelier."


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> str:
    """Text as it is, between backticks that it does not hold itself (CommonMark, section 6.1)."""
    text = _one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _cell(text: str) -> str:
    return _code(text).replace("|", "\\|")


def _text(text: str) -> str:
    """A string as Python and JSON both write it, on one line and without a way out of the block of code."""
    return json.dumps(_one_line(text), ensure_ascii=False)
