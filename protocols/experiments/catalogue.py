"""The systems that can be run by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from protocols.baselines.asynchronous import FedAsync, FedAsyncSettings, FedFix, FedFixSettings
from protocols.baselines.exclusion import Exclusion
from protocols.baselines.fedavg import FedAvg
from protocols.baselines.fluid import Fluid, FluidSettings
from protocols.baselines.heterofl import HeteroFl, HeteroFlSettings
from protocols.baselines.local import LocalOnly
from protocols.baselines.partial import FedDrop, FedPmt
from protocols.baselines.snip import FedSnip, SnipSettings
from protocols.baselines.sub_fedavg import SubFedAvg, SubFedAvgSettings
from protocols.baselines.submodels import OrderedDropout, RandomDropout
from protocols.ca_afp import CaAfp, CaAfpSettings
from protocols.clip import Clip, ClipSettings
from protocols.clustered import ClusteredFedAvg, ClusterSettings
from protocols.ma_clamp import Clamp, DepthSettings, Diluted, MaClamp
from protocols.pr_fl import PrFl, PrFlSettings
from protocols.submodels import SubmodelSettings
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from protocols.aggregators import Aggregator
    from protocols.federation import Federation
    from protocols.simulation.calibration import Calibration
    from protocols.system import System
    from secagg.params import Mode

BOTH: tuple[Mode, Mode] = ("mask-indexed", "uniform")
WHOLE: tuple[Mode] = ("uniform",)
INDEXED: tuple[Mode] = ("mask-indexed",)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A system that has a name.

    Args:
        system: Its class; takes a federation and an aggregator, then its settings if it has any.
        modes: The modes of aggregation that it can use, its own first.
        settings: The class of its settings; None if it has none.
        params: What its sessions demand, unless they are told otherwise.
        encrypts: Whether it can do without the server's seeing single updates.
        excludes: Whether it leaves the stragglers of the device table out.
        rounds: From its settings, how many rounds it takes to come to its end; None: it goes on for ever.
    """

    system: Callable[..., System]
    modes: tuple[Mode, ...]
    settings: Callable[[], Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    encrypts: bool = True
    excludes: bool = False
    rounds: Callable[[Any], int] | None = None

    def make(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: Any,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> System:
        """The system; ``settings`` is ignored where it has none."""
        own = () if self.settings is None else (settings,)
        return self.system(federation, aggregator, *own, twin=twin, calibration=calibration)


SYSTEMS: Mapping[str, Kind] = MappingProxyType(
    {
        "fedavg": Kind(system=FedAvg, modes=WHOLE),
        "clip": Kind(system=Clip, modes=BOTH, settings=ClipSettings),
        "random-dropout": Kind(system=RandomDropout, modes=BOTH, settings=SubmodelSettings),
        "ordered-dropout": Kind(system=OrderedDropout, modes=BOTH, settings=SubmodelSettings),
        "fluid": Kind(system=Fluid, modes=BOTH, settings=FluidSettings, encrypts=False),
        "exclusion": Kind(system=Exclusion, modes=WHOLE, excludes=True),
        "ma-clamp": Kind(system=MaClamp, modes=INDEXED, settings=DepthSettings, params={"participation": 0.5}),
        "clamp": Kind(system=Clamp, modes=INDEXED, settings=DepthSettings, params={"participation": 1.0}),
        "clamp-diluted": Kind(system=Diluted, modes=WHOLE, settings=DepthSettings),
        "fedpmt": Kind(system=FedPmt, modes=INDEXED, settings=DepthSettings),
        "feddrop": Kind(system=FedDrop, modes=INDEXED, settings=DepthSettings),
        "pr-fl": Kind(system=PrFl, modes=INDEXED, settings=PrFlSettings, params={"out_of_range": "saturate"}),
        "fedasync": Kind(system=FedAsync, modes=INDEXED, settings=FedAsyncSettings, encrypts=False),
        "fedfix": Kind(system=FedFix, modes=INDEXED, settings=FedFixSettings, encrypts=False),
        "heterofl": Kind(system=HeteroFl, modes=INDEXED, settings=HeteroFlSettings),
        "sub-fedavg": Kind(system=SubFedAvg, modes=INDEXED, settings=SubFedAvgSettings),
        "ca-afp": Kind(system=CaAfp, modes=WHOLE, settings=CaAfpSettings, rounds=attrgetter("rounds")),
        "clustered": Kind(system=ClusteredFedAvg, modes=WHOLE, settings=ClusterSettings),
        "fedsnip": Kind(system=FedSnip, modes=WHOLE, settings=SnipSettings),
        "local": Kind(system=LocalOnly, modes=WHOLE, settings=ClusterSettings, encrypts=False),
    }
)
"""Name to system."""


def system_kind(name: str) -> Kind:
    """The system of this name.

    Raises:
        ParameterError: There is none.
    """
    if name not in SYSTEMS:
        raise ParameterError(f"no system is called {name!r}; there are {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
