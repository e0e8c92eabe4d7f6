"""Data of the experiments, and their division over clients."""

from protocols.datasets.catalogue import DATASETS, load
from protocols.datasets.dataset import Dataset
from protocols.datasets.division import Division, Partition, divide

__all__ = ["DATASETS", "Dataset", "Division", "Partition", "divide", "load"]
