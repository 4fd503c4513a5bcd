"""Mutated files through every reader: an answer or a message, in time, and nothing written.

Files of every kind are broken in every way: bytes, the header's JSON, tensors, their shapes and formats, the end.
``LORA_ATELIER_FUZZ=10000`` makes that many files; the usual number is small. A case that fails is told by its number,
and made again by it alone.
"""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import struct
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_samples import CONV, QUERY, conv, linear, lora
from safetensors.torch import save

from tests.time_limits import in_time
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.lora.contents import lora_contents
from trainer.lora.convert import Conversion, convert_lora
from trainer.lora.file import LoraFile, read_lora
from trainer.lora.inspect import inspect_lora
from trainer.lora.layers import Layer, LohaLayer, LokrLayer, LoraLayer
from trainer.lora.merge_files import LoraMerge, merge_lora_files
from trainer.lora.merge_model import merge_into_model
from trainer.lora.merge_plan import open_base
from trainer.lora.merge_settings import MergeSettings
from trainer.lora.model_weights import open_model
from trainer.lora.resize import Choice, resize_lora
from trainer.lora.strengths import Strength
from trainer.single_file.kinds import part_shapes

CASES = int(os.environ.get("LORA_ATELIER_FUZZ", "120"))
LONGEST_SECONDS = 20
SLOW = {"into a model": 10}
"""Readers that only some of the cases go through, one in so many: they read a whole model beside the case."""
SDXL = "lora_unet_input_blocks_4_1_proj_in"
DOTTED = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
Mutation = Callable[[random.Random, dict[str, Any], bytes], tuple[dict[str, Any], bytes]]


class _Quiet:
    def emit(self, type: str, **values: Any) -> None: ...


def _numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _saved(layers: dict[str, Layer], **metadata: str) -> bytes:
    tensors = {f"{key}.{name}": value for key, layer in layers.items() for name, value in layer.tensors().items()}
    tensors |= {f"{key}.alpha": torch.tensor(layer.alpha) for key, layer in layers.items()}
    return save({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, metadata)


def samples() -> list[bytes]:
    """A small file of every kind that is read."""
    one, loha = linear(4, 2.0, seed=0), [_numbers(10, 2), _numbers(2, 12)]
    dora = LoraLayer(one.down, one.up, 2.0, _numbers(1, 12).abs())
    peft = {f"{DOTTED}.lora_A.weight": one.down, f"{DOTTED}.lora_B.weight": one.up}
    settings = {"unet.lora_alpha": 2, "unet.alpha_pattern": {"to_q": 3}, "unet.use_rslora": True}
    mid = {"lora_down.weight": _numbers(2, 6, 1, 1), "lora_mid.weight": _numbers(2, 2, 3, 3)}
    mid["lora_up.weight"] = _numbers(8, 2, 1, 1)
    base = {
        f"model.diffusion_model.{name}": _numbers(4, 4) for name in ("input_blocks.1.1.proj_in.weight", "out.2.bias")
    }
    base |= {f"cond_stage_model.transformer.text_model.{name}.weight": _numbers(4, 4) for name in "ab"}
    return [
        _saved(dict(lora().layers), ss_base_model_version="sd_v1", ss_tag_frequency='{"a": {"b": 3}}'),
        _saved(
            {SDXL: one, "lora_te2_text_model_encoder_layers_0_mlp_fc1": one}, ss_base_model_version="sdxl_base_v1-0"
        ),
        _saved({QUERY: dora, CONV: conv(2, 1.0, seed=1)}),
        _saved({QUERY: LohaLayer(loha[0], loha[1], loha[0], loha[1], 1.0)}),
        _saved({QUERY: LokrLayer(1.0, lokr_w1=_numbers(2, 3), lokr_w2_a=_numbers(5, 2), lokr_w2_b=_numbers(2, 4))}),
        save({f"{CONV}.{name}": value for name, value in mid.items()} | {"strange.thing": _numbers(2)}),
        save(peft, {"lora_adapter_metadata": json.dumps(settings)}),
        save(base),
    ]


def _bytes(source: random.Random, data: bytes) -> bytes:
    """Some bytes changed, mostly in the header; perhaps cut off or longer."""
    changed, header_end = bytearray(data), 8 + int.from_bytes(data[:8], "little")
    for _ in range(source.randint(1, 8)):
        changed[source.randrange(header_end if source.random() < 0.8 else len(data))] = source.randrange(256)
    if source.random() < 0.3:
        changed = changed[: source.randrange(len(changed) + 1)]
    return bytes(changed) + bytes(source.randrange(256) for _ in range(source.choice((0, 0, 0, 5))))


def _odd(source: random.Random) -> Any:
    """A value that has no place where it is put, or only just."""
    return source.choice(
        [None, True, -1, 0, 1, 2, 3, 2**31, 2**63, 2**70, 1e308, "", "x" * 600, "\ud800", "F16", "F8_E4M3", "C64",
         [], [0], [1, 2], [[]], {}, {"a": 1}, "[" * 9000, '{"unet.lora_alpha": 1e999}', '{"alpha_pattern": {"(": 1}}']
    )  # fmt: skip


def _header(source: random.Random, table: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """One thing of the header's JSON: a value, a name, an entry more or less."""
    name = source.choice(list(table))
    entry = table[name]
    what = source.randrange(6)
    if what == 0 and isinstance(entry, dict) and entry:
        entry[source.choice(list(entry))] = _odd(source)
    elif what == 1:
        table[source.choice(list(table)).replace(source.choice("0ad._"), source.choice("0ad._"), 1)] = table.pop(name)
    elif what == 2:
        del table[name]
    elif what == 3:
        table[name] = copy.deepcopy(table[source.choice(list(table))])
    elif what == 4:
        table.setdefault("__metadata__", {})[source.choice(["lora_adapter_metadata", "ss_tag_frequency", "x"])] = _odd(
            source
        )
    else:
        table[name] = _odd(source)
    return table, data


def _tensor(source: random.Random, table: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """One tensor of another shape, format, or with other numbers; the table stays true of it."""
    names = [name for name in table if name != "__metadata__"]
    changed, parts, place = source.choice(names), [], 0
    for name in names:
        begin, end = table[name]["data_offsets"]
        numbers, shape, form = data[begin:end], list(table[name]["shape"]), table[name]["dtype"]
        if name == changed:
            numbers, shape, form = _other(source, numbers, shape, form)
        table[name] = {"dtype": form, "shape": shape, "data_offsets": [place, place + len(numbers)]}
        parts.append(numbers)
        place += len(numbers)
    return table, b"".join(parts)


def _other(source: random.Random, numbers: bytes, shape: list[int], form: str) -> tuple[bytes, list[int], str]:
    count = len(numbers) // 4
    what = source.randrange(6)
    if what == 0 and count:  # NaN, infinity, the largest and smallest numbers, in one place
        value = struct.pack("<f", source.choice([float("nan"), float("inf"), 3e38, -3e38, 1e-45, 0.0]))
        place = 4 * source.randrange(count)
        return numbers[:place] + value + numbers[place + 4 :], shape, form
    if what == 1 and count:  # in all places
        return struct.pack("<f", source.choice([float("nan"), 3e38, 0.0, 1.0])) * count, shape, form
    if what == 2:
        return numbers, [*shape[::-1]] if source.random() < 0.5 else [1, *shape], form
    if what == 3:
        shape = [source.choice([0, 1, 2, 3, 7, 4000]) for _ in range(source.randrange(5))]
        while 4 * torch.Size(shape).numel() > 1 << 22:
            shape = shape[1:]
        return b"\0\0\x80\x3f" * torch.Size(shape).numel(), shape, form
    if what == 4:
        return numbers, shape, source.choice(["I32", "U32"])
    return numbers[: 2 * count], shape, source.choice(["F16", "BF16", "I16"])


def mutated(number: int, good: list[bytes]) -> bytes:
    """The file of a case."""
    source = random.Random(number)
    data = source.choice(good)
    if source.random() < 0.3:
        return _bytes(source, data)
    end = 8 + int.from_bytes(data[:8], "little")
    table, tensors = json.loads(data[8:end]), data[end:]
    for _ in range(source.choice((1, 1, 2, 3))):
        mutate: Mutation = source.choice((_header, _tensor))
        try:
            table, tensors = mutate(source, table, tensors)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, struct.error):
            break  # what was done before left nothing that this could be done to
    text = json.dumps(table).encode("utf-8", "surrogatepass")
    whole = struct.pack("<Q", len(text)) + text + tensors
    return _bytes(source, whole) if source.random() < 0.1 else whole


def _merge(path: Path, settings: MergeSettings) -> None:
    """With a good file beside it; a result that comes out can be read again."""
    out = path.parent / "out" / "merged.safetensors"
    loras = [(path, Strength(0.7)), (path.parent / "good.safetensors", Strength(-1.0))]
    merge_lora_files(LoraMerge(loras, out, settings), events=_Quiet())
    assert read_lora(out).layers
    out.unlink()


def _convert(path: Path) -> None:
    out = path.parent / "out" / "converted.safetensors"
    convert_lora(path, out, Conversion("diffusers", rank=2), events=_Quiet())
    out.unlink()


def _base(path: Path) -> None:
    with open_base(path):
        pass


def _model(path: Path) -> None:
    with open_model(str(path), field="base", events=_Quiet()):
        pass


READERS: dict[str, Callable[[Path], object]] = {
    "read": read_lora,
    "contents": lora_contents,
    "inspect": inspect_lora,
    "merge": lambda path: _merge(path, MergeSettings()),
    "merge svd": lambda path: _merge(path, MergeSettings("svd", 3)),
    "merge ties": lambda path: _merge(path, MergeSettings("ties", 3)),
    "merge kohya": lambda path: _merge(path, MergeSettings("kohya")),
    "resize": lambda path: resize_lora(read_lora(path), Choice(2, 2, None, None), device="cpu", events=_Quiet()),
    "convert": _convert,
    "into a model": lambda path: merge_into_model(
        MODEL_DIR, [(path, 1.0)], path.parent / "out" / "model", dry_run=True, events=_Quiet()
    ),
    "as a model": part_shapes,
    "as a base": _base,
    "as a model to extract from": _model,
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tensors of some hundred numbers, threads cost more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="the time is kept with SIGALRM")
def test_mutated_files_get_an_answer_or_a_message(tmp_path: Path) -> None:
    good, path = samples(), tmp_path / "case.safetensors"
    (tmp_path / "good.safetensors").write_bytes(good[0])
    (tmp_path / "out").mkdir()
    refused, failures = dict.fromkeys(READERS, 0), []
    for number in range(CASES):
        path.write_bytes(mutated(number, good))
        for name, reader in READERS.items():
            if number % SLOW.get(name, 1):
                continue
            try:
                with in_time(LONGEST_SECONDS, of_processor=False):
                    reader(path)
            except UserError as error:
                refused[name] += 1
                assert str(error).encode("utf-8")
            except Exception:
                failures.append(f"case {number}, {name}: {traceback.format_exc()}")
            if any((tmp_path / "out").iterdir()):
                failures.append(f"case {number}, {name} left something behind")
    assert not failures, f"{len(failures)} of {CASES} cases fail; the first:\n" + "\n".join(failures[:3])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["case.safetensors", "good.safetensors", "out"]
    for name, count in refused.items():
        assert count > CASES // SLOW.get(name, 1) // 2, f"{name} refuses {count} of {CASES}"
    assert refused["read"] < CASES, "some are whole, so that there is something to be done with them"


def test_the_samples_themselves_are_read(tmp_path: Path) -> None:
    """Else the mutations would tell nothing."""
    for number, data in enumerate(samples()):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(data)
        if number < len(samples()) - 1:
            found: LoraFile = read_lora(path)
            assert found.layers
