"""What the NVIDIA driver's own program tells: the one way to ask about GPUs that needs no torch."""

from __future__ import annotations

import shutil
import subprocess


def driver_rows(*query: str, most_columns: int = 0, timeout_seconds: float = 10) -> list[list[str]]:
    """Rows of an answer of ``nvidia-smi``; none where there is no such program, or it does not answer.

    Args:
        query: options that name what is asked, such as ``--query-gpu=index,name``.
        most_columns: the last of so many keeps the commas in it; 0 for as many as there are commas.
        timeout_seconds: how long it may take; a driver that has to be loaded first takes several.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, *query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[part.strip() for part in line.split(",", most_columns - 1)] for line in done.stdout.splitlines()]
