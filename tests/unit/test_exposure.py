"""The names that the page goes by, and the password that it needs where others can reach it."""

from __future__ import annotations

import pytest

from trainer.errors import UserError
from ui.exposure import allowed_hosts, check_exposure, host_names, is_loopback, page_hosts


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True)]
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.evil"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(UserError, match="password"):
        check_exposure(host, False, [], has_password=False)
    check_exposure(host, False, [], has_password=True)


def test_share_needs_a_password() -> None:
    with pytest.raises(UserError, match="--share"):
        check_exposure("127.0.0.1", True, [], has_password=False)
    check_exposure("127.0.0.1", False, [], has_password=False)


def test_a_page_for_all_addresses_knows_its_own() -> None:
    names = host_names("0.0.0.0")
    assert {"127.0.0.1", "localhost"} <= set(names) and "evil.example" not in names
    assert host_names("192.168.1.5")[-1] == "192.168.1.5"


def test_browsers_leave_the_usual_port_out() -> None:
    assert {"127.0.0.1:7860", "localhost:7860", "[::1]:7860"} == page_hosts("127.0.0.1", 7860)
    assert "localhost" in page_hosts("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("atelier.example", {"atelier.example", "atelier.example:7860"}),
        (" Atelier.Example ", {"atelier.example", "atelier.example:7860"}),
        ("atelier.example:443", {"atelier.example"}),
        ("https://abc-7860.proxy.example/", {"abc-7860.proxy.example", "abc-7860.proxy.example:7860"}),
        ("http://box:8443", {"box:8443"}),
        ("192.168.1.7", {"192.168.1.7", "192.168.1.7:7860"}),
        ("[fe80::1]:9000", {"[fe80::1]:9000"}),
    ],
)
def test_other_names(given: str, expected: set[str]) -> None:
    assert allowed_hosts([given], 7860) == expected


def test_what_is_no_name_is_told_all_at_once() -> None:
    wrong = ["*", "", "a b", "box/page", "https://box/page", "ftp://box", "box:0", "box:70000", "user@box", "-box"]
    with pytest.raises(UserError) as told:
        allowed_hosts([*wrong, "good.example"], 7860)
    assert all(repr(text) in str(told.value) for text in wrong)
    assert "good.example" not in str(told.value)


def test_another_name_needs_a_password_where_others_may_use_it() -> None:
    with pytest.raises(UserError, match=r"--allowed-host atelier\.example"):
        check_exposure("127.0.0.1", False, sorted(allowed_hosts(["atelier.example"], 7860)), has_password=False)
    check_exposure(
        "127.0.0.1", False, sorted(allowed_hosts(["localhost:9000", "[::1]:9000"], 7860)), has_password=False
    )
