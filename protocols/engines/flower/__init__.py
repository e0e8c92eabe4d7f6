"""Secure aggregation on Flower: a mod for the ClientApp, and a wrapper for the strategy.

    @app.train(mods=[secure_aggregation_mod])
    SecureAggregation(FedAvg(), Params(max_weight=1000)).start(grid, arrays, num_rounds=3)

It takes ``pip install 'secagg[flower]'``.
"""

from protocols.engines.flower.declared import declare
from protocols.engines.flower.history import RoundRecord, StageRecord
from protocols.engines.flower.local import Fault, LocalGrid
from protocols.engines.flower.mod import Keys, SecureAggregationMod, secure_aggregation_mod
from protocols.engines.flower.strategy import SecureAggregation

__all__ = [
    "Fault",
    "Keys",
    "LocalGrid",
    "RoundRecord",
    "SecureAggregation",
    "SecureAggregationMod",
    "StageRecord",
    "declare",
    "secure_aggregation_mod",
]
