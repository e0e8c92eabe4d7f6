"""Ways to turn the clients' updates into one mean, behind one interface.

``FloatMean`` is what a framework without encryption computes. ``Uniform`` and ``MaskIndexed`` play a session of
secure aggregation, and ``FixedPoint`` is their twin in the clear. The other modules aggregate by one of them: with
central noise, under one mask for all, or with further vectors beside the updates.
"""

from protocols.aggregators.aggregated import Aggregated
from protocols.aggregators.aggregator import Aggregator
from protocols.aggregators.contributions import Client, Contributions, Dropouts, Ledgers, Masks, Updates, Weights
from protocols.aggregators.fixed_point import FixedPoint
from protocols.aggregators.float_mean import FLOAT_BYTES, FloatMean
from protocols.aggregators.secure import MaskIndexed, Secure, Uniform

__all__ = [
    "FLOAT_BYTES",
    "Aggregated",
    "Aggregator",
    "Client",
    "Contributions",
    "Dropouts",
    "FixedPoint",
    "FloatMean",
    "Ledgers",
    "MaskIndexed",
    "Masks",
    "Secure",
    "Uniform",
    "Updates",
    "Weights",
]
