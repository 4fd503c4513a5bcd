"""The reference of all settings: their facts as plain data, the search over them, and the page made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.config import Config
from trainer.config_allowed import allowed_in_words, in_yaml
from trainer.config_facts import Setting, every_setting, label_of, section_in, summary_of

Facts = dict[str, Any]

_INTRODUCTION = """\
# Settings

Every setting of a run, by the name that config files, `--set` and the form's search take; in bold, its label in the
form, and behind "elsewhere" what other trainers call it. What is not given has its default, so a config holds only what
differs; [presets/](../presets) has examples.

- `*` stands for any entry of a list: `dataset.sources.*.path` is the `path` of each folder, and
  `--set dataset.sources.0.path=...` that of the first.
- Where an explanation says empty, a config has `null`.
- A setting counts as set when it is anything but `null`, `false`, 0 or empty.
- What only goes wrong with several settings together is not told here, and refused before a run starts.

`./launch.sh trainer settings WORD` shows those with the word in a name, here or elsewhere, or in the explanation;
with `--json` for programs. This page is what `./launch.sh trainer settings --markdown` writes.
"""


def reference() -> list[Facts]:
    """The facts of each setting, in the config's order; behind a list those of its entries."""
    return [_facts(setting) for setting in every_setting(Config)]


def matching(settings: Sequence[Facts], words: Sequence[str]) -> list[Facts]:
    """Those in whose names, label or explanation all the words are found."""
    wanted = [word.casefold() for word in words]
    return [facts for facts in settings if all(word in _searched(facts) for word in wanted)]


def told(facts: Facts) -> Iterator[str]:
    """What there is to say beside the explanation, each in a line."""
    default = "must be given" if facts["required"] else f"default: `{in_yaml(facts['default'])}`"
    yield f"{facts['allowed']}; {default}"
    if facts["inner"]:
        yield f"its own settings: `{facts['inner']}`"
    if facts["effect"]:
        yield f"has an effect where {facts['effect']}"
    if facts["also"]:
        yield f"elsewhere: {', '.join(f'`{name}`' for name in facts['also'])}"


def page(settings: Sequence[Facts]) -> str:
    """The settings as Markdown, a chapter for each section."""
    sections: dict[str, list[Facts]] = {}
    for facts in settings:
        sections.setdefault(facts["name"].rpartition(".")[0], []).append(facts)
    headings = {section: _heading(section) for section in sections}
    anchors = {facts["name"]: _anchor(facts["name"]) for facts in settings}
    anchors |= {section: _anchor(title) for section, (title, _) in headings.items()}
    contents = "\n".join(f"- [{title}](#{_anchor(title)})" for title, _ in headings.values())
    chapters = [
        "\n\n".join([f"## {headings[section][0]}", headings[section][1], *(_entry(facts, anchors) for facts in inside)])
        for section, inside in sections.items()
    ]
    return "\n\n".join([_INTRODUCTION.strip(), contents, *chapters]) + "\n"


def _facts(setting: Setting) -> Facts:
    relevant = setting.relevant
    conditions = relevant.conditions() if relevant else ()
    return {
        "name": setting.name,
        "label": setting.label,
        "help": setting.help,
        "default": setting.default,
        "required": setting.required,
        "allowed": allowed_in_words(setting.schema),
        "schema": dict(setting.schema),
        "inner": setting.inner,
        "effect": relevant.words() if relevant else None,
        "depends_on": list(dict.fromkeys(condition.field for condition in conditions)),
        "also": list(setting.also),
    }


def _searched(facts: Facts) -> str:
    return "\n".join([facts["name"], facts["label"], facts["help"], *facts["also"]]).casefold()


def _heading(section: str) -> tuple[str, str]:
    """A section's title and what it is."""
    model: Any = Config
    label = "The run"
    for part in section.replace(".*", "").split(".") if section else ():
        info = model.model_fields[part]
        label, model = label_of(part, info), section_in(info.annotation)
    return f"{label}: `{section}`" if section else label, summary_of(model)


def _entry(facts: Facts, anchors: Mapping[str, str]) -> str:
    lines = (f"- {_linked(line, anchors)}" for line in told(facts))
    return "\n".join([f"### `{facts['name']}`", f"**{facts['label']}.** {facts['help']}", *lines])


def _linked(text: str, anchors: Mapping[str, str]) -> str:
    """The text with links to what it names: settings in sections, whose names no other trainer has."""
    return re.sub(r"`(\w+\.[\w.*]+)`", lambda at: f"[{at[0]}](#{anchors[at[1]]})" if at[1] in anchors else at[0], text)


def _anchor(title: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
