"""Federated rounds, simulated devices, and the systems built from them."""
