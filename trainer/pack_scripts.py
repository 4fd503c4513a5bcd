"""The texts of a packed training: its one command, and examples for SLURM and Kubernetes."""

from __future__ import annotations

import re
import unicodedata

_LONGEST_NAME = 63
"""Of an RFC 1123 label, which Kubernetes wants its names to be."""

RUN = """#!/usr/bin/env bash
# Trains what config.yaml says. The first call installs what is needed; called again, it goes on where it ended.
# Set PYTHON to use an environment that has the packages already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [ -n "${PYTHON:-}" ]; then
    export PYTHONPATH="$PWD/program${PYTHONPATH:+:$PYTHONPATH}"
    trainer=("$PYTHON" -m trainer)
else
    trainer=(bash program/launch.sh trainer)
fi
# The trainer takes the place of this script, so that it gets the signal that asks for an end.
if [ -f run/run.json ]; then
    exec "${trainer[@]}" resume "$PWD/run" "$@"
fi
exec "${trainer[@]}" train "$PWD/config.yaml" --workspace "$PWD/workspace" --run-dir "$PWD/run" "$@"
"""

SLURM = """#!/bin/bash
# sbatch job.sbatch, in this folder. SIGTERM comes two minutes before the time is over: the run saves and ends, and
# goes on from there when the job is submitted again.
#SBATCH --job-name={name}
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=slurm-%j.log
exec ./run.sh
"""

KUBERNETES = """# kubectl apply -f job.yaml, with this folder on the volume that the claim names.
apiVersion: batch/v1
kind: Job
metadata:
  name: "{name}"
spec:
  backoffLimit: 3
  template:
    spec:
      restartPolicy: OnFailure
      terminationGracePeriodSeconds: 120
      containers:
        - name: train
          image: python:3.12
          command: ["bash", "/job/run.sh"]
          resources:
            limits: {{"nvidia.com/gpu": 1, memory: 32Gi}}
          volumeMounts: [{{name: job, mountPath: /job}}]
      volumes:
        - name: job
          persistentVolumeClaim: {{claimName: "{name}"}}
"""

README = """# {name}

`./run.sh` trains what `config.yaml` says ({steps} steps). The run is in `run/`, the finished LoRA in `run/output/`.
Python 3.10 to 3.13 and about 3 GB of disk are needed, more with an NVIDIA GPU, unless the variable `PYTHON` names an
environment that has the packages. `job.sbatch` and `job.yaml` are examples for SLURM and Kubernetes.

{missing}
"""


def job_name(name: str) -> str:
    """A run's name as schedulers take it: small ASCII letters, digits and single hyphens between them (RFC 1123)."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:_LONGEST_NAME].rstrip("-") or "lora"
