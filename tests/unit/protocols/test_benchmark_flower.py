"""Flower's SecAgg+ beside this project's: the same work, and what it survives and shows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
pytest.importorskip("flwr")

from protocols.benchmark import flower, report, stages, workflow
from protocols.benchmark.comparison import COMMON, ratios
from secagg.prg import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(scope="module")
def facts() -> Mapping[str, Any]:
    return workflow.facts()


def test_flower_survives_dropouts_after_the_keys_are_shared_and_none_before(facts: Mapping[str, Any]) -> None:
    came_of = {(row["before"], row["clients"]): row["flower"] for row in facts["dropouts"]}
    for count in workflow.DROPOUTS:
        assert came_of["MaskedInput", count] == came_of["Unmask", count] == workflow.SURVIVED
        assert came_of["AdvertiseKeys", count].startswith(workflow.ABORTED)
        assert came_of["ShareKeys", count].startswith(workflow.ABORTED)


def test_this_project_survives_them_all(facts: Mapping[str, Any]) -> None:
    assert {row["secagg"] for row in facts["dropouts"]} == {workflow.SURVIVED}
    assert len(facts["dropouts"]) == len(workflow.STAGES) * len(workflow.DROPOUTS)


def test_what_flower_shows_is_found_by_trying(facts: Mapping[str, Any]) -> None:
    seen = facts["leakage"]
    assert seen["flower: seeds that agree in 32 bits make one mask"]
    assert seen["flower: mask values of 4, drawn"] == [0, 1, 2]
    assert seen["flower: weight readable in a client's answer"]
    assert seen["secagg: bits of a mask's key"] == 8 * KEY_BYTES == 128
    assert seen["secagg: mask values of 4, drawn"] == [0, 1, 2, 3]


def test_both_sides_are_measured_in_the_stages_that_they_share() -> None:
    found = stages.measure(500, 4, 1, beside_flower=True)
    assert set(found["seconds"]["flower"]) == {*COMMON, stages.DROPOUT}
    assert found["upload_bytes"]["flower"]["MaskedInput"] > 8 * 500
    assert set(ratios(found)) == {*COMMON, stages.DROPOUT, "client"}


def test_flowers_client_hides_its_vector_under_masks_that_its_server_takes_off() -> None:
    """The functions are those of Flower: without neighbours, the self mask comes off and the levels are left."""
    from flwr.common import bytes_to_ndarray
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    client = flower._Client(np.zeros(300, np.float32), 0, 2**20)
    client.masked_input()
    factor, vector = (bytes_to_ndarray(one) for one in client.sent)
    masks = pseudo_rand_gen(client._seed, flower.MODULUS, [(), (300,)])
    assert (factor - masks[0]) % flower.MODULUS == 1
    levels = (vector - masks[1]) % flower.MODULUS
    assert np.abs(levels - 2**19).max() <= 1


def test_tables_tell_what_became_of_dropouts(facts: Mapping[str, Any]) -> None:
    row = stages.measure(500, 4, 1, beside_flower=True)
    table = report._beside([row])
    assert [line[2] for line in table[1:]] == [
        *(f"{stage}, ms" for stage in (*COMMON, stages.DROPOUT, "client")),
        "upload, bytes a coordinate",
    ]
    assert len(report._dropouts(facts)) == 1 + len(facts["dropouts"])
    assert ["flower: mask values of 4, drawn", "[0, 1, 2]"] in report._leakage(facts)
