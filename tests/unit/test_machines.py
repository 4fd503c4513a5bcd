"""Whether processes on other machines are there: connections between threads that stand in for processes."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

from trainer import machines
from trainer.errors import UserError
from trainer.machines import Lifelines, choose_interface, interface_to, own_address_to, this_machine

Told = tuple[str, int, bytes]


@pytest.fixture(autouse=True)
def _the_first_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")


class Said:
    """What the first process says, heard by so many others."""

    def __init__(self, others: int) -> None:
        self._others, self._said = others, SimpleQueue[Told]()

    def first(self, find: Callable[[], Told]) -> Told:
        told = find()
        for _ in range(self._others):
            self._said.put(told)
        return told

    def other(self, find: Callable[[], Told]) -> Told:
        return self._said.get(timeout=60)


@pytest.fixture
def three() -> Iterator[list[Lifelines]]:
    """Three processes, of which the last two are elsewhere."""
    said = Said(others=2)
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(Lifelines, index, [1, 2], said.other) for index in (1, 2)]
        lines = [Lifelines(0, [1, 2], said.first), *(each.result(timeout=60) for each in others)]
    yield lines
    for each in lines:
        each.close()


def breaks(lines: Lifelines, number: int) -> bool:
    """Whether a line breaks, soon."""
    until = time.monotonic() + 10
    while not (broken := lines.is_broken(number)) and time.monotonic() < until:
        time.sleep(0.01)
    return broken


def test_the_first_knows_of_all_and_each_of_the_first(three: list[Lifelines]) -> None:
    first, second, third = three
    assert [number in first for number in range(3)] == [False, True, True]
    assert [number in second for number in range(3)] == [number in third for number in range(3)] == [True, False, False]
    assert not any([first.is_broken(1), first.is_broken(2), second.is_broken(0), third.is_broken(0)])


def test_a_process_that_ends_is_known_from_one_that_is_there(three: list[Lifelines]) -> None:
    first, second, third = three
    third.close()
    assert breaks(first, 2)
    assert not first.is_broken(1) and not second.is_broken(0)
    first.close()
    assert breaks(second, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other names for it")
def test_silence_is_asked_about_and_ends_a_connection(three: list[Lifelines]) -> None:
    """The questions themselves are the kernel's: 5 s of silence, then 4 of them, 5 s apart."""
    for lines in three:
        for line in lines._lines.values():
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            asked = [getattr(socket, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")]
            first, apart, times = (line.getsockopt(socket.IPPROTO_TCP, name) for name in asked)
            assert first + apart * times == machines.SILENT_SECONDS == 25


def test_nobody_is_waited_for_where_all_are_on_one_machine() -> None:
    def never(find: Callable[[], Told]) -> Told:
        raise AssertionError

    assert 1 not in Lifelines(0, [], never)


def test_strangers_are_turned_away_and_who_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_MEETING_SECONDS", 1.0)
    strangers: list[socket.socket] = []

    def tell(find: Callable[[], Told]) -> Told:
        told = find()
        for said in (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", bytes(16) + (1).to_bytes(4, "big")):
            strangers.append(socket.create_connection(told[:2], timeout=30))
            strangers[-1].sendall(said)
        return told

    with pytest.raises(UserError, match="waited 1 s for process 2 to connect"):
        Lifelines(0, [1], tell)
    for stranger in strangers:
        with stranger:
            assert answer_to(stranger) == b""


def answer_to(line: socket.socket) -> bytes:
    """What comes back; nothing where the connection is closed or reset."""
    try:
        return line.recv(1)
    except ConnectionResetError:
        return b""


def test_a_network_is_named_where_there_are_several_machines_and_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "interface_to", lambda address: {"127.0.0.1": "eth3"}.get(address))
    chosen = "GLOO_SOCKET_IFNAME"
    monkeypatch.setenv(chosen, "")
    monkeypatch.delenv(chosen)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for local, given, expected in (("2", None, None), ("1", None, "eth3"), ("1", "eth7", "eth7")):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        monkeypatch.delenv(chosen, raising=False)
        if given is not None:
            monkeypatch.setenv(chosen, given)
        choose_interface()
        assert os.environ.get(chosen) == expected


def test_an_address_that_only_this_machine_reaches_names_no_network() -> None:
    for address in ("127.0.0.1", "localhost", "no-such-name.invalid"):
        assert own_address_to(address) is interface_to(address) is None


def test_a_machine_is_called_by_its_name_first() -> None:
    assert this_machine().split("/")[0] == socket.gethostname()
    assert this_machine() == this_machine()
