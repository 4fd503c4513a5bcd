"""A step's profile as tables to read. Never torch."""

from __future__ import annotations

from typing import Any

_MIB = 2**20


def profile_lines(profile: dict[str, Any]) -> list[str]:
    """The tables of a profile, as ``trainer bench --profile --json`` gives it."""
    return [
        f"one of {profile['steps']} profiled steps: {profile['profiled_step_ms']:.1f} ms",
        *_phases(profile),
        f"{'idle':<12}{profile['idle_ms']:>10.1f} ms{profile['idle_share']:>7.0%}  nothing to compute: Python is busy",
        _counts(profile),
        "",
        *_memory(profile["memory"]),
        "",
        *_bound(profile),
        "",
        f"{'operation':<44}{'calls':>8}{'ms':>10}{'share':>7}",
        *(
            f"{each['name']:<44.44}{each['calls']:>8g}{each['ms']:>10.2f}{each['share']:>7.1%}"
            for each in profile["top_operations"]
        ),
        "",
        f"{'layer':<74}{'forward':>10}{'backward':>10}{'share':>7}",
        *(
            f"{each['name'] + ' ' + each['kind']:<74.74}{each['forward_ms']:>10.2f}{each['backward_ms']:>10.2f}"
            f"{each['share']:>7.1%}"
            for each in profile["top_layers"]
        ),
    ]


def _phases(profile: dict[str, Any]) -> list[str]:
    on_gpu = profile["kernels"] is not None
    return [
        f"{each['name']:<12}{each['ms']:>10.1f} ms{each['share']:>7.0%}"
        + (f"{each['device_ms']:>10.1f} ms on the GPU" if on_gpu else "")
        for each in profile["phases"]
    ]


def _counts(profile: dict[str, Any]) -> str:
    operations = f"{profile['operations']} operations"
    return operations if profile["kernels"] is None else f"{operations}, {profile['kernels']} kernels"


def _memory(memory: dict[str, int]) -> list[str]:
    """Each kind, the peak last."""
    return [f"{name.replace('_', ' '):<16}{count / _MIB:>10.1f} MiB" for name, count in memory.items() if count]


def _bound(profile: dict[str, Any]) -> list[str]:
    rate = profile["matrix_flops_per_s"]
    return [
        f"work            {profile['flops'] / 1e12:>10.4g} TFLOP a step",
        f"matrix rate     {rate / 1e12:>10.4g} TFLOP/s, measured just now",
        f"bound           {profile['bound_ms']:>10.4g} ms: the step at that rate",
        f"reached         {profile['matrix_share']:>10.1%} of that rate",
        f"computing       {profile['busy_share']:>10.1%} of the measured step",
    ]
