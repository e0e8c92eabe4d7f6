"""SuperLink and SuperNodes on loopback, each a process group of its own, in a folder of the test's own."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.engines.real.locally import APP, NODES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

SILENCE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What keeps Flower and Ray from talking to anybody else."""

NODE = "SECAGG_TEST_NODE"
"""The variable by which the processes of one SuperNode are known."""


class Deployment:
    """Everything of one test that runs outside of it; leaving the context kills all of it.

    Args:
        folder: For all files.
        simulation: Whether the SuperLink simulates its nodes.
    """

    def __init__(self, folder: Path, *, simulation: bool = False) -> None:
        self.folder, self.faults = folder, folder / "faults"
        self.faults.mkdir()
        self.app = self._faulty_app()
        self._simulation = simulation
        self._port = free_port()
        self._children: list[subprocess.Popen[bytes]] = []
        self._short = tempfile.TemporaryDirectory(prefix="ray-")  # Ray's sockets allow no long path
        home = folder / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "test"\n[superlink.test]\naddress = "127.0.0.1:{self._port}"\ninsecure = true\n'
        )
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"FLWR_HOME": str(home), "RAY_TMPDIR": self._short.name, "PATH": path}
        self._environment = {**os.environ, **SILENCE, **own}

    def __enter__(self) -> Self:
        """Starts nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kills what is left, and what that has started meanwhile."""
        wait_until(lambda: not self._signal(signal.SIGKILL), 60)
        self._short.cleanup()

    def start_superlink(self) -> None:
        """Starts the SuperLink, and waits until it answers."""
        command = f"flower-superlink --insecure --host 127.0.0.1 --port {self._port}"
        simulation = " --simulation" if self._simulation else ""
        self._start("superlink", f"{command} --disable-runtime-dependency-installation{simulation}".split())
        wait_until(self._answers, 120)

    def start_supernode(self, partition: int) -> str:
        """Starts a SuperNode; its name."""
        name = f"node-{partition}-{len(self._children)}"
        command = f"flower-supernode --insecure --superlink 127.0.0.1:{self._port} --host 127.0.0.1"
        config = f"partition-id={partition} num-partitions={NODES}"
        self._start(name, [*f"{command} --port {free_port()}".split(), "--node-config", config])
        return name

    def run(self, name: str, *config: str) -> subprocess.Popen[bytes]:
        """Starts a run of the app, whose results go to a folder of this name."""
        settings = [f'out="{self.folder / name}"', f'faults="{self.faults}"', *config]
        overrides = [argument for setting in settings for argument in ("--run-config", setting)]
        federation = ["--federation-config", f"num-supernodes={NODES}"] if self._simulation else []
        return self._start(name, ["flwr", "run", str(self.app), "test", "--stream", *federation, *overrides])

    def plan(self, fault: str, partition: int, round_number: int, stage: str) -> Path:
        """Plans a fault; the file by which it is known."""
        path = self.faults / f"{partition}-{round_number}-{stage}"
        path.write_text(fault)
        return path

    def kill(self, name: str) -> None:
        """Kills a SuperNode, or the SuperLink with its ServerApp, with ``kill -9``, and everything that it started."""
        self._signal(signal.SIGKILL, name)

    def stop(self, name: str) -> None:
        """Has it hang."""
        self._signal(signal.SIGSTOP, name)

    def log(self, name: str) -> str:
        """What a process has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=1)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - Flower's commands, with arguments of ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment, NODE: name},
                cwd=self.folder,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def _signal(self, number: signal.Signals, name: str | None = None) -> int:
        """Sends a signal; to how many processes."""
        reached = 0
        for process in self._processes(name):
            with suppress(ProcessLookupError):
                os.kill(process, number)
                reached += 1
        for child in self._children:
            child.poll()  # who has ended is known to have
        return reached

    def _processes(self, name: str | None) -> Iterator[int]:
        """Those that inherited the environment of what was started here; ``None`` for any of it."""
        wanted = [f"FLWR_HOME={self._environment['FLWR_HOME']}"] + ([f"{NODE}={name}"] if name else [])
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                found = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if all(one in found for one in wanted):
                yield int(folder.name)

    def _faulty_app(self) -> Path:
        """A copy of the example in which faults can be planned."""
        app = self.folder / "app"
        shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__", "run_local.py"))
        shutil.copy(Path(__file__).with_name("faulty_app.py"), app / "flower_clip")
        settings = app / "pyproject.toml"
        text = settings.read_text()
        changes = {"flower_clip.client_app:app": "flower_clip.faulty_app:app", 'out = ""': 'out = ""\nfaults = ""'}
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        settings.write_text(text)
        return app


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    """Returns as soon as something holds.

    Raises:
        TimeoutError: It does not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.2)
