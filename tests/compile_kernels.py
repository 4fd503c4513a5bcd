"""Compiles every kernel of ``trainer.fused`` for NVIDIA's GPUs, which needs none: ``python -m tests.compile_kernels``.

A process of its own, as Triton interprets all kernels, or none, in one.
"""

from __future__ import annotations

from typing import Any

from triton import compile as compiled
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trainer.fused import kernels
from trainer.fused.functions import BLOCKS_AT_ONCE, COLUMNS, ROWS

FORMATS = {75: "*fp16", 90: "*bf16"}
"""By the architecture: the oldest that Triton compiles for has no bfloat16."""
BLOCK = {"ROWS": ROWS, "COLUMNS": COLUMNS}
JOINED = {"AT_ONCE": BLOCKS_AT_ONCE, "WIDTH": 16}
SIZES: dict[str, list[dict[str, Any]]] = {
    "moments": [BLOCK],
    "join_moments": [{"ROWS": ROWS, **JOINED}],
    "normalise": [{"ACTIVATE": activate, **BLOCK} for activate in (True, False)],
    "gradient_sums": [{"ACTIVATE": activate, **BLOCK} for activate in (True, False)],
    "join_gradient_sums": [JOINED],
    "normalise_gradient": [{"ACTIVATE": activate, **BLOCK} for activate in (True, False)],
    "gate": [{"COLUMNS": 1024}],
    "gate_gradient": [{"COLUMNS": 1024}],
    "add_and_normalise": [{"ROWS": 4, "WIDTH": 1024}],
    "add_and_normalise_gradient": [{"ROWS": 4, "WIDTH": 1024}],
    "add_with_bias": [{"COUNT": 1024}],
}
NUMBERS = ("pixels", "channels", "groups", "blocks", "width", "rows", "count")
IN_FLOAT32 = ("means", "squares", "mean", "scale", "plain", "along", "mean_plain", "mean_along")


def kind_of(name: str, sizes: dict[str, Any], values: str) -> str:
    """An argument's type: a size that is known, a number, or a pointer."""
    if name in sizes:
        return "constexpr"
    if name == "eps":
        return "fp32"
    return "i32" if name in NUMBERS else "*fp32" if name in IN_FLOAT32 else values


def main() -> None:
    """Raises what Triton raises where one cannot be compiled."""
    every = {
        name for name in vars(kernels) if type(getattr(kernels, name)).__name__ == "JITFunction" and name[0] != "_"
    }
    assert every == set(SIZES), every ^ set(SIZES)
    for name, choices in SIZES.items():
        kernel = getattr(kernels, name)
        for capability, values in FORMATS.items():
            for sizes in choices:
                signature = {each: kind_of(each, sizes, values) for each in kernel.arg_names}
                known = {(kernel.arg_names.index(each),): value for each, value in sizes.items()}
                source = ASTSource(fn=kernel, signature=signature, constexprs=known)
                assert compiled(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


if __name__ == "__main__":
    main()
