"""YAML of strangers: plain values, one sentence for what is none, and no small text that fills the memory."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from trainer.config_io import parse_config, parse_yaml
from trainer.errors import UserError
from trainer.yaml_texts import YamlError, dump_yaml, load_yaml


def bomb(levels: int) -> str:
    """A list of 10 ** levels letters, ten times as many for each level."""
    parts = ["&a0 [x, x, x, x, x, x, x, x, x, x]"]
    parts += [f"&a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return f"[{', '.join(parts)}]"


MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 9)
)


def test_what_is_written_is_read() -> None:
    assert load_yaml("a: &x {b: [1, 2.5, null, true]}\nc: *x") == {
        "a": {"b": [1, 2.5, None, True]},
        "c": {"b": [1, 2.5, None, True]},
    }
    assert load_yaml("") is None
    assert load_yaml("base: &b {r: 1}\nx: {<<: *b, s: 2}")["x"] == {"r": 1, "s": 2}


@pytest.mark.parametrize("place", ["{}", "name: {}", "lora: {{include: {}}}", "train: {{optimizer_args: {{x: {}}}}}"])
def test_aliases_of_aliases_are_counted_before_anything_is_made_of_them(place: str) -> None:
    begun = time.process_time()
    tracemalloc.start()
    with pytest.raises(UserError, match="more than 100,000 values"):
        parse_config(parse_yaml(place.format(bomb(9)), "it"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (peak < 10_000_000, time.process_time() - begun < 5) == (True, True)


def test_merged_maps_are_counted_too() -> None:
    with pytest.raises(YamlError, match="more than"):
        load_yaml(MERGES)


def test_every_value_counts_as_often_as_it_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.yaml_texts.MOST_VALUES", 9)
    assert load_yaml("[&a [x, x], *a, y, y]") == [["x", "x"], ["x", "x"], "y", "y"]  # 1 + 3 + 3 + 2
    with pytest.raises(YamlError, match="more than"):
        load_yaml("[&a [x, x], *a, *a]")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [*a]", "contains itself"),
        ("a: [", "in line 1"),
        ("a: 1\nb: !!python/object/apply:os.system [x]", "in line 2"),
        ("a: !!python/name:os.system", "in line 1"),
        ("a: 2026-13-45", "month"),
        ("9" * 5000, "digits"),
        ("[" * 2000, "nested too deeply"),
        ("{a: " * 2000, "nested too deeply"),
        ("a: *nothing", "in line 1"),
        ("? [a]\n: b", "in line 1"),
        ("a: 1\n---\nb: 2", "in line 2"),
        ("a\0b", "^$"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, reason: str) -> None:
    with pytest.raises(YamlError, match=reason):
        load_yaml(text)


def test_nothing_else_reads_yaml() -> None:
    """Every reader has the limits of this one."""
    root = Path(__file__).resolve().parents[2]
    sources = [path for folder in ("trainer", "ui") for path in (root / folder).rglob("*.py")]
    callers = [path.name for path in sources if "yaml.safe_load" in path.read_text("utf-8")]
    assert callers == []


@pytest.mark.parametrize("sign", ["[", "{", "[{a: ", "a: ["])
def test_brackets_without_end_are_refused_before_they_are_all_read(sign: str) -> None:
    begun = time.process_time()
    with pytest.raises(YamlError, match="nested too deeply"):
        load_yaml(sign * 100_000)
    assert time.process_time() - begun < 0.5
    assert load_yaml("[" * 90 + "]" * 90)


@pytest.mark.parametrize(
    "sign", ["\x85", "\u2028", "\u2029", "\n", "\r\n", "\ufeff", "\0", "\x1b", "\U0001f600", "'", '"', "# ", ": "]
)
def test_every_sign_is_read_as_it_was_written(sign: str) -> None:
    values = {"a": f"x{sign}y", "b": [sign, f" {sign} "], "plain": "é"}
    assert load_yaml(dump_yaml(values)) == values
    assert "plain: é" in dump_yaml(values)
