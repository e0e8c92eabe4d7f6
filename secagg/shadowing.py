"""Whether a package of this distribution is the one that Python finds.

The names ``pruning``, ``protocols`` and ``attacks`` are ordinary words; a user's own folder of such a name beside a
script comes first on the import path. Then it is better to say so than to fail on a missing attribute.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

_root = Path(__file__).resolve().parent.parent


def require_own(name: str) -> None:
    """Makes sure that the package ``name`` is the one installed with ``secagg``.

    Raises:
        ImportError: It is another one, or missing; the message says where it was found.
    """
    spec = importlib.util.find_spec(name)
    found = Path(spec.origin).resolve().parent if spec and spec.origin else None
    if found != _root / name:
        where = found or "nowhere"
        raise ImportError(
            f"`import {name}` finds {where} instead of the package installed with secagg ({_root / name}): "
            f"rename that folder, or run from another directory"
        )
