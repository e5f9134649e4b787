"""An SSH server on this machine, with keys and a configuration of its own: nothing of the user's is read or changed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import callyard
from callyard import SSH

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_PRIVILEGES = Path("/run/sshd")  # which a server of root needs
_PATIENCE = 20.0  # s


def why_no_server() -> str:
    """Say why no SSH server can run here, "" where one can."""
    missing = [name for name in ("sshd", "ssh", "ssh-keygen") if not shutil.which(name, path=_PATH)]
    if missing:
        return f"there is no {', '.join(missing)}"
    if pwd.getpwuid(os.getuid()).pw_shell.rpartition("/")[2] in ("nologin", "false"):
        return "this user has no login shell"
    return ""


class Server:
    """A server in a directory, for this user alone. Each account has a home, and perhaps a shell, of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._make_key("host")
        (directory / "authorized").touch(0o644)
        host_key = (directory / "host.pub").read_text().split()[:2]
        (directory / "known").write_text(f"there {' '.join(host_key)}\n")
        (directory / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\n"
            f"AuthorizedKeysFile {directory}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "PermitRootLogin yes\nPermitUserEnvironment yes\nMaxStartups 100\nLogLevel ERROR\n"
        )
        (directory / "config").touch()

    def __enter__(self) -> Server:  # noqa: PYI034  (Self is new in Python 3.11)
        if os.getuid() == 0:
            _PRIVILEGES.mkdir(mode=0o755, exist_ok=True)
        with open(self.directory / "log", "ab") as log:
            self._daemon = subprocess.Popen(
                [shutil.which("sshd", path=_PATH) or "sshd", "-D", "-e", "-f", str(self.directory / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and self._daemon.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self
        raise RuntimeError(f"sshd does not answer: {(self.directory / 'log').read_text()}")

    def __exit__(self, *exception: object) -> None:
        self._daemon.send_signal(signal.SIGTERM)
        self._daemon.wait()

    def _make_key(self, name: str) -> None:
        path = self.directory / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)

    def account(
        self,
        name: str,
        *,
        port: int | None = None,
        user: str = "",
        start_up: str = "",
        shell: str = "",
        options: str = "",
        known: str = "known",
    ) -> str:
        """Return a name that `ssh` knows by the configuration of this server.

        `user` is the account that it logs in to, if not this one; `start_up` is what bash reads there first; `shell`
        takes the command in the place of bash, as the login shell of a user would.
        """
        home = self.directory / name
        home.mkdir()
        (home / ".bashrc").write_text(start_up)
        login = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
        os.chown(home, login.pw_uid, login.pw_gid)
        self._make_key(f"{name}-key")
        key = (self.directory / f"{name}-key.pub").read_text()
        forced = f'command="exec {shell} -c \\"$SSH_ORIGINAL_COMMAND\\"",' if shell else ""
        with open(self.directory / "authorized", "a") as file:
            file.write(f'environment="HOME={home}",{forced}restrict {key}')
        with open(self.directory / "config", "a") as file:
            file.write(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {port or self.port}\n  HostKeyAlias there\n"
                f"  User {login.pw_name}\n  IdentityFile {self.directory}/{name}-key\n"
                f"  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {self.directory}/{known}\n"
                f"  GlobalKnownHostsFile /dev/null\n  {options}\n"
            )
        return name

    @property
    def command(self) -> tuple[str, ...]:
        """The words of `ssh` that know this server, and nothing of the user's own configuration."""
        return "ssh", "-F", str(self.directory / "config")

    def host(self, name: str, **more: object) -> SSH:
        """Return a host for an account, with this Python and this Callyard there."""
        source = Path(callyard.__file__).parents[1]
        chosen = {"python": sys.executable, "setup": f"export PYTHONPATH='{source}'", **more}
        directory = chosen.pop("directory", self.directory / name / "work")
        return SSH(name, directory=directory, command=self.command, **chosen)  # type: ignore[arg-type]
