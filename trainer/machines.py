"""What the processes of one run have to know where there are several machines: which one this is, by which network they
reach each other, and whether those on other machines are still there."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import psutil

from trainer.errors import UserError

SILENT_SECONDS = 25
"""How long a machine may not answer until its processes are lost: 5 s without a word, and 4 questions, 5 s apart."""
_KEEP_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""TCP's own questions; the second is macOS's name of the first."""
_MEETING_SECONDS = 60.0
_GREETING_SECONDS = 5.0
_SECRET_BYTES = 16

Told = tuple[str, int, bytes]
"""Where the first process is waiting, address and port, and the secret by which it knows the others."""


def this_machine() -> str:
    """Tells where this process's number means the same: its name, ``/`` and what else tells machines apart."""
    known = [socket.gethostname()]
    with suppress(OSError):  # Linux: the kernel's start, and the container
        known += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return "/".join(known)


def choose_interface() -> None:
    """Have gloo use the network through which the first process is reached, unless the user names one.

    Its own choice is that of this machine's name, which on many leads back to the machine itself.
    """
    several = os.environ.get("LOCAL_WORLD_SIZE", "1") != os.environ.get("WORLD_SIZE", "1")
    interface = interface_to(os.environ["MASTER_ADDR"]) if several else None
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def interface_to(address: str) -> str | None:
    """The name of this machine's network interface from which an address is reached; None where that tells nothing."""
    own, known = own_address_to(address), psutil.net_if_addrs().items()
    return next((name for name, addresses in known if own in [each.address for each in addresses]), None)


def own_address_to(address: str) -> str | None:
    """This machine's address in the network in which another one is; None where there is none that others reach."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)  # of a datagram: nothing is sent
            own: str = probe.getsockname()[0]
    except OSError:
        return None
    return None if ip_address(own.partition("%")[0]).is_loopback else own


class Lifelines:
    """Connections on which nothing is said, between the first process and each one on another machine.

    Their end tells that a process is gone: one that ends closes its own at once, and where machine or network are
    gone, the kernel's questions go unanswered for ``SILENT_SECONDS``. How busy a process is does not matter.
    """

    def __init__(self, index: int, elsewhere: Sequence[int], share: Callable[[Callable[[], Told]], Told]) -> None:
        """Connect process ``index``. In all processes at once; ``share`` tells what the first one finds.

        ``elsewhere`` are those not on the first one's machine. Raises UserError in the first where one does not come,
        OSError in one that cannot reach the first.
        """
        self._lines: dict[int, socket.socket] = {}
        self._server: socket.socket
        if not elsewhere:
            return
        address, port, secret = share(self._offer)
        if index == 0:
            with self._server as server:
                self._lines = _met(server, elsewhere, secret)
        elif index in elsewhere:
            line = socket.create_connection((address, port), timeout=_MEETING_SECONDS)
            line.sendall(secret + index.to_bytes(4, "big"))
            self._lines = {0: line}
        for line in self._lines.values():
            _keep_alive(line)

    def __contains__(self, number: int) -> bool:
        """Whether there is one to that process."""
        return number in self._lines

    def is_broken(self, number: int) -> bool:
        """Whether that process, its machine or the network to it is gone."""
        try:
            return self._lines[number].recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Let go of all: to the others this process is gone."""
        for line in self._lines.values():
            line.close()

    def _offer(self) -> Told:
        """The address is its own, as that by which it was found may lead to a door with other ports."""
        self._server = _server()
        found_by = os.environ["MASTER_ADDR"]
        address = own_address_to(found_by) or found_by
        return address, self._server.getsockname()[1], secrets.token_bytes(_SECRET_BYTES)


def _server() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _met(server: socket.socket, expected: Sequence[int], secret: bytes) -> dict[int, socket.socket]:
    """The connections of those expected. Others that come, on an open port, are turned away."""
    lines: dict[int, socket.socket] = {}
    until = time.monotonic() + _MEETING_SECONDS
    while missing := set(expected) - set(lines):
        server.settimeout(max(0.1, until - time.monotonic()))
        try:
            line, _ = server.accept()
        except TimeoutError:
            names = " and ".join(str(number + 1) for number in sorted(missing))
            message = f"The first process waited {_MEETING_SECONDS:.0f} s for process {names} to connect."
            hint = "TCP connections must be open between the machines, on all ports."
            raise UserError("processes.unreachable", message, hint) from None
        number = _greeted(line, secret)
        if number in missing:
            lines[number] = line
        else:
            line.close()
    return lines


def _greeted(line: socket.socket, secret: bytes) -> int:
    """Which process has come; -1 for somebody who does not know the secret."""
    line.settimeout(_GREETING_SECONDS)
    said = b""
    with suppress(OSError):
        while len(said) < _SECRET_BYTES + 4 and (more := line.recv(_SECRET_BYTES + 4 - len(said))):
            said += more
    known = len(said) == _SECRET_BYTES + 4 and secrets.compare_digest(said[:_SECRET_BYTES], secret)
    return int.from_bytes(said[_SECRET_BYTES:], "big") if known else -1


def _keep_alive(line: socket.socket) -> None:
    line.setblocking(False)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
