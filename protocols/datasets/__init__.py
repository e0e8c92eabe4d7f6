"""Data of the experiments, and their partition over clients."""
