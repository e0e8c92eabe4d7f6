"""Reading the vectors into values of secagg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg.declaration import Declaration, Provenance
from secagg.layout import Layout, Tensor
from secagg.messages import Member, Participant, SealedShares
from secagg.params import Params
from secagg.session import CountedCoverage, Session

HERE = Path(__file__).parent

unhex = bytes.fromhex


def load(topic: str) -> Any:
    return json.loads((HERE / f"{topic}.json").read_text(encoding="utf-8"))


def cases(vectors: list[Any], *names: str) -> pytest.MarkDecorator:
    def label(case: Any) -> str:
        return "-".join(str(case[name])[:40] for name in names) if names else str(case)[:16]

    return pytest.mark.parametrize("case", vectors, ids=label)


def layout_of(described: Any) -> Layout:
    tensors = [
        Tensor(
            one["name"],
            tuple(one["shape"]),
            one["dtype"],
            {int(axis): tuple(units) for axis, units in one["unit_axes"].items()},
            layer=one.get("layer", ""),
        )
        for one in described["tensors"]
    ]
    return Layout(tuple(tensors), dict(described["unit_groups"]))


def session_of(described: Any) -> Session:
    counted = described["counted"]
    return Session(
        id=unhex(described["id"]),
        params=Params(**described["params"]),
        layout=layout_of(described["layout"]),
        mode=described["mode"],
        weighted=described["weighted"],
        counted=counted and CountedCoverage(frozenset(counted["clients"]), np.array(counted["least"], np.int32)),
        model_root=unhex(described["model_root"]),
    )


def declaration_of(described: Any) -> Declaration:
    return Declaration(described["kind"], unhex(described["data"]), Provenance(described["provenance"]))


def member_of(described: Any) -> Member:
    return Member(described["id"], unhex(described["masking_key"]), unhex(described["transport_key"]))


def participant_of(described: Any) -> Participant:
    return Participant(described["id"], declaration_of(described["declaration"]), described["weight_bucket"])


def sealed_of(described: Any) -> SealedShares:
    return SealedShares(
        dealer=described["dealer"],
        holder=described["holder"],
        box=unhex(described["box"]),
        self_seed_commitment=unhex(described["self_seed_commitment"]),
        masking_key_commitment=unhex(described["masking_key_commitment"]),
    )


class Tape:
    """A source of entropy that plays recorded bytes."""

    def __init__(self, recorded: bytes) -> None:
        self.left = recorded

    def __call__(self, count: int) -> bytes:
        if count > len(self.left):
            raise AssertionError("more entropy is drawn than was recorded")
        drawn, self.left = self.left[:count], self.left[count:]
        return drawn
