"""What may import what, and the house rules that no linter holds."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
OURS = ("secagg", "pruning", "protocols", "attacks")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in OURS
    for path in sorted((ROOT / package).rglob("*.py"))
}
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "secagg": ("secagg",),
    "pruning": ("pruning", "secagg.layout", "secagg.declaration", "secagg.errors", "secagg.shadowing"),
    "protocols": ("protocols", "pruning", "secagg"),
    "attacks": OURS,
}
"""Package to the modules of ours, with what is below them, that it may import."""

WIRE = "attacks.wire"
PUBLIC_MODULES = {
    "secagg.aggregate",
    "secagg.counts",
    "secagg.declaration",
    "secagg.driver",
    "secagg.errors",
    "secagg.layout",
    "secagg.messages",
    "secagg.params",
    "secagg.privacy.events",
    "secagg.release",
    "secagg.session",
    "secagg.shadowing",
    "pruning.masks",
    "pruning.units",
    "protocols.aggregators",
    "protocols.commands.options",
    "protocols.datasets",
    "protocols.experiments.folder",
    "protocols.experiments.setup",
    "protocols.models",
    "protocols.results",
    "protocols.round",
    "protocols.training",
}
"""Modules that attacks may reach into, besides what the packages themselves export."""

LINES_A_MODULE = 450
LINES_A_FUNCTION = 50
"""Signature and docstring not counted."""


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Every import of a file, under ``TYPE_CHECKING`` and inside functions too: (module, name or None)."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            yield from ((module, alias.name) for alias in node.names)


def imported_modules(path: Path) -> set[str]:
    """The modules of ours that a file imports; ``from secagg import layout`` is an import of ``secagg.layout``."""
    found = set()
    for module, name in imports(path):
        if module.split(".")[0] in OURS:
            inner = f"{module}.{name}"
            found.add(inner if inner in MODULES else module)
    return found


def within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == one or module.startswith(one + ".") for one in allowed)


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods of a module by dotted name, those inside functions left out."""
    stack: list[tuple[str, ast.Module | ast.ClassDef]] = [("", tree_of(path))]
    while stack:
        prefix, parent = stack.pop()
        for node in parent.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + node.name, node
            elif isinstance(node, ast.ClassDef):
                stack.append((f"{prefix}{node.name}.", node))


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[ast.get_docstring(function) is not None :]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def secagg_nodes() -> Iterator[tuple[str, ast.AST]]:
    for module, path in MODULES.items():
        if module.startswith("secagg"):
            yield from ((module, node) for node in ast.walk(tree_of(path)))


def run_python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - own code
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_checks_see_all_four_packages() -> None:
    assert {module.split(".")[0] for module in MODULES} == set(OURS)
    assert "secagg.ring" in imported_modules(MODULES["secagg.prg"])


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_in_one_direction_only(module: str) -> None:
    package = module.split(".", maxsplit=1)[0]
    allowed = MAY_IMPORT[package]
    wrong = {one for one in imported_modules(MODULES[module]) if not within(one, allowed)}
    assert not wrong, f"{module} must not import {wrong}"


def test_nothing_imports_attacks() -> None:
    importers = [path for name, path in MODULES.items() if not within(name, ("attacks",))] + EXAMPLES
    assert [path for path in importers if any(within(one, ("attacks",)) for one in imported_modules(path))] == []


@pytest.mark.parametrize("module", [module for module in MODULES if within(module, ("attacks",))])
def test_attacks_use_only_what_is_public(module: str) -> None:
    """Attacks on the wire take the protocol apart, so to them all of its modules are open."""
    public = PUBLIC_MODULES | ({one for one in MODULES if within(one, ("secagg",))} if WIRE in module else set())
    for source, name in imports(MODULES[module]):
        package = source.split(".")[0]
        if package not in OURS or package == "attacks":
            continue
        if name is None:
            assert source in {package, *public}, f"{module} imports {source}"
        elif source == package:
            exported = importlib.import_module(package)
            assert name in exported.__all__ or f"{package}.{name}" in public, f"{module} imports {name}"
        else:
            assert source in public, f"{module} imports {source}"
            assert not name.startswith("_"), f"{module} imports {source}.{name}"


@pytest.mark.parametrize("package", OURS)
def test_what_a_package_exports_exists(package: str) -> None:
    exported = importlib.import_module(package)
    for name in getattr(exported, "__all__", ()):
        assert hasattr(exported, name)


def test_importing_secagg_loads_no_heavy_package() -> None:
    loaded = run_python("import secagg, sys; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert {"numpy", "msgspec", "cryptography"} <= set(loaded)
    assert not set(loaded) & {"torch", "sklearn", "scipy", "matplotlib", "rich", "asyncio", "pruning", "protocols"}


def test_importing_secagg_opens_no_socket_and_starts_no_process() -> None:
    """An audit hook sees what any imported module does; the last line shows that it sees it."""
    output = run_python(
        "import sys, threading\n"
        "seen = []\n"
        "names = ('socket.', 'subprocess.', 'os.system', 'os.fork', 'os.posix_spawn')\n"
        "sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(names) else None)\n"
        "import secagg\n"
        "print(seen, threading.active_count())\n"
        "import socket; socket.socket().close(); print(seen)\n"
    )
    assert output.splitlines() == ["[] 1", "['socket.__new__']"]


def test_secagg_checks_its_input_with_errors_never_with_assert() -> None:
    assert [module for module, node in secagg_nodes() if isinstance(node, ast.Assert)] == []


def test_secagg_catches_named_errors_only() -> None:
    broad = [
        f"{module}:{node.lineno}"
        for module, node in secagg_nodes()
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or {"Exception", "BaseException"} & {ast.unparse(one) for one in ast.walk(node.type)})
    ]
    assert broad == []


def test_secagg_draws_no_randomness_that_was_not_handed_in() -> None:
    """``os.urandom`` appears as a default argument; everything else takes entropy as an argument."""
    for module, path in MODULES.items():
        if within(module, ("secagg",)):
            assert not {source for source, _ in imports(path)} & {"random", "secrets", "numpy.random"}, module
    drawn = {
        f"{module}: {ast.unparse(node)}"
        for module, node in secagg_nodes()
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"np.random", "numpy.random"}
    }
    assert drawn == set()
    called = {ast.unparse(node) for _, node in secagg_nodes() if isinstance(node, ast.Call)}
    assert not {call for call in called if call.startswith("os.urandom(")}


def test_secagg_does_no_input_or_output() -> None:
    """Commands print; nothing else prints, logs, or opens a file or a connection."""
    forbidden = {"asyncio", "http", "logging", "multiprocessing", "requests", "socket", "urllib", "warnings"}
    for module, path in MODULES.items():
        if within(module, ("secagg",)) and not module.endswith(".commands"):
            assert not {source.split(".")[0] for source, _ in imports(path)} & forbidden, module
            calls = {ast.unparse(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)}
            assert not calls & {"print", "open", "input", "exec", "eval"}, module


@pytest.mark.parametrize("module", MODULES)
def test_every_module_and_every_public_function_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(tree_of(MODULES[module])), module
    silent = [
        name
        for name, node in functions(MODULES[module])
        if not any(part.startswith("_") for part in name.split(".")) and not ast.get_docstring(node)
    ]
    assert silent == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short_enough_to_read_at_a_sitting(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= LINES_A_MODULE


def test_a_function_fits_a_screen() -> None:
    longer = {
        f"{module}.{name}"
        for module, path in MODULES.items()
        for name, node in functions(path)
        if lines_of_code(node) > LINES_A_FUNCTION
    }
    assert not longer
