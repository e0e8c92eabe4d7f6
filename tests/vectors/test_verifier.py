"""An implementation in JavaScript, on Node's own crypto, agrees with the vectors, and would notice if one were off."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.vectors.replay import HERE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NODE = shutil.which("node")
TOPICS = sorted(path.stem for path in HERE.glob("*.json") if path.stem != "wirings")
"""``wirings`` is left out: how settings lead to a threshold is written a second time in ``reference`` alone."""

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")

Steps = tuple[str, ...]
"""Where a vector stands in its file, numbers for places in lists."""

ALTERED: dict[str, Steps] = {
    "published": ("hkdf_sha256", "1", "output"),
    "prg": ("stream", "7", "words"),
    "shamir": ("split", "1", "shares", "2", "share"),
    "commitments": ("seed", "1", "commitment"),
    "sealing": ("opened", "1", "salt"),
    "declarations": ("valid", "9", "held"),
    "messages": ("valid", "6", "bytes"),
    "ring": ("packed", "1", "bytes"),
    "encoding": ("values", "0", "integers", "2"),
    "masks": ("masked", "2", "vector"),
    "digests": ("3", "digests", "session"),
    "signatures": ("signed", "2", "signature"),
    "graphs": ("2", "order", "0"),
    "models": ("2", "leaves", "1"),
    "session-uniform": ("sum", "0"),
    "session-uniform-sparse": ("rounds", "2", "sent", "3", "bytes"),
    "session-mask-indexed-active": ("rounds", "3", "sent", "1", "bytes"),
    "session-mask-indexed-weighted": ("rounds", "1", "delivered", "0", "bytes"),
}

MADE_VALID: dict[str, tuple[Steps, Steps]] = {
    "published": (("x25519_low_order", "1"), ("x25519_public", "0", "public")),
    "shamir": (("refused_split", "0", "threshold"), ("split", "0", "threshold")),
    "commitments": (("not_a_field_element", "0"), ("share", "0", "share")),
    "sealing": (("refused", "0", "sealed"), ("sealed",)),
    "declarations": (("invalid", "6", "data"), ("valid", "8", "data")),
    "messages": (("invalid", "13", "bytes"), ("valid", "0", "bytes")),
    "signatures": (("refused", "1"), ("signed", "3")),
}
"""A negative vector, and the positive one that is put in its place."""


def verify(folder: Path, *topics: str) -> dict[str, str]:
    """What the verifier says of each topic. It exits with 1 if and only if one of them failed."""
    assert NODE is not None
    command = [NODE, str(HERE / "verify.mjs"), str(folder), *topics]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own code
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert done.returncode == any(verdict.startswith("FAILED") for verdict in said.values()), done.stderr
    return said


def found(path: Steps, vectors: Any) -> Any:
    for step in path:
        vectors = vectors[int(step) if isinstance(vectors, list) else step]
    return vectors


def put(vectors: Any, path: Steps, value: Any) -> None:
    holder = found(path[:-1], vectors)
    holder[int(path[-1]) if isinstance(holder, list) else path[-1]] = value


def altered(path: Steps, vectors: Any) -> Any:
    """Another value than the one that stands there: a number, or text that ends in a digit."""
    value = found(path, vectors)
    if isinstance(value, int):
        return value + 1
    return value[:-1] + ("1" if value[-1] == "0" else "0")


def rewrite(folder: Path, topic: str, path: Steps, value_from: Callable[[Any], Any]) -> None:
    vectors = json.loads((HERE / f"{topic}.json").read_text(encoding="utf-8"))
    put(vectors, path, value_from(vectors))
    (folder / f"{topic}.json").write_text(json.dumps(vectors), encoding="utf-8")


def failed(said: dict[str, str]) -> list[str]:
    return sorted(topic for topic, verdict in said.items() if verdict.startswith("FAILED"))


def test_a_second_implementation_agrees() -> None:
    said = verify(HERE)
    assert sorted(said) == TOPICS
    assert failed(said) == []
    assert all(int(verdict.split()[0]) > 0 for verdict in said.values())


def test_it_notices_one_altered_vector_in_any_file(tmp_path: Path) -> None:
    for topic, path in ALTERED.items():
        rewrite(tmp_path, topic, path, partial(altered, path))
    assert failed(verify(tmp_path)) == TOPICS == sorted(ALTERED)


def test_it_notices_when_what_it_must_refuse_is_in_order(tmp_path: Path) -> None:
    for topic, (negative, positive) in MADE_VALID.items():
        rewrite(tmp_path, topic, negative, partial(found, positive))
    said = verify(tmp_path, *MADE_VALID)
    assert failed(said) == sorted(MADE_VALID)
    assert all("not refused" in said[topic] for topic in MADE_VALID)
