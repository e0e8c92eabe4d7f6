"""Secure aggregation for federated learning, for whole and for pruned updates.

``simulate`` plays a session in memory; ``Client`` and ``Server`` are the same session as state machines, bytes in and
bytes out. ``Params`` holds every setting.
"""

from secagg import errors
from secagg.aggregate import Aggregate
from secagg.client import Client
from secagg.combining import Combined, LostShard, combine
from secagg.declaration import Declaration, Provenance
from secagg.driver import Stage
from secagg.dryrun import DryRun, dry_run
from secagg.explain import Explanation
from secagg.identity import Identity
from secagg.layout import Layout, Tensor
from secagg.ledger import Ledger
from secagg.params import Params
from secagg.privacy.budget import PrivacyBudget
from secagg.privacy.ledger import PrivacyLedger
from secagg.privacy.settings import Privacy
from secagg.rounds import Round
from secagg.server import Server
from secagg.session import CountedCoverage, Session
from secagg.shards import Shard, split
from secagg.simulate import Result, Stats, delta, simulate

__all__ = [
    "Aggregate",
    "Client",
    "Combined",
    "CountedCoverage",
    "Declaration",
    "DryRun",
    "Explanation",
    "Identity",
    "Layout",
    "Ledger",
    "LostShard",
    "Params",
    "Privacy",
    "PrivacyBudget",
    "PrivacyLedger",
    "Provenance",
    "Result",
    "Round",
    "Server",
    "Session",
    "Shard",
    "Stage",
    "Stats",
    "Tensor",
    "combine",
    "delta",
    "dry_run",
    "errors",
    "simulate",
    "split",
]
