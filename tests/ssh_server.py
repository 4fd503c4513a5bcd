"""A real ``sshd`` on loopback with keys of its own: another machine, as far as ssh and rsync can tell."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.running_app import free_port
from trainer.remote.hosts import Host

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


@dataclass
class SshServer:
    """The server, its keys in ``folder``, and the settings with which ``ssh`` reaches it."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def made_in(cls, folder: Path) -> SshServer:
        """A server that runs. The test is skipped on a machine that has none."""
        if SSHD is None or shutil.which("rsync") is None:
            pytest.skip("no sshd or no rsync on this machine")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it is when the system has started it
        folder.mkdir()
        for name in ("machine", "user", "stranger"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(key, check=True, stdin=subprocess.DEVNULL)
        shutil.copy(folder / "user.pub", folder / "authorized_keys")
        server = cls(folder)
        settings = {
            "ListenAddress": f"127.0.0.1:{server.port}", "HostKey": folder / "machine", "StrictModes": "no",
            "AuthorizedKeysFile": folder / "authorized_keys", "PidFile": "none", "UsePAM": "no",
            "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no",
        }  # fmt: skip
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        server.know(folder / "machine.pub")
        server.write_config(key="user")
        server.start()
        return server

    def start(self) -> None:
        """Listen, and wait until it does."""
        assert SSHD is not None
        log = (self.folder / "sshd.log").open("ab")
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError((self.folder / "sshd.log").read_text())

    def cut_off(self) -> None:
        """The machine is not reached any more: nobody listens, and all connections are gone. What was started stays."""
        assert self.process is not None
        connections = [
            child for child in psutil.Process(self.process.pid).children(recursive=True) if child.name() == "sshd"
        ]
        for process in [psutil.Process(self.process.pid), *connections]:
            process.send_signal(signal.SIGKILL)
        self.process.wait()

    def know(self, key: Path) -> None:
        """Have this machine expect a key of the other one."""
        known = f"[127.0.0.1]:{self.port} {key.read_text()}"
        (self.folder / "known_hosts").write_text(known)

    def write_config(self, key: str) -> None:
        """Settings for ``ssh -F``: log in with a key."""
        lines = ["Host *", f"  UserKnownHostsFile {self.folder}/known_hosts", "  GlobalKnownHostsFile /dev/null"]
        lines += [f"  IdentityFile {self.folder}/{key}", "  IdentitiesOnly yes", "  StrictHostKeyChecking yes"]
        (self.folder / "ssh_config").write_text("\n".join(lines) + "\n")

    def host(self, folder: Path) -> Host:
        """How LoRA Atelier reaches it, to work in a folder with this very Python."""
        return Host(
            name="gpubox",
            address=f"{getpass.getuser()}@127.0.0.1",
            port=self.port,
            folder=str(folder),
            python=sys.executable,
            devices="cpu",
            ssh_config=str(self.folder / "ssh_config"),
        )

    def end(self) -> None:
        """Stop it."""
        if self.process is not None and self.process.poll() is None:
            self.cut_off()
