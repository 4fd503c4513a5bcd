"""How many tokens CLIP makes of a caption, counted exactly and without torch or transformers.

The text is cut as CLIP's tokenizer cuts it (Radford et al. 2021, 2103.00020, section 2.4, and OpenAI's
``simple_tokenizer.py``): composed Unicode in lower case, runs of letters, single digits, runs of other signs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from trainer.single_file.tokenizer import BOS, EOS, clip_merges, clip_vocabulary

_PIECES = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


@dataclass(frozen=True)
class TokenCount:
    """The tokens of one text.

    Attributes:
        tokens: how many, begin and end not counted.
        cuts: for each limit asked for, the first character that is not read; None where all of it is.
    """

    tokens: int
    cuts: tuple[int | None, ...]


class TokenCounter:
    """Counts as one tokenizer does.

    Attributes:
        whose: the vocabulary it counts with, in words.
    """

    def __init__(self, tokenizer: Tokenizer, whose: str) -> None:
        self._tokenizer = tokenizer
        self.whose = whose

    def count(self, text: str, limits: tuple[int, ...]) -> TokenCount:
        """The text's tokens, and where each of the limits cuts it."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        cuts = (offsets[limit][0] if limit < len(offsets) else None for limit in limits)
        return TokenCount(len(offsets), tuple(cuts))


@functools.cache
def clip_counter() -> TokenCounter:
    """Counts with the vocabulary that OpenAI published; every Stable Diffusion has it."""
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in clip_merges())]
    return TokenCounter(_tokenizer(clip_vocabulary(clip_merges()), merges), "CLIP")


@functools.lru_cache(maxsize=8)
def model_counter(tokenizer_dir: Path, whose: str) -> TokenCounter:
    """Counts with the tokenizer of a model folder. Raises OSError or ValueError for one that cannot be read."""
    whole = tokenizer_dir / "tokenizer.json"
    try:
        if whole.is_file():
            return TokenCounter(Tokenizer.from_file(str(whole)), whose)
        vocabulary, merges = BPE.read_file(str(tokenizer_dir / "vocab.json"), str(tokenizer_dir / "merges.txt"))
    except Exception as error:  # the library raises bare Exception, for missing and for damaged files alike
        raise ValueError(f"the tokenizer in {tokenizer_dir} cannot be read: {error}") from error
    return TokenCounter(_tokenizer(vocabulary, merges), whose)


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    model = BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=EOS)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([BOS, EOS])
    return tokenizer
