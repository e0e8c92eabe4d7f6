"""Experiments by name: what can be learned and run, a run on disk, all runs of a comparison, and what it shows."""
