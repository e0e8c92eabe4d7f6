"""What the READMEs show as a diff of a user's code runs before and after it, and comes to the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAdam, FedAvg

from protocols.engines.flower import LocalGrid
from tests.engines.federation import NODES, arrays_of, model, record, trained

if TYPE_CHECKING:
    from flwr.app import Context

ROOT = Path(__file__).parents[2]
DIFF = re.compile(r"```diff\n(.*?)```", re.DOTALL)
ON_FLOWER = (ROOT / "README.md").read_text().partition("## On Flower\n")[2].partition("\n## ")[0]
MAIN = DIFF.findall(ON_FLOWER)
EXAMPLE = DIFF.findall((ROOT / "examples" / "flower_clip" / "README.md").read_text())
IMPORTS = [
    "from protocols.engines.flower import SecureAggregation, secure_aggregation_mod",
    "from secagg import Params",
]


def side(diff: str, sign: str) -> str:
    """The code on one side of a diff."""
    return "\n".join(line[1:] for line in diff.splitlines() if line[:1] in {" ", sign, ""})


def answer(message: Message, context: Context) -> Message:
    """What stands for the code that trains."""
    start = arrays_of(message.content["arrays"])
    metrics = MetricRecord({"num-examples": 10})
    return Message(
        RecordDict({"arrays": record(trained(start, context.node_id)), "metrics": metrics}), reply_to=message
    )


def run(code: str) -> dict[str, Any]:
    """The model that a user's code ends with."""
    app = ClientApp()
    names: dict[str, Any] = {
        "app": app,
        "answer": answer,
        "arrays": record({name: values for name, values in model().items() if name != "steps"}),
        "grid": LocalGrid(app, NODES),
        "fixedclipping_mod": fixedclipping_mod,
        **{one.__name__: one for one in (FedAvg, FedAdam, DifferentialPrivacyClientSideFixedClipping)},
    }
    code = code.replace("    ...", "    return answer(message, context)")
    code = code.replace("strategy.start", "result = strategy.start")
    np.random.seed(0)  # noqa: NPY002 - Flower draws its noise from there
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - our own README
    return arrays_of(names["result"].arrays)


def test_there_is_one_for_fedavg_one_for_fedadam_and_one_for_clipping_on_the_client() -> None:
    kinds = ("= FedAvg(", "= FedAdam(", "= DifferentialPrivacyClientSideFixedClipping(")
    assert [kind in side(diff, "-") for kind, diff in zip(kinds, EXAMPLE, strict=True)] == [True] * 3
    assert len(MAIN) == 1


@pytest.mark.parametrize("diff", [*MAIN, *EXAMPLE])
def test_a_diff_is_one_mod_and_one_wrapper_and_the_model_stays_the_same(diff: str) -> None:
    changes = [line for line in diff.splitlines() if line[:1] in {"+", "-"}]
    assert changes[:2] == [f"+{line}" for line in IMPORTS]
    removed, added = ([line[1:] for line in changes[2:] if line[0] == sign] for sign in "-+")
    mod, wrapper = added
    assert mod.replace("secure_aggregation_mod, ", "").replace("mods=[secure_aggregation_mod]", "") == removed[0]
    assert wrapper.startswith("strategy = SecureAggregation(")
    before, after = run(side(diff, "-")), run(side(diff, "+"))
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=2e-3)  # of rounding, of which FedAdam makes more
        assert not np.allclose(values, model()[name], atol=1e-2)
