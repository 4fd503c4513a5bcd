"""The demo model's tokenizer: a byte-level BPE in CLIP's file format, small but able to spell any text.

The algorithm is byte pair encoding (Sennrich et al. 2016) on bytes with CLIP's `</w>` end-of-word mark. The world's
words are one token each; other words fall into pieces, and unknown scripts into bytes.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

from transformers import CLIPTokenizer

from trainer.demo import world
from trainer.single_file.tokenizer import BOS, EOS, byte_letters

MAX_TOKENS = 77
MERGES = 900

FUNCTION_WORDS = """
a an and the of on in at to is with for by from as it its this that no not one two three four style background
picture drawing image left right top bottom above below inside medium little large tiny huge dotted striped outline
gold golden silver violet magenta turquoise teal navy beige grey solid plain flat simple shape color colour
"""
"""Common prompt words that are one token too, beside `world.PLAIN_WORDS`; most have no meaning here either."""


def word_counts() -> Counter[str]:
    """How often each word counts when merges are learned: the world's own words far above the rest."""
    counts = Counter([*FUNCTION_WORDS.split(), *world.PLAIN_WORDS])
    own = [*world.COLOURS, *world.SHAPES, *world.SIZES, "a", "an", "on", "with", "of", "background", "picture"]
    counts.update({word: 1000 for word in own if word})
    return counts


def learn_merges(counts: Counter[str], limit: int) -> list[tuple[str, str]]:
    """The `limit` most frequent pairs in turn, each joined before the next is chosen; ties by alphabet."""
    letters = byte_letters()
    words: dict[tuple[str, ...], int] = {}
    for word, count in counts.items():
        spelled = [letters[byte] for byte in word.encode()]
        spelled[-1] += "</w>"
        words[tuple(spelled)] = count
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, count in words.items():
            for pair in itertools.pairwise(symbols):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs.items(), key=lambda item: (item[1], item[0]))[0]
        merges.append(best)
        words = {_joined(symbols, best): count for symbols, count in words.items()}
    return merges


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Learns the merges, writes `vocab.json`, `merges.txt` and the configs into `folder`, and loads them."""
    merges = learn_merges(word_counts(), MERGES)
    letters = list(byte_letters().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), BOS, EOS]
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, "do_lower_case": True, **special}
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def _joined(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result: list[str] = []
    index = 0
    while index < len(symbols):
        if symbols[index : index + 2] == pair:
            result.append("".join(pair))
            index += 2
        else:
            result.append(symbols[index])
            index += 1
    return tuple(result)
