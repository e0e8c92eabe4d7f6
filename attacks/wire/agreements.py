"""Lies about what is agreed on beforehand: the victim has another model, or other settings, than everybody else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.wire.attack import SIZE, UPDATES, VICTIM, Attack, Weakness, contributions, nothing, session
from attacks.wire.hostile import HostileServer
from secagg import merkle
from secagg.driver import Contribution
from secagg.layout import Layout, Tensor
from secagg.params import LARGEST_RANGE, Params
from secagg.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


UNITS = range(SIZE)
LAYOUT = Layout((Tensor("w", (SIZE,), unit_axes={0: tuple(UNITS)}),), {"hidden": SIZE})
"""Each coordinate is a unit, so that a client can fetch some of them and leave out others."""
LEAVES = merkle.model_leaves(LAYOUT, {"w": np.ones(SIZE)})
DEAD_LEAVES = merkle.model_leaves(LAYOUT, {"w": np.zeros(SIZE)})


def _finished(server: HostileServer) -> list[int]:
    """Plays by the rules to the end, and takes the sums."""
    everybody = server.collect()
    server.finish(everybody, everybody)
    return server.sums(everybody)


def _model_for_one(attacked: Session) -> list[int]:
    silent = {id_: Contribution({"w": np.zeros(SIZE)}) for id_ in range(VICTIM)}
    dead = replace(attacked, model_root=merkle.root(DEAD_LEAVES))
    brings = silent | {VICTIM: Contribution({"w": UPDATES[VICTIM]})}
    return _finished(HostileServer(attacked, brings, sessions=dict.fromkeys(silent, dead)))


def _digest_without_model(attacked: Session) -> bytes:
    digest: bytes = _DIGEST(replace(attacked, model_root=b""))
    return digest


_DIGEST = vars(Session)["digest"].func

MODEL_FOR_ONE = Attack(
    name="a model for one",
    threat="gives everybody but the victim a model whose updates are zero, so that the sum is the victim's",
    stopped_by="the model root in every transcript",
    session=session(adversary="active", max_dropouts=0, model_root=merkle.root(LEAVES)),
    play=_model_for_one,
    weakness=(Weakness(Session, "digest", property(_digest_without_model)),),
)


def _settings_for_one(attacked: Session) -> list[int]:
    wide = replace(attacked, params=replace(attacked.params, value_range=LARGEST_RANGE))
    return _finished(HostileServer(attacked, contributions(VICTIM + 1), sessions=dict.fromkeys(range(VICTIM), wide)))


SETTINGS_FOR_ONE = Attack(
    name="settings for one",
    threat="gives everybody but the victim a value_range so wide that what they bring rounds to zero",
    stopped_by="all settings in every transcript",
    session=session(adversary="active", max_dropouts=0),
    play=_settings_for_one,
    weakness=(Weakness(Params, "digest", property(lambda _: bytes(32))),),
)


def _trained(client: int, model_root: bytes, fetched: Mapping[int, bytes]) -> NDArray[np.float64]:
    """The update of a client that fetched these units: behind a weight of zero nothing is learned."""
    merkle.check(model_root, len(LEAVES), fetched, merkle.prove(LEAVES, fetched))
    weights = merkle.model_of(LAYOUT, fetched)["w"]
    return np.where(weights != 0, UPDATES[client], 0)


def _part_for_one(attacked: Session) -> list[int]:
    genuine, dead = ({unit: leaves[unit] for unit in UNITS} for leaves in (LEAVES, DEAD_LEAVES))
    brings = {
        id_: Contribution({"w": _trained(id_, attacked.model_root, genuine if id_ == VICTIM else dead)})
        for id_ in range(VICTIM + 1)
    }
    return _finished(HostileServer(attacked, brings))


PART_FOR_ONE = Attack(
    name="parts of a model for one",
    threat="serves dead units to everybody but the victim, under the root of the model that all agreed on",
    stopped_by="the check of fetched parts against the model root",
    session=session(layout=LAYOUT, adversary="active", max_dropouts=0, model_root=merkle.root(LEAVES)),
    play=_part_for_one,
    weakness=(Weakness(merkle, "check", nothing),),
)
