"""What is true of every config, of every text and value in the place of one, and of settings of other trainers."""

from __future__ import annotations

import contextlib
import json
import re
from functools import cache
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.properties import ANYTHING, values_of
from tests.fuzz.targets import DATA
from tests.unit.schema_compared import bare
from trainer.config import Config
from trainer.config_io import apply_override, dump_changes, dump_config, load_config, parse_config, parse_yaml
from trainer.errors import UserError
from trainer.imports.reading import import_text, is_own_text
from trainer.versions import FORMATS, FileFormat


@cache
def _schema() -> dict[str, Any]:
    schema = Config.model_json_schema()
    return bare(schema, schema["$defs"])


def _without(values: dict[str, Any], field: str) -> None:
    """Take out what a problem blames, or as much of it as can be named."""
    names, inside = field.split("."), values
    for place, name in enumerate(names):
        known = inside.get(name) if isinstance(inside, dict) else None
        if not isinstance(known, dict) or place == len(names) - 1:
            if isinstance(inside, dict):
                inside.pop(name, None)
            return
        inside = known


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Valid ones: what does not go together with the rest is left out."""
    values = draw(values_of(_schema()))
    for _ in range(40):
        try:
            return parse_config(values)
        except UserError as error:
            for problem in error.problems:
                _without(values, problem.field)
    raise AssertionError(f"nothing valid comes of {values}")


@given(configs())
def test_a_config_is_the_same_after_being_written_and_read(config: Config) -> None:
    for dump in (dump_config, dump_changes):
        assert parse_config(parse_yaml(dump(config), "it")) == config
    assert parse_config(json.loads(config.model_dump_json())) == config


@given(st.data())
def test_anything_in_the_place_of_a_setting_is_a_config_or_a_list_of_problems(data: st.DataObject) -> None:
    values = data.draw(values_of(_schema()))
    inside = values
    while (sections := [each for each in inside.values() if isinstance(each, dict) and each]) and data.draw(
        st.booleans()
    ):
        inside = data.draw(st.sampled_from(sections))
    inside[data.draw(st.sampled_from([*inside, "strange"]))] = data.draw(ANYTHING)
    try:
        parse_config(values)
    except UserError as error:
        assert all(problem.message and problem.code for problem in error.problems)


@given(ANYTHING | st.text())
def test_anything_in_the_place_of_a_file_is_a_config_or_a_list_of_problems(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    text = content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UserError):
        load_config(path)


@given(
    st.text()
    | st.tuples(st.sampled_from(["train", "lora.rank", "dataset.sources.0", "version"]), st.text()).map("=".join)
)
def test_any_override_is_taken_or_refused(override: str) -> None:
    values = Config().model_dump(mode="json")
    with contextlib.suppress(UserError):
        apply_override(values, override)
        parse_config(values)


@given(st.sampled_from(FORMATS), ANYTHING)
def test_a_format_reads_anything_and_changes_nothing_of_it(kind: FileFormat, content: Any) -> None:
    before = json.dumps(content, sort_keys=True)
    with contextlib.suppress(UserError):
        kind.read(content)
    assert json.dumps(content, sort_keys=True) == before


@cache
def _keys_of_others() -> list[str]:
    found: set[str] = set()
    for path in [*DATA.glob("imports/kohya_gui/*.json"), *DATA.glob("imports/onetrainer/*.json")]:
        found |= set(json.loads(path.read_text(encoding="utf-8-sig")))
    for path in DATA.glob("imports/sd_scripts/*.toml"):
        found |= set(re.findall(r"(?m)^(\w+)\s*=", path.read_text(encoding="utf-8-sig")))
    return sorted(found)


_MARKS = ({"LoRA_type": "Standard"}, {"__version": 10}, {"network_dim": 4}, {"job": "extension", "config": {}})


def _settings_of_others() -> st.SearchStrategy[dict[str, Any]]:
    named = st.dictionaries(st.sampled_from(_keys_of_others()), ANYTHING, max_size=8)
    return st.builds(lambda mark, rest: {**mark, **rest}, st.sampled_from(_MARKS), named)


@given(_settings_of_others() | ANYTHING)
def test_settings_of_others_give_a_config_or_problems(content: Any) -> None:
    for text in (json.dumps(content), yaml.safe_dump(content)):
        is_own_text(text)
        with contextlib.suppress(UserError):
            found = import_text(text, "settings.json")
            assert parse_config(found.config.model_dump(mode="json")) == found.config


@given(st.text() | st.text().map(lambda text: f"accelerate launch train_network.py --network_dim {text}"))
def test_any_text_gives_a_config_or_problems(text: str) -> None:
    is_own_text(text)
    with contextlib.suppress(UserError):
        import_text(text, "settings.toml")
