"""JoyCaption beta one: a LLaVA model trained to describe pictures for diffusion models, of every kind and uncensored.

Its prompts, system prompt and sampling are documented in the program beside it, ``gradio-app/app.py`` of
https://github.com/fpgaminer/joycaption; it was trained on these words, and does worse on others.
"""

from __future__ import annotations

from typing import Literal

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.prompts import TRIGGER
from trainer.captioners.vision_language import ChatOptions, load_chat
from trainer.config_base import setting

CaptionType = Literal[
    "Descriptive",
    "Descriptive (casual)",
    "Straightforward",
    "Stable Diffusion prompt",
    "MidJourney",
    "Danbooru tag list",
    "e621 tag list",
    "Rule34 tag list",
    "Booru-like tag list",
    "Art critic",
    "Product listing",
    "Social media post",
]
Length = Literal["any", "very short", "short", "medium-length", "long", "very long"]

PROMPTS: dict[CaptionType, str] = {
    "Descriptive": "Write a {length} detailed description for this image.",
    "Descriptive (casual)": "Write a {length} descriptive caption for this image in a casual tone.",
    "Straightforward": (
        "Write a {length} straightforward caption for this image. Begin with the main subject and medium. Mention "
        "pivotal elements—people, objects, scenery—using confident, definite language. Focus on concrete details like "
        "color, shape, texture, and spatial relationships. Show how elements interact. Omit mood and speculative "
        "wording. If text is present, quote it exactly. Note any watermarks, signatures, or compression artifacts. "
        "Never mention what's absent, resolution, or unobservable details. Vary your sentence structure and keep the "
        "description concise, without starting with “This image is…” or similar phrasing."
    ),
    "Stable Diffusion prompt": (
        "Output a {length} stable diffusion prompt that is indistinguishable from a real stable diffusion prompt."
    ),
    "MidJourney": "Write a {length} MidJourney prompt for this image.",
    "Danbooru tag list": (
        "Generate only comma-separated Danbooru tags (lowercase_underscores). Strict order: `artist:`, `copyright:`, "
        "`character:`, `meta:`, then general tags. Include counts (1girl), appearance, clothing, accessories, pose, "
        "expression, actions, background. Use precise Danbooru syntax. No extra text. {length} length."
    ),
    "e621 tag list": (
        "Write a {length} comma-separated list of e621 tags in alphabetical order for this image. Start with the "
        "artist, copyright, character, species, meta, and lore tags (if any), prefixed by 'artist:', 'copyright:', "
        "'character:', 'species:', 'meta:', and 'lore:'. Then all the general tags."
    ),
    "Rule34 tag list": (
        "Write a {length} comma-separated list of rule34 tags in alphabetical order for this image. Start with the "
        "artist, copyright, character, and meta tags (if any), prefixed by 'artist:', 'copyright:', 'character:', and "
        "'meta:'. Then all the general tags."
    ),
    "Booru-like tag list": "Write a {length} list of Booru-like tags for this image.",
    "Art critic": (
        "Analyze this image like an art critic would with information about its composition, style, symbolism, the use "
        "of color, light, any artistic movement it might belong to, etc. Keep it {length}."
    ),
    "Product listing": "Write a {length} caption for this image as though it were a product listing.",
    "Social media post": ("Write a {length} caption for this image as if it were being used for a social media post."),
}
_NAMED = f"If there is a person/character in the image you must refer to them as {TRIGGER}."
_TAILS = ("{length} length.", "Keep it {length}.")  # sentences that are about the length alone


class JoyCaptionOptions(ChatOptions):
    """What is asked, and how freely it is answered."""

    model: str = setting("fancyfeast/llama-joycaption-beta-one-hf-llava", "Model", basic=True, min_length=1)
    """Folder or Hugging Face id of the weights; about 17 GB. On a GPU with 12 GB set smaller weights to nf4."""
    caption_type: CaptionType = setting("Descriptive", "Caption type", basic=True)
    """What the model is asked for, in the words it was trained on. Tag lists and prompts go wrong now and then."""
    length: Length = setting("any", "Length", basic=True)
    """How long captions shall be."""
    name: str = setting("", "Call the person or character", basic=True)
    """Name of the subject in captions; {trigger} stands for the trigger word. Empty: no name."""
    prompt: str = setting("", "Prompt of one's own")
    """Asked in place of the caption type; empty for that. {trigger} stands for the trigger word."""
    system_prompt: str = setting(
        "You are a helpful assistant and help users with any queries they may have with no censorship or restrictions.",
        "System prompt",
    )
    """What the model is told beforehand about its role."""
    max_new_tokens: int = setting(512, "Longest caption in tokens", also=("max_tokens",), ge=1, le=4096)
    """A token is a short word or a part of a long one. What goes on longer ends with its last whole sentence."""


def prompt_of(options: JoyCaptionOptions) -> str:
    """What the model is asked: the prompt of one's own, or that of the caption type in its length."""
    if options.prompt.strip():
        return options.prompt
    prompt = PROMPTS[options.caption_type]
    if options.length == "any":
        for tail in _TAILS:
            prompt = prompt.replace(tail, "")
        prompt = prompt.replace("{length} ", "")
    prompt = prompt.replace("{length}", options.length).strip()
    name = options.name.strip()
    return f"{prompt} {_NAMED.replace(TRIGGER, name)}" if name else prompt


def load(options: JoyCaptionOptions) -> Captioner:
    """Load JoyCaption on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    asked = options.model_copy(update={"prompt": prompt_of(options)})
    return load_chat(asked, ("llava",), plain_messages=True)


KIND = CaptionerKind(
    label="JoyCaption",
    about="Detailed prose, prompts or tags, made for training diffusion models; uncensored. About 17 GB; wants a GPU.",
    style="prose",
    options=JoyCaptionOptions,
    load=load,
)
