from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import attacks
from attacks.attack import Attack

HERE = Path(__file__).parent


def every_attack() -> set[str]:
    for module in pkgutil.walk_packages(attacks.__path__, "attacks."):
        importlib.import_module(module.name)
    found: set[str] = set()
    todo: list[type[object]] = [Attack]
    while todo:
        below: list[type[object]] = todo.pop().__subclasses__()
        todo += below
        for one in below:
            if not inspect.isabstract(one) and one.__module__.startswith("attacks.") and one.__name__[0] != "_":
                found.add(one.__name__)
    return found


def test_every_attack_is_put_to_the_contract() -> None:
    """A file that derives from a contract names the attack that it makes."""
    held = [text for path in HERE.rglob("test_*.py") if "Contract)" in (text := path.read_text(encoding="utf-8"))]
    names = every_attack()
    assert len(names) >= 15
    assert {name for name in names if not any(name in text for text in held)} == set()
