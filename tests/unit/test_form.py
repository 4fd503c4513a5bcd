"""The form: every setting there, config -> form -> config the same, each problem at its field."""

from __future__ import annotations

import random
from typing import Any

import annotated_types
import gradio as gr
import pytest
from gradio.blocks import Block
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.config import Config, Section, TrainSettings, setting
from trainer.config_io import PRESETS_DIR, parse_config, read_yaml
from trainer.config_relevance import is_set
from trainer.errors import UserError
from ui.fields import CONFIG_FIELDS, Field, fields_of
from ui.form import SchemaForm, _sections, problems_html
from ui.sources_editor import ROWS, SourcesEditor

WORDS = ["a cat", "Ünïcode 猫", " leading and trailing ", 'quote\'s "here"', "a: b # c", "{x|y}", "--n", "1e-4"]


@pytest.fixture(scope="module")
def form() -> SchemaForm:
    with gr.Blocks():
        return SchemaForm()


def shown(form: SchemaForm, config: Config, **changed: Any) -> dict[Any, Any]:
    """What the page would send after ``push(config)``, some fields (``train__seed``) typed over."""
    values = dict.fromkeys(form.components)
    for block, update in form.push(config).items():
        if block in values:
            values[block] = update["value"] if isinstance(update, dict) else update
    for name, value in changed.items():
        values[component(form, name.replace("__", "."))] = value
    return values


def component(form: SchemaForm, name: str) -> Block:
    wanted = f"field-{name.replace('.', '-')}"
    return next(component for component in form.components if component.elem_id == wanted)


def info_of(name: str) -> FieldInfo:
    model: type[BaseModel] = Config
    *parents, last = name.split(".")
    for part in parents:
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return model.model_fields[last]


def random_value(field: Field, rng: random.Random) -> Any:
    if field.optional and rng.random() < 0.5:
        return None
    if field.name == "name":
        return rng.choice(["my-lora", "Größe 2", "x" * 80])
    if field.name == "dataset.caption_extension":
        return rng.choice([".txt", ".caption"])
    makers = {
        "switch": lambda: rng.random() < 0.5,
        "choice": lambda: rng.choice(field.choices),
        "number": lambda: random_number(info_of(field.name), field.default, rng),
        "text": lambda: rng.choice(WORDS),
        "lines": lambda: rng.sample(field.choices or ("^down", "attn1|attn2", "to_q$"), rng.randint(0, 3)),
        "yaml": lambda: random_mapping(field.name, rng),
        "resolution": lambda: rng.choice([512, [512], [512, 768], [[512, 768]], [[512, 768], [1024, 64]]]),
        "prompts": lambda: [random_prompt(rng) for _ in range(rng.randint(0, 4))],
        "rows": lambda: [random_source(rng) for _ in range(rng.choice([0, 1, 2, ROWS, ROWS + 3]))],
    }
    return makers[field.kind]()


def random_number(info: FieldInfo, default: Any, rng: random.Random) -> Any:
    low, high, step, open_low, open_high = 0.0, 1000.0, 1, False, False
    for limit in info.metadata:
        if isinstance(limit, annotated_types.Ge):
            low = limit.ge
        if isinstance(limit, annotated_types.Gt):
            low, open_low = limit.gt, True
        if isinstance(limit, annotated_types.Le):
            high = limit.le
        if isinstance(limit, annotated_types.Lt):
            high, open_high = limit.lt, True
        if isinstance(limit, annotated_types.MultipleOf):
            step = limit.multiple_of
    whole = "int" in str(info.annotation)
    if whole:
        return rng.randrange(int(low) // step * step, int(high) + (not open_high), step) or max(int(low), step)
    edges = ([] if open_low else [low]) + ([] if open_high else [high])
    return rng.choice([*edges, rng.uniform(low, high), low + (high - low) * 1e-7])


def random_mapping(name: str, rng: random.Random) -> Any:
    if name == "loss.multires_noise":
        return {"iterations": rng.randint(1, 16), "discount": rng.choice([0.3, 0.123456789])}
    if name == "loss.preserve":
        return {"class_word": "dog: a", "weight": 0.5}
    if name == "lora.block_ranks":
        return {"^down_blocks.0": rng.randint(0, 1024), "mid: block": 4}
    if name == "lora.merge_before_training":
        return [{"path": "a b.safetensors", "ratio": rng.choice([1, -0.5])}] * rng.randint(0, 2)
    if name == "lora.block_lrs":
        return {"^unet.mid_block": rng.choice([0, 0.5, 2]), "a: b": 1}
    if name == "output.save_at":
        return rng.sample(range(1, 500), rng.randint(0, 3))
    return {"weight_decay": rng.choice([0, 0.01]), "betas": [0.9, 0.99], "text": "a: b"}


def random_prompt(rng: random.Random) -> dict[str, Any]:
    return {
        "prompt": rng.choice([*WORDS, "", "# not a comment", "two\nlines", "a --w 5 trick"]).strip(" "),
        "negative": rng.choice(["", "blurry, bad", "with --d 3 inside"]),
        "width": rng.choice([None, 512]),
        "seed": rng.choice([42, 0, 2**63 - 1]),
        "guidance": rng.choice([7, 7.5, 0]),
        "sampler": rng.choice(["ddim", "dpmpp_2m_karras"]),
    }


def random_source(rng: random.Random) -> dict[str, Any]:
    return {
        "path": rng.choice(["/pictures/a", "/with space/ü", "relative"]),
        "repeats": rng.choice([1, 10]),
        "is_regularization": rng.random() < 0.5,
        "class_prompt": rng.choice([None, "a dog"]),
        "image_column": rng.choice([None, "image"]),
        "mask_path": rng.choice([None, "/masks"]),
        "metadata_file": rng.choice([None, "/pictures/a.json"]),
        "captions": rng.choice([{}, {"shuffle": True, "prefix": "a: b"}]),
        "augment": rng.choice([{}, {"flip": True}]),
    }


def random_training(lr_scheduler: str, rng: random.Random) -> dict[str, Any]:
    """Optimizer and schedule, with what belongs to them and nothing else."""
    falls = lr_scheduler not in ("constant", "constant_with_warmup", "one_cycle")
    optimizer = rng.choice(["adamw", "prodigy", "custom"])
    return {
        "optimizer": optimizer,
        "optimizer_class": "torch.optim.RAdam" if optimizer == "custom" else None,
        "lr_warmup_steps": rng.choice([0, 10, 0.05]),
        "lr_decay_steps": rng.choice([None, 10, 0.25]) if falls else None,
        "lr_min_ratio": rng.choice([0, 0.1]) if falls else 0,
        "lr_num_cycles": 3 if lr_scheduler == "cosine_with_restarts" else 1,
        "lr_power": 2.5 if lr_scheduler == "polynomial" else 1,
    }


def random_weighting(min_snr_gamma: float | None, rng: random.Random) -> dict[str, Any]:
    names = ("debiased_estimation", "scale_v_pred_loss_like_noise_pred")
    chosen = rng.choice([*names, None]) if min_snr_gamma is None else None
    return {name: name == chosen for name in names}


def random_noise(timestep_sampling: str, rng: random.Random) -> dict[str, Any]:
    """Noise offset and timestep sampling, with what belongs to them and nothing else."""
    offset, normal = rng.choice([0, 0.05]), timestep_sampling == "logit_normal"
    return {
        "noise_offset": offset,
        "noise_offset_random_strength": bool(offset) and rng.random() < 0.5,
        "adaptive_noise_scale": -0.01 if offset else 0,
        "logit_mean": -0.5 if normal else 0,
        "logit_std": 1.5 if normal else 1,
        "mode_scale": 0.8 if timestep_sampling == "mode" else 1.29,
    }


def random_config(rng: random.Random) -> Config:
    """A valid config; settings that exclude each other are set apart."""
    plain: dict[str, Any] = {}
    for field in CONFIG_FIELDS:
        target = plain
        *parents, last = field.name.split(".")
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = random_value(field, rng)
    loss, validation, lora = plain["loss"], plain["validation"], plain["lora"]
    plain["model"]["offload"] *= not plain["model"]["share_out"]
    plain["train"] |= random_training(plain["train"]["lr_scheduler"], rng)
    if validation["path"] is not None:
        validation["split"] = 0
    elif not validation["split"]:
        validation["early_stop_patience"] = None
        plain["output"] |= {"keep_best": False, "use_best": False}
    lora["lokr_factor"] = rng.choice([-1, 8]) if lora["type"] == "lokr" else -1
    lora["rank_stabilized"] = lora["rank_stabilized"] and lora["type"] != "lokr"
    if lora["type"] in ("loha", "lokr"):
        plain["train"]["loraplus_lr_ratio"] = 1
    if lora["type"] == "dora" or plain["train"]["optimizer"] == "prodigy":
        plain["train"]["lora_precision"] = "float32"
    if plain["train"]["lora_precision"] != "float32":
        lora["max_norm"] = None
    masks = [source for source in plain["dataset"]["sources"] if source["mask_path"]]
    loss["masked"] = "mask" if masks else rng.choice([False, "alpha"])
    loss["unmasked_weight"] = loss["unmasked_weight"] if loss["masked"] else 0
    loss["min_timestep"], loss["max_timestep"] = sorted(rng.sample(range(1000), 2))
    plain["output"]["hub_repo"] = rng.choice([None, "owner/name"])
    if loss["preserve"] is not None:
        plain["output"]["trigger"] = "sks"
    loss |= random_weighting(loss["min_snr_gamma"], rng) | random_noise(loss["timestep_sampling"], rng)
    loss["huber_schedule"] = loss["huber_schedule"] if loss["type"] in ("huber", "smooth_l1") else "constant"
    return parse_config(plain)


def test_config_to_form_to_config_is_the_identity(form: SchemaForm) -> None:
    rng = random.Random(7)
    for _ in range(200):
        config = random_config(rng)
        assert form.collect(shown(form, config)) == config


@pytest.mark.parametrize("path", sorted(PRESETS_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_goes_through_the_form(form: SchemaForm, path: Any) -> None:
    config = parse_config(read_yaml(path))
    assert form.collect(shown(form, config)) == config


def test_pushing_leaves_nothing_of_what_stood_there(form: SchemaForm) -> None:
    rng = random.Random(3)
    values = shown(form, random_config(rng))
    for block, update in form.push(Config()).items():
        if block in values:
            values[block] = update["value"] if isinstance(update, dict) else update
    assert form.collect(values) == Config()


def test_no_preset_leaves_anything_of_another(form: SchemaForm) -> None:
    """Every pair: the second one over the first gives the second one."""
    configs = [parse_config(read_yaml(path)) for path in sorted(PRESETS_DIR.glob("*.yaml"))]
    pushed = [shown(form, config) for config in configs]
    for first in pushed:
        for second, config in zip(pushed, configs, strict=True):
            assert {**first, **second} == second and None not in second.values(), config.name


def test_the_form_starts_with_the_defaults(form: SchemaForm) -> None:
    assert form.collect({component: component.value for component in form.components}) == Config()


def test_what_stood_in_the_form_comes_back_right_or_wrong(form: SchemaForm) -> None:
    values = shown(form, random_config(random.Random(5)), train__learning_rate="fast")
    restored = form.restore(form.snapshot(values))
    assert {component: restored[component] for component in form.components} == values


def test_restoring_ignores_what_is_not_a_choice_or_not_a_field(form: SchemaForm) -> None:
    restored = form.restore({"lora.target": ["gone"], "no.such": ["x"], "train.seed": "not a list", "lora.rank": ["9"]})
    assert {block.elem_id: value for block, value in restored.items()} == {"field-lora-rank": "9"}


def test_every_problem_is_told_at_its_field(form: SchemaForm) -> None:
    values = shown(
        form,
        Config(),
        train__learning_rate="fast",
        lora__rank="0",
        dataset__resolution="100",
        train__optimizer_args="a: [",
        train__max_steps="",
    )
    with pytest.raises(UserError) as caught:
        form.collect(values)
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {
        "train.learning_rate",
        "lora.rank",
        "dataset.resolution",
        "train.optimizer_args",
        "train.max_steps",
    }


def test_a_problem_of_a_folder_is_told_at_its_row(form: SchemaForm) -> None:
    """The first row is empty: the second row is the first folder of the list."""
    values = shown(form, Config())
    values[component(form, "dataset.sources.1.path")] = "/pictures"
    values[component(form, "dataset.sources.1.repeats")] = "0"
    with pytest.raises(UserError) as caught:
        form.collect(values)
    assert [problem.field for problem in caught.value.problems] == ["dataset.sources.1.repeats"]


def test_a_field_added_to_the_model_needs_no_edit_here() -> None:
    class Extra(BaseModel):
        shiny: float = 0.5
        mode: str | None = None
        table: dict[str, list[int]] = {}

    kinds = {field.name: (field.kind, field.label, field.optional) for field in fields_of(Extra)}
    assert kinds == {
        "shiny": ("number", "Shiny", False),
        "mode": ("text", "Mode", True),
        "table": ("yaml", "Table", False),
    }


class Sparkle(Section):
    """How it shines."""

    strength: float = setting(0.5, "Sparkle strength", also=("glitter",), relevant=is_set("train.shiny"), ge=0, le=2)
    """More is brighter."""


class ShinyTraining(TrainSettings):
    shiny: bool = setting(False, "Shiny")
    """Makes it shine."""


class LaterConfig(Config):
    train: ShinyTraining = setting(ShinyTraining, "Training")
    sparkle: Sparkle = setting(Sparkle, "Sparkle")


def test_what_is_added_to_the_config_is_in_the_form_at_once() -> None:
    """Nothing in the page names settings one by one: shown, searched, read back, checked, compared."""
    with gr.Blocks() as page:
        later = SchemaForm(LaterConfig)
    strength = component(later, "sparkle.strength")
    assert strength.info == "More is brighter. From 0 to 2."  # type: ignore[attr-defined]
    config = LaterConfig.model_validate({"sparkle": {"strength": 1.5}, "train": {"shiny": True, "seed": 3}})
    assert later.collect(shown(later, config)) == config
    with pytest.raises(UserError) as caught:
        later.collect(shown(later, config, sparkle__strength="3"))
    assert [problem.field for problem in caught.value.problems] == ["sparkle.strength"]
    marks = {mark.name: mark for mark in later.marks(later.snapshot_of(config), LaterConfig(), set())}
    assert {name for name, mark in marks.items() if mark.differs} == {"sparkle.strength", "train.shiny", "train.seed"}
    idle = later.marks(later.snapshot_of(LaterConfig()), LaterConfig(), set())
    assert "No effect while Shiny is off." in {mark.idle for mark in idle}
    search = next(block for block in page.blocks.values() if block.elem_id == "settings-search")
    assert "glitter" in search.value["text"]  # type: ignore[attr-defined]


def test_a_setting_outside_of_all_sections_stands_in_the_one_that_follows_it() -> None:
    sections = {key: [field.name for field in fields] for key, _, _, fields in _sections(Config, CONFIG_FIELDS)}
    assert sections["model"][0] == "name" and "trackers" not in sections["model"]
    assert sections["tracking"][:2] == ["trackers", "tracking.project"]
    assert [name for names in sections.values() for name in names] == [field.name for field in CONFIG_FIELDS]


def test_settings_without_a_choice_are_not_shown() -> None:
    names = {field.name for field in CONFIG_FIELDS}
    assert not names & {"version", "output.formats"}
    assert {"train.learning_rate", "loss.multires_noise", "dataset.sources"} <= names


def test_every_shown_setting_has_a_label_and_a_help_text() -> None:
    assert [field.name for field in CONFIG_FIELDS if len(field.help) < 10 or not field.label] == []


def test_messages_are_escaped() -> None:
    with pytest.raises(UserError) as caught:
        parse_config({"train": {"learning_rate": "<script>x</script>"}})
    html = problems_html(caught.value.problems)
    assert "<script>" not in html and "&lt;script&gt;" in html and 'data-field="train.learning_rate"' in html


def test_the_fold_of_the_folders_tells_what_it_hides() -> None:
    with gr.Blocks():
        editor = SourcesEditor(next(field for field in CONFIG_FIELDS if field.kind == "rows"))
    plain, special = {"path": "/a"}, {"path": "/b", "mask_path": "/masks", "augment": {"flip": False}}
    labels = []
    for sources in ([], [plain], [plain, special]):
        values = Config.model_validate({"dataset": {"sources": sources}}).model_dump()["dataset"]["sources"]
        labels.append(editor.show(values)[-1]["value"])
    assert labels == ["6 more settings of each folder"] * 2 + ["6 more settings of each folder (2 set)"]


def test_a_folder_with_broken_yaml_comes_back_and_its_row_can_be_left_out(form: SchemaForm) -> None:
    values = shown(form, parse_config({"dataset": {"sources": [{"path": "/a"}, {"path": "/b"}, {"path": "/c"}]}}))
    values[component(form, "dataset.sources.1.captions")] = "prefix: ["
    restored = form.restore(form.snapshot(values))
    assert {component: restored[component] for component in form.components} == values
    rows = [block for block in form.outputs if isinstance(block, gr.Row)]
    assert [restored[row]["visible"] for row in rows] == [True] * 3 + [False] * (ROWS - 3)
    editor = form._editors["dataset.sources"]
    assert isinstance(editor, SourcesEditor)
    cells = form.snapshot(values)["dataset.sources"]
    assert editor.field_of("dataset.sources.2.path", cells) == "dataset.sources.2.path"
    first_left_out = editor.without(0, cells)
    assert first_left_out[: len(cells) - 1] == cells[len(cells) // ROWS : -1] + editor.show([])[: len(cells) // ROWS]
    broken_left_out = [*editor.without(1, cells)[: len(cells) - 1], ""]
    assert [source["path"] for source in editor.read(broken_left_out)] == ["/a", "/c"]


@pytest.mark.parametrize("further", ["- path: [", "- path: /not whole", "text", "[]", ""])
def test_leaving_a_folder_out_keeps_the_further_ones_as_they_were_typed(form: SchemaForm, further: str) -> None:
    editor = form._editors["dataset.sources"]
    assert isinstance(editor, SourcesEditor)
    cells = form.snapshot(shown(form, parse_config({"dataset": {"sources": [{"path": "/a"}]}})))["dataset.sources"]
    left = editor.without(0, [*cells[:-1], further])
    assert left[: len(cells) - 1] == editor.show([])[: len(cells) - 1]
    assert left[len(cells) - 1]["value"] == further


def test_further_folders_follow_into_the_row_that_is_free(form: SchemaForm) -> None:
    sources = [{"path": f"/{number}"} for number in range(ROWS + 2)]
    config = parse_config({"dataset": {"sources": sources}})
    editor = form._editors["dataset.sources"]
    assert isinstance(editor, SourcesEditor)
    cells = form.snapshot(shown(form, config))["dataset.sources"]
    left = editor.without(2, cells)[: len(cells)]
    left[-1] = left[-1]["value"]
    del sources[2]
    assert [source["path"] for source in editor.read(left)] == [source["path"] for source in sources]
    assert len(editor._used(left)) == ROWS
