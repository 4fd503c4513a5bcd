"""Taggers as ONNX files, small enough to be built in a test, whose answers are known by hand.

A picture's mean red, green and blue come out as probabilities: tag 0 answers to red, tag 1 to green, tag 2 to blue,
tag 3 to red again, and so on: 0.88 for all of the colour, 0.5 for half of it, 0.12 for none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 8

WD_TAGS = [
    ("general", 9),
    ("sensitive", 9),
    ("explicit", 9),
    ("red_theme", 0),
    ("green_theme", 0),
    ("^_^", 0),
    ("ruby_(rwby)", 4),
    ("fern_(sousou)", 4),
    ("blue_(pokemon)", 4),
]
"""Name and category; in groups of three, which answer to red, green and blue."""


def wd_tagger(folder: Path, tags: Sequence[tuple[str, int]] = WD_TAGS) -> Path:
    """In WD's form: BGR from 0 to 255, (B, H, W, 3), probabilities; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    weight = np.zeros((3, len(tags)), np.float32)
    for number in range(len(tags)):
        weight[2 - number % 3, number] = 4 / 255  # BGR
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "sides"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "weight", "bias"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["output"]),
    ]
    constants = {"sides": np.array([1, 2]), "weight": weight, "bias": np.full(len(tags), -2, np.float32)}
    _save(folder / "model.onnx", nodes, constants, ("pixels", ["batch", SIDE_PX, SIDE_PX, 3]), {"output": len(tags)})
    lines = [f"{number},{name},{category},0" for number, (name, category) in enumerate(tags)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]), encoding="utf-8")
    return folder


PIXAI_TAGS = [("red_theme", 0, []), ("green_theme", 0, []), ("^_^", 0, []), ("ruby_(rwby)", 4, ["rwby"])]


def pixai_tagger(folder: Path) -> Path:
    """In the form of v0.9: RGB from -1 to 1, (B, 3, H, W); embedding, logits and probabilities; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _channels_first(folder / "model.onnx", "input", len(PIXAI_TAGS), {"embedding": 3, "logits": 4, "prediction": 4})
    lines = [f'{n},{n},{name},{category},0,"{series}"' for n, (name, category, series) in enumerate(PIXAI_TAGS)]
    table = "\n".join(["id,tag_id,name,category,count,ips", *lines])
    (folder / "selected_tags.csv").write_text(table, encoding="utf-8")
    thresholds = "category,name,threshold\n0,general,0.6\n4,character,0.85\n"
    (folder / "thresholds.csv").write_text(thresholds, encoding="utf-8")
    return folder


PIXAI_V1 = {"general": ["red_theme", "green_theme"], "style": ["azure_(artist)"], "character": ["ruby_(rwby)"],
            "copyright": ["nature"], "meta": ["blue_file"], "rating": ["safe", "sensitive", "explicit"]}  # fmt: skip


def pixai_v1_tagger(folder: Path) -> Path:
    """In the form of v1.0: as v0.9, but logits only, and everything else in ``config.json``; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tags = [name for names in PIXAI_V1.values() for name in names]
    _channels_first(folder / "model.onnx", "pixel_values", len(tags), {"logits": len(tags)})
    config = {
        "tags": tags,
        "tags_split": [[category, len(names)] for category, names in PIXAI_V1.items()],
        "img_size": SIDE_PX,
        "category_best_threshold": dict.fromkeys(PIXAI_V1, 0.6),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _channels_first(file: Path, pixels: str, tags: int, outputs: dict[str, int]) -> None:
    weight = np.zeros((3, tags), np.float32)
    for number in range(tags):
        weight[number % 3, number] = 2
    nodes = [
        helper.make_node("GlobalAveragePool", [pixels], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "weight", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["prediction"]),
    ]
    constants = {"weight": weight, "bias": np.zeros(tags, np.float32)}
    _save(file, nodes, constants, (pixels, ["batch", 3, SIDE_PX, SIDE_PX]), outputs)


def _save(
    file: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    pixels: tuple[str, list[str | int]],
    outputs: dict[str, int],
) -> None:
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info(pixels[0], TensorProto.FLOAT, pixels[1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, file)
