"""Under which names the page may be asked for, and when it has to ask for a password."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

import psutil

from trainer.errors import UserError

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?)(?::(?P<port>\d{1,5}))?")
_USUAL_PORTS = ("80", "443")
"""What browsers leave out."""


def is_host(text: str) -> bool:
    """Whether a text can be what a browser sends as ``Host``: a name or an address, perhaps with a port."""
    return _parts(text) is not None


def page_hosts(host: str, port: int) -> frozenset[str]:
    """What browsers send as ``Host`` to a page that listens on ``host`` and ``port``."""
    names = host_names(host)
    return frozenset([*(f"{name}:{port}" for name in names), *(names if port == 80 else ())])


def allowed_hosts(given: Iterable[str], port: int) -> frozenset[str]:
    """What browsers send as ``Host`` to a page that also goes by other names: a proxy's, a tunnel's, a container's.

    Args:
        given: ``name``, meant with the usual ports and with the page's own; ``name:port``; or the page's whole
            address there, without a path.
        port: the page's own.

    Raises UserError for all that is none of these.
    """
    hosts: set[str] = set()
    wrong: list[str] = []
    for text in given:
        parts = _parts(_host_in(text.strip().lower()))
        if parts is None:
            wrong.append(text)
            continue
        name, its_port = parts
        hosts.add(name if its_port in (None, *_USUAL_PORTS) else f"{name}:{its_port}")
        if its_port is None:
            hosts.add(f"{name}:{port}")
    if wrong:
        listing = ", ".join(map(repr, wrong))
        message = f"--allowed-host {listing}: a name such as atelier.example or box:8443 is allowed, without a path."
        raise UserError("app.allowed_host", message, "Give what the browser's address line shows before the first /.")
    return frozenset(hosts)


def _parts(host: str) -> tuple[str, str | None] | None:
    """Name and port of what a browser may send as ``Host``; None where it is none."""
    found = _HOST.fullmatch(host)
    return (found["name"], found["port"]) if found and int(found["port"] or 1) in range(1, 65536) else None


def _host_in(text: str) -> str:
    """What an address names, or the text itself; empty for an address with more than that."""
    scheme, _, rest = text.rpartition("://")
    host, slash, path = rest.partition("/")
    return host if scheme in ("", "http", "https") and not path and (scheme or not slash) else ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_names(host: str) -> list[str]:
    """The names under which a page bound to ``host`` may be asked for: its addresses, never a name from elsewhere."""
    names = ["127.0.0.1", "localhost", "[::1]"]
    if is_loopback(host):
        return names
    if host not in ("0.0.0.0", "::"):
        return [*names, host.lower()]
    addresses = [address for found in psutil.net_if_addrs().values() for address in found]
    ipv4 = [address.address for address in addresses if address.family == socket.AF_INET]
    ipv6 = [f"[{address.address.partition('%')[0]}]" for address in addresses if address.family == socket.AF_INET6]
    return [*names, socket.gethostname().lower(), *ipv4, *ipv6]


def check_exposure(host: str, share: bool, allowed: Iterable[str], *, has_password: bool) -> None:
    """Refuse to be reachable from other machines without a password. Raises UserError.

    Args:
        host: the address that the page listens on.
        share: whether it gets a public link.
        allowed: other names that it goes by, as ``allowed_hosts`` makes them.
        has_password: whether it asks for one.
    """
    elsewhere = sorted(name for name in allowed if not is_loopback((_parts(name) or (name, None))[0]))
    if has_password or (is_loopback(host) and not share and not elsewhere):
        return
    given = "--share" if share else f"--allowed-host {elsewhere[0]}" if is_loopback(host) else f"--host {host}"
    raise UserError(
        "security.no_password",
        f"{given} lets others reach this page, and it can read and write files: it needs a password.",
        "Add --auth-file FILE with one name:password a line, or leave it out to stay on this machine.",
    )
