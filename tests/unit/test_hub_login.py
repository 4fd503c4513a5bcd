"""Whose token is on this machine: where it was found, and what the hub, on this machine too, says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hub_server import TOKEN, Fault, Hub, use_hub
from tests.recipe.tiny_runs import Watcher
from trainer.errors import UserError
from trainer.hub_login import account_name, token_place
from ui.hub_cards import whose

WHOAMI = "/api/whoami-v2"


def test_the_place_is_told_without_asking_anybody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_place() == "none"
    place = Path(constants.HF_TOKEN_PATH)
    place.parent.mkdir()
    place.write_text(TOKEN)
    assert token_place() == "login"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert token_place() == "environment" and not hub.asked


def test_the_name_is_the_hubs(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert account_name() == "someone" and whose() == "<p>Logged in as someone.</p>"
    hub.users[TOKEN] = "<b>"
    assert "&lt;b&gt;" in whose() and TOKEN not in whose()


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("none", "hub.no_token"),
        ("wrong", "model.token"),
        ("down", "model.hub_down"),
        ("no network", "model.no_network"),
        ("switched off", "model.offline"),
    ],
)
def test_what_is_wrong_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str, code: str) -> None:
    address = "http://127.0.0.1:9" if case == "no network" else hub.address
    use_hub(monkeypatch, address, tmp_path / "hub", offline=case == "switched off")
    if case != "none":
        monkeypatch.setenv("HF_TOKEN", "hf_wrong" if case == "wrong" else TOKEN)
    if case == "down":
        hub.faults.append(Fault(WHOAMI, status=503, times=9))
    with pytest.raises(UserError) as caught:
        account_name()
    (problem,) = caught.value.problems
    assert problem.code == code and problem.hint and "hf_" not in str(problem).replace("hf auth", "")


def test_a_wait_is_told_and_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.faults += [
        Fault(WHOAMI, status=429, headers={"Retry-After": "0"}),
        Fault(WHOAMI, status=429, headers={"RateLimit": '"api";r=0;t=1'}),
    ]
    watcher = Watcher()
    assert account_name(watcher) == "someone"
    assert [event["message"].split(" for ")[1][:3] for event in watcher.events] == ["0 s", "1 s"]
