"""Models of each architecture that captions, built in code: random weights, a tokenizer of bytes, real file layouts.

They say letters without sense, others for other pictures, but always the same for one: what is tested is the way from
pictures to text.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

BOS = "<|bos|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
LOUDNESS = 0.5
"""Deviation of the random weights: large enough that pictures make a difference."""
TEXT = {**SIZES, "num_key_value_heads": 1, "head_dim": 16}


def template(image: str, start: str = IM_START, end: str = IM_END) -> str:
    """A chat template as most models have one: a message is a list of parts, the picture's mark stands where it is."""
    part = f"{{% if c.type == 'image' %}}{image}{{% else %}}{{{{ c.text }}}}{{% endif %}}"
    return (
        f"{{% for m in messages %}}{start}{{{{ m.role }}}}\n{{% for c in m.content %}}{part}{{% endfor %}}{end}\n"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{start}assistant\n{{% endif %}}"
    )


JOYCAPTION_TEMPLATE = (
    f"{BOS}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'user' %}<image>{% endif %}"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As JoyCaption's: a message is one text, the picture's mark comes before the user's; the template writes <bos>."""


def byte_tokenizer(marks: list[str], chat_template: str | None = None, **named: str) -> PreTrainedTokenizerFast:
    """A token for each byte, and for each mark; a text begins with <|bos|>, as with Llama's and Gemma's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([BOS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    tokens = {"bos_token": BOS, "eos_token": IM_END, "pad_token": "<|pad|>", **named}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=[IM_START, *marks], chat_template=chat_template, **tokens
    )


def qwen_tokenizer() -> Qwen2Tokenizer:
    """The class of Qwen's models, with a token for each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = [IM_START, IM_END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    return Qwen2Tokenizer(
        vocab={letter: number for number, letter in enumerate(letters)},
        merges=[],
        eos_token=IM_END,
        additional_special_tokens=marks,
        chat_template=template(QWEN_IMAGE),
    )


def blip2(folder: Path) -> None:
    """BLIP-2 with an OPT decoder."""
    tokenizer = byte_tokenizer(["<image>"])
    text = {"model_type": "opt", "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
            "word_embed_proj_dim": 32, "max_position_embeddings": 256, **_ids(tokenizer)}  # fmt: skip
    vision = {**SIZES, "image_size": 32, "patch_size": 16}
    queries = {**SIZES, "vocab_size": len(tokenizer), "encoder_hidden_size": 32}
    config = transformers.Blip2Config(
        text_config=text,
        vision_config=vision,
        qformer_config=queries,
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = BlipImageProcessorPil(size={"height": 32, "width": 32})
    processor = transformers.Blip2Processor(images, tokenizer, num_query_tokens=4)
    _save(folder, transformers.Blip2ForConditionalGeneration(config), processor)


def florence2(folder: Path) -> None:
    """Florence-2."""
    tokenizer = byte_tokenizer(["<image>"], extra_special_tokens={"image_token": "<image>"})
    text = {"model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
            "decoder_start_token_id": tokenizer.eos_token_id, "forced_eos_token_id": None,
            **_ids(tokenizer)}  # fmt: skip
    vision = {"depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
              "patch_prenorm": [False, True], "embed_dim": [16, 32], "num_heads": [2, 2], "num_groups": [2, 2],
              "window_size": 4, "projection_dim": 32}  # fmt: skip
    config = transformers.Florence2Config(
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.image_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessorPil(size=size, crop_size=size, image_seq_length=17)  # (32 / 8) squared, and their mean
    processor = transformers.Florence2Processor(images, tokenizer)
    _save(folder, transformers.Florence2ForConditionalGeneration(config), processor)


def llava(folder: Path) -> None:
    """LLaVA with SigLIP and Llama, as JoyCaption."""
    tokenizer = byte_tokenizer(["<image>"], JOYCAPTION_TEMPLATE)
    config = transformers.LlavaConfig(
        text_config={"model_type": "llama", **TEXT, "max_position_embeddings": 2048, **_ids(tokenizer)},
        vision_config={"model_type": "siglip_vision_model", **SIZES, "image_size": 32, "patch_size": 16},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    processor = transformers.LlavaProcessor(
        SiglipImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="full",
        chat_template=JOYCAPTION_TEMPLATE,
    )
    _save(folder, transformers.LlavaForConditionalGeneration(config), processor)


def qwen2_5_vl(folder: Path) -> None:
    """Qwen2.5-VL."""
    _qwen(folder, transformers.Qwen2_5_VLConfig, 14, {"window_size": 56, "fullatt_block_indexes": [0]})


def qwen3_vl(folder: Path) -> None:
    """Qwen3-VL."""
    _qwen(folder, transformers.Qwen3VLConfig, 16, {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]})


def _qwen(folder: Path, config_class: Any, patch_px: int, vision: dict[str, Any]) -> None:
    tokenizer = qwen_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3]}
    config = config_class(
        text_config={**TEXT, "rope_scaling": rope, **_ids(tokenizer)},
        vision_config={"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
                       "patch_size": patch_px, "spatial_merge_size": 2, **vision},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    size = {"shortest_edge": 4 * patch_px**2, "longest_edge": 64 * patch_px**2}
    _save(folder, transformers.AutoModelForImageTextToText.from_config(config), tokenizer)
    Qwen2VLImageProcessorPil(patch_size=patch_px, size=size).save_pretrained(folder)


def gemma3(folder: Path) -> None:
    """Gemma 3."""
    marks = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    chat = BOS + template(marks["boi_token"])
    tokenizer = byte_tokenizer([], chat, extra_special_tokens=marks)
    text = {"model_type": "gemma3_text", **TEXT, "max_position_embeddings": 2048, **_ids(tokenizer)}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config={**SIZES, "image_size": 32, "patch_size": 8},
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    processor = transformers.Gemma3Processor(images, tokenizer, chat_template=chat, image_seq_length=4)
    _save(folder, transformers.Gemma3ForConditionalGeneration(config), processor)


def idefics3(folder: Path) -> None:
    """Idefics3, as the first SmolVLM."""
    marks = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    chat = template("<image>")
    tokenizer = byte_tokenizer(marks, chat)
    config = transformers.Idefics3Config(
        text_config={"model_type": "llama", **TEXT, "max_position_embeddings": 2048, **_ids(tokenizer)},
        vision_config={**SIZES, "image_size": 32, "patch_size": 8},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    images = Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 32})
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=chat)
    _save(folder, transformers.Idefics3ForConditionalGeneration(config), processor)


def gemma4(folder: Path) -> None:
    """Gemma 4, without its part for sound."""
    marks = {"boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>"}
    sounds = {"boa_token": "<|audio>", "eoa_token": "<audio|>", "audio_token": "<|audio|>"}
    chat = BOS + template(marks["image_token"])
    tokenizer = byte_tokenizer([], chat, extra_special_tokens={**marks, **sounds})
    text = {**TEXT, "global_head_dim": 16, "hidden_size_per_layer_input": 8, "max_position_embeddings": 2048,
            "vocab_size_per_layer_input": len(tokenizer), "layer_types": ["full_attention"],
            **_ids(tokenizer)}  # fmt: skip
    config = transformers.Gemma4Config(
        text_config=text,
        vision_config={**TEXT, "num_key_value_heads": 2, "patch_size": 8, "pooling_kernel_size": 2},
        audio_config=None,
        boi_token_id=tokenizer.boi_token_id,
        eoi_token_id=tokenizer.eoi_token_id,
        image_token_id=tokenizer.image_token_id,
    )
    _save(folder, transformers.Gemma4ForConditionalGeneration(config), tokenizer)
    Gemma4ImageProcessorPil(patch_size=8, pooling_kernel_size=2, max_soft_tokens=70).save_pretrained(folder)


ARCHITECTURES: dict[str, Callable[[Path], None]] = {
    build.__name__: build for build in (blip2, florence2, llava, qwen2_5_vl, qwen3_vl, gemma3, gemma4, idefics3)
}
"""Builders by name; each writes its model into a folder."""


def _ids(tokenizer: Any) -> dict[str, int | None]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _save(folder: Path, network: Any, processor: Any) -> None:
    tokenizer = getattr(processor, "tokenizer", processor)
    for name, parameter in network.named_parameters():
        generator = torch.Generator().manual_seed(sum(name.encode()))
        parameter.data = torch.randn(parameter.shape, generator=generator) * LOUDNESS
    letters = {tokenizer.convert_tokens_to_ids(letter) for letter in string.ascii_lowercase}
    network.generation_config.suppress_tokens = sorted({*range(len(tokenizer))} - letters)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
