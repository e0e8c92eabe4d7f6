"""Attacks on the sum: what it says of single clients although nobody sees their uploads.

``candidates``, ``participation``, ``disaggregation`` and ``differencing`` take sums as they come; ``imprint``,
``kernels`` and ``inconsistency`` are of a server that hands out models made to leak. ``probe`` runs them all.
"""

from attacks.total.probe import probe

__all__ = ["probe"]
