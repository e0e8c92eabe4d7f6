"""Limits of the machine, on one core: how fast it enciphers and copies, and how near to that masking comes."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from protocols.benchmark.timing import KINDS, alternating
from secagg.masking import Accumulator, MaskKey
from secagg.prg import KEY_BYTES
from secagg.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE_BYTES = 1 << 16
"""What is enciphered at a time: it stays in cache."""
MASKS = 11
"""Masks of a client with ten neighbours."""


def measure(coordinates: int, repeats: int, seconds: int) -> dict[str, Any]:
    """Bytes a second of AES-128 in counter mode, of copying memory, and of masking a vector.

    Args:
        coordinates: Length of the vector that is copied and masked, of 4 bytes each.
        repeats: Times that each is measured.
        seconds: How long each of three runs of ``openssl speed`` takes; where that program is not installed, its rates
            are left out.
    """
    source = np.arange(coordinates, dtype=np.uint32)
    target = np.empty_like(source)
    masked = Accumulator(Ring(32), Ring(32).zeros(coordinates))
    keys = [MaskKey(1, os.urandom(KEY_BYTES)) for _ in range(MASKS)]
    nbytes = {"AES through cryptography": MASKS * source.nbytes, "memory copy": source.nbytes}
    nbytes["mask and add"] = MASKS * source.nbytes
    rates = [_openssl(seconds)]
    taken = alternating(
        {
            "AES through cryptography": _enciphering(MASKS * source.nbytes),
            "memory copy": lambda: np.copyto(target, source),
            "mask and add": lambda: masked.apply(keys),
        },
        repeats,
    )
    rates += [_openssl(seconds), _openssl(seconds)]
    bytes_per_second = {name: {kind: nbytes[name] / taken[name][kind] for kind in KINDS} for name in taken}
    known = [rate for rate in rates if rate is not None]
    if known:
        bytes_per_second["AES by openssl"] = {"median": statistics.median(known), "fastest": max(known)}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "coordinates": coordinates,
        "bytes_per_second": bytes_per_second,
    }


def _enciphering(nbytes: int) -> Callable[[], None]:
    """Makes that many bytes of key stream, a piece at a time, in one buffer."""
    zeros, buffer = bytes(PIECE_BYTES), bytearray(PIECE_BYTES + 16)
    cipher = Cipher(AES(os.urandom(KEY_BYTES)), CTR(bytes(16))).encryptor()

    def once() -> None:
        for _ in range(max(1, nbytes // PIECE_BYTES)):
            cipher.update_into(zeros, buffer)

    return once


def _openssl(seconds: int) -> float | None:
    """Bytes a second as ``openssl speed`` tells them, by processor time; None without that program."""
    program = shutil.which("openssl")
    if program is None:
        return None
    command = [program, "speed", "-mr", "-seconds", str(seconds), "-bytes", "16384", "-evp", "aes-128-ctr"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - found on the path
    rates = [line.split(":")[-1] for line in said.splitlines() if line.startswith("+F:")]
    return float(rates[0]) if rates else None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a file that only Linux has
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
