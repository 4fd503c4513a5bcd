"""Who is let in, and how often an address may be wrong."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from trainer.errors import UserError
from ui.passwords import MOST_WRONG, WINDOW_S, Door, is_readable_by_others, read_users


class Clock:
    """Seconds that grow when the test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def door(clock: Clock | None = None) -> Door:
    return Door({"anna": "päss:word", "bob": "other"}, clock or Clock())


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


RIGHT = basic("anna", "päss:word")


def be_wrong(at: Door, address: str, count: int = MOST_WRONG, start: int = 0) -> None:
    for number in range(start, start + count):
        assert at.answer(address, basic("anna", f"wrong {number}")) == "wrong"


def test_name_and_password_belong_together() -> None:
    assert door().answer("1.2.3.4", RIGHT) == "in"
    assert door().answer("1.2.3.4", RIGHT.replace("Basic", "basic")) == "in"
    for name, password in [("anna", "other"), ("anna", ""), ("carl", "other"), ("", ""), ("ANNA", "päss:word")]:
        assert door().answer("1.2.3.4", basic(name, password)) == "wrong"


@pytest.mark.parametrize(
    "header", ["", "Basic !!!", "Basic", "Bearer x", "Basic /w==", "Basic \xe9", RIGHT + "x", "x" * 10**6]
)
def test_what_is_no_name_and_password_is_wrong(header: str) -> None:
    assert door().answer("1.2.3.4", header) == "wrong"


def test_an_address_that_was_wrong_too_often_waits_and_no_other() -> None:
    clock = Clock()
    at = door(clock)
    be_wrong(at, "1.2.3.4")
    assert at.answer("1.2.3.4", RIGHT) == "wait"
    assert at.answer("1.2.3.4", basic("bob", "other")) == "wait"
    assert at.answer("1.2.3.5", RIGHT) == "in"
    clock.now_s += WINDOW_S + 1
    assert at.answer("1.2.3.4", RIGHT) == "in"


def test_trying_on_while_waiting_makes_it_no_longer() -> None:
    clock = Clock()
    at = door(clock)
    be_wrong(at, "1.2.3.4")
    for second in range(int(WINDOW_S)):
        clock.now_s += 1
        answer = at.answer("1.2.3.4", basic("anna", f"later {second}"))
        assert answer == ("wait" if second < WINDOW_S - 1 else "wrong")
    assert at.answer("1.2.3.4", RIGHT) == "in"


def test_the_same_wrong_password_again_does_not_count() -> None:
    """A page that was open when the password was changed goes on asking."""
    at = door()
    for _ in range(5 * MOST_WRONG):
        assert at.answer("1.2.3.4", basic("anna", "old")) == "wrong"
    assert at.answer("1.2.3.4", RIGHT) == "in"


def test_requests_without_a_password_do_not_count() -> None:
    at = door()
    for _ in range(5 * MOST_WRONG):
        assert at.answer("1.2.3.4", "") == "wrong"
    assert at.answer("1.2.3.4", RIGHT) == "in"


def test_addresses_of_one_ipv6_customer_count_together() -> None:
    at = door()
    be_wrong(at, "2001:db8::1", MOST_WRONG // 2)
    be_wrong(at, "2001:db8::ffff%eth0", MOST_WRONG - MOST_WRONG // 2, start=MOST_WRONG // 2)
    assert at.answer("2001:db8::2", RIGHT) == "wait"
    assert at.answer("2001:db8:0:1::2", RIGHT) == "in"


def test_the_memory_for_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.passwords._MOST_ADDRESSES", 3)
    at = door()
    for number in range(9):
        be_wrong(at, f"1.2.3.{number}", 1)
    assert len(at._wrong) == 3


def test_passwords_are_not_kept() -> None:
    at = door()
    at.answer("1.2.3.4", basic("anna", "a guess"))
    assert not any(word in repr(vars(at)) for word in ("other", "a guess", base64.b64encode(b"anna:a guess").decode()))


def test_auth_files(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# people\nanna:a:b\n\nbob:c\n", encoding="utf-8")
    assert read_users(path) == {"anna": "a:b", "bob": "c"}
    for text in ["", "# nobody\n", "anna\n", "anna:\n", ":x\n"]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError):
            read_users(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_users(tmp_path / "missing")


@pytest.mark.parametrize(("mode", "others"), [(0o600, False), (0o640, True), (0o604, True)])
def test_whether_others_may_read_the_passwords(mode: int, others: bool, tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("anna:b", encoding="utf-8")
    path.chmod(mode)
    assert is_readable_by_others(path) is others
