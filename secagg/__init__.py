"""Secure aggregation for federated learning, for whole and for pruned updates."""
