"""Federated rounds, simulated devices, and the systems built from them."""

from secagg.shadowing import require_own

require_own("pruning")
