"""Devices and time, simulated: what a round would have taken on a fleet that nobody has at hand."""
