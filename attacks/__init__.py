"""What a deployment gives away: attacks to run against one's own.

``audit`` runs them all on a ``Deployment``, or on one under several protections (``side_by_side``). ``isolation`` asks
which clients stand alone in a sum, ``opened_weights`` whether hidden weights can be solved for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attacks.masks.coverage import Isolation, isolation
from attacks.masks.denominators import opened_weights

if TYPE_CHECKING:
    from attacks.auditing import Audit, audit
    from attacks.deployment import Deployment
    from attacks.finding import Effort
    from attacks.protections import side_by_side
    from attacks.report import write

__all__ = [
    "Audit",
    "Deployment",
    "Effort",
    "Isolation",
    "audit",
    "isolation",
    "opened_weights",
    "side_by_side",
    "write",
]

_AT = {
    "Audit": "auditing",
    "audit": "auditing",
    "Deployment": "deployment",
    "Effort": "finding",
    "side_by_side": "protections",
    "write": "report",
}
"""Where those are that import PyTorch: they are looked up when somebody asks, so that commands start at once."""


def __getattr__(name: str) -> Any:
    if name not in _AT:
        raise AttributeError(f"module 'attacks' has no attribute {name!r}")
    return getattr(import_module(f"attacks.{_AT[name]}"), name)
