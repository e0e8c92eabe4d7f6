"""Resident memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident() -> int:
    """Bytes of memory in use; elsewhere than on Linux, the most that there were so far."""
    return _status("VmRSS") if _STATUS.exists() else peak()


def peak() -> int:
    """The most bytes of memory so far.

    Linux hands ``ru_maxrss`` down to a process from the one that started it, so there it is read elsewhere.
    """
    if _STATUS.exists():
        return _status("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _status(name: str) -> int:
    lines = (line.split() for line in _STATUS.read_text(encoding="ascii").splitlines())
    return next(int(words[1]) * 1024 for words in lines if words[0] == f"{name}:")
