"""The wheel: what is in it, and that it works where it is installed, beside a user's own folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("secagg", "pruning", "protocols", "attacks")


class Installed(NamedTuple):
    """A fresh environment with the wheel in it."""

    wheel: Path
    bin: Path
    site: Path

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return run(str(self.bin / command[0]), *command[1:], cwd=cwd)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - own code


def succeed(*command: str, cwd: Path) -> None:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Builds from a copy, so that no build folder appears in the working tree, and installs without a network.

    The dependencies are those of the environment that runs the tests; its site folder is added after the installation.
    """
    base = tmp_path_factory.mktemp("wheel")
    source = base / "source"
    for name in (*PACKAGES, "tests", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    succeed(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(base), ".", cwd=source)
    (wheel,) = base.glob("*.whl")
    environment = base / "environment"
    succeed(sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(environment), cwd=base)
    scheme = {"base": str(environment), "platbase": str(environment)}
    site = Path(sysconfig.get_path("purelib", "venv", scheme))
    scripts = Path(sysconfig.get_path("scripts", "venv", scheme))
    python = str(scripts / "python")
    offline = ("--no-deps", "--no-index", "--disable-pip-version-check")
    succeed(sys.executable, "-m", "pip", "--python", python, "install", *offline, str(wheel), cwd=base)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(wheel, scripts, site)


def test_the_wheel_holds_the_four_packages_whole_and_nothing_else(installed: Installed) -> None:
    names = [PurePosixPath(name) for name in zipfile.ZipFile(installed.wheel).namelist()]
    packaged = {str(name) for name in names if not name.parts[0].endswith(".dist-info")}
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert packaged == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= packaged


def test_the_wheel_names_its_license_its_dependencies_and_its_command(installed: Installed) -> None:
    archive = zipfile.ZipFile(installed.wheel)
    info = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
    metadata = archive.read(f"{info}/METADATA").decode()
    assert "Name: secagg\n" in metadata
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra" not in line]
    assert {line.split()[1].split(">")[0] for line in required} == {"cryptography", "msgspec", "numpy"}
    assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert "secagg = secagg.commands:main" in archive.read(f"{info}/entry_points.txt").decode()


def test_the_installed_packages_are_found_from_anywhere(installed: Installed, tmp_path: Path) -> None:
    code = "import secagg, pruning; print(secagg.__file__, pruning.__file__, sep='\\n')"
    done = installed.run("python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [Path(line).resolve() for line in done.stdout.splitlines()]
    assert found == [(installed.site / name / "__init__.py").resolve() for name in ("secagg", "pruning")]


def test_an_installed_session_runs(installed: Installed, tmp_path: Path) -> None:
    code = (
        "import numpy as np, secagg\n"
        "result = secagg.simulate({client: np.full(3, float(client)) for client in range(4)})\n"
        "print(result.sum.round(3).tolist())"
    )
    done = installed.run("python", "-W", "error", "-c", code, cwd=tmp_path)
    assert done.stdout == "[6.0, 6.0, 6.0]\n", done.stderr


def test_the_command_is_installed(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("secagg", "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "secagg 0.1.0\n"


def test_a_users_own_folder_of_the_same_name_is_named_instead_of_failing_obscurely(
    installed: Installed, tmp_path: Path
) -> None:
    theirs = tmp_path / "pruning"
    theirs.mkdir()
    (theirs / "__init__.py").write_text('"""Somebody else\'s pruning."""\n')
    done = installed.run("python", "-c", "import protocols", cwd=tmp_path)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert str(theirs.resolve()) in last
    assert "rename" in last


def test_secagg_itself_works_beside_such_a_folder(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "pruning").mkdir()
    (tmp_path / "pruning" / "__init__.py").touch()
    done = installed.run("python", "-c", "import secagg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_no_package_is_no_obstacle(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "pruning").mkdir()
    done = installed.run("python", "-c", "import protocols", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
