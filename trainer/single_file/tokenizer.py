"""CLIP's tokenizer for models that come without one, built from OpenAI's list of merges.

``vocabulary/`` holds the list as OpenAI published it with CLIP; its vocabulary is the 256 byte letters, the same at a
word's end, one token per merge, and begin and end (Radford et al. 2021, 2103.00020, section 2.4).
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MERGES_FILE = Path(__file__).parent / "vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SIZE = 49408
_BYTES = 256


def byte_letters() -> dict[int, str]:
    """Byte -> the printable letter that stands for it in CLIP's and GPT-2's vocabulary files."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def clip_merges() -> list[str]:
    """The merges in their order, each as two tokens with a space between. The list goes on; CLIP uses its beginning."""
    lines = gzip.decompress(MERGES_FILE.read_bytes()).decode("utf-8").split("\n")
    return lines[1 : VOCABULARY_SIZE - 2 * _BYTES - 2 + 1]  # the first line is a title


def clip_vocabulary(merges: list[str]) -> dict[str, int]:
    """Token -> id."""
    letters = list(byte_letters().values())
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *(merge.replace(" ", "") for merge in merges),
        BOS,
        EOS,
    ]
    return {token: number for number, token in enumerate(tokens)}


def write_tokenizer(folder: Path, *, pad_token: str, max_tokens: int) -> None:
    """Write a CLIP tokenizer in transformers' files.

    Args:
        folder: made if it is missing.
        pad_token: what short captions are filled up with: ``<|endoftext|>``, or ``!`` for OpenCLIP.
        max_tokens: longest caption with begin and end.
    """
    merges = clip_merges()
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": pad_token, "unk_token": EOS}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": max_tokens, "do_lower_case": True, **special}
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "vocab.json": json.dumps(clip_vocabulary(merges), ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
