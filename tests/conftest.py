"""What all tests share."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ssh_server import SshServer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: a second thread mostly waits for the first
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault(
        "TRITON_INTERPRET", "1"
    )  # kernels of GPUs are tried out in Python; read when Triton is imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--docs-images", action="store_true", help="renew the screenshots in docs/images")


def pytest_configure() -> None:
    gc.disable()  # an eighth of the time until the first test goes into looking for garbage that imports do not leave


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported stays: the tests' own collections need not go through it
    gc.enable()


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """Another machine, as far as ssh can tell. Skips where this one has no server."""
    from tests.ssh_server import SshServer  # hardly any test needs what it imports

    made = SshServer.made_in(tmp_path_factory.mktemp("machine") / "ssh")
    yield made
    made.end()
