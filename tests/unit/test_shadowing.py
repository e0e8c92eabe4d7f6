"""A package of ours is told from a user's folder of the same name."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from secagg.shadowing import require_own

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on the import path, with nothing of ours imported yet."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pruning"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize("name", ["secagg", "pruning", "protocols", "attacks"])
def test_our_own_packages_pass(name: str) -> None:
    require_own(name)
    assert importlib.util.find_spec(name) is not None


def test_a_package_that_comes_first_is_refused_with_its_path_and_a_remedy(folder: Path) -> None:
    (folder / "pruning").mkdir()
    (folder / "pruning" / "__init__.py").touch()
    with pytest.raises(ImportError, match="rename that folder") as error:
        require_own("pruning")
    assert str((folder / "pruning").resolve()) in str(error.value)


def test_a_module_that_comes_first_is_refused_too(folder: Path) -> None:
    (folder / "pruning.py").touch()
    with pytest.raises(ImportError, match="rename"):
        require_own("pruning")


def test_a_folder_without_an_init_file_shadows_nothing(folder: Path) -> None:
    (folder / "pruning").mkdir()
    require_own("pruning")
    found = importlib.util.find_spec("pruning")
    assert found is not None
    assert found.origin is not None
    assert not found.origin.startswith(str(folder))


def test_a_missing_package_is_named() -> None:
    with pytest.raises(ImportError, match="`import no_such_package` finds nowhere"):
        require_own("no_such_package")
