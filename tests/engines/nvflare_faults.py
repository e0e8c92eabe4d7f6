"""A job for NVFlare's simulator in which site 3 fails in another way each round; prints what every round comes to."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from nvflare.collab import CollabRecipe, collab
from nvflare.recipe import SimEnv

from protocols.engines.nvflare import SecureClient, Settings, secure_round
from secagg import Params, messages
from secagg.driver import Contribution

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SITES = 5
SETTINGS = Settings(params=Params(min_cohort=2, max_dropouts=2))
PATIENCE = 5.0

FAULTS = (
    ("Roster", "raises"),
    ("RelayedShares", "raises"),
    ("UnmaskRequest", "raises"),
    ("RelayedShares", "hangs"),
    ("", "stays"),
    ("RelayedShares", "dies"),
    ("", "is gone"),
)
"""Round to the message at which site 3 fails, and how."""


class Site(SecureClient):
    settings = SETTINGS

    def train(self, model: Mapping[str, NDArray[Any]], round_number: int) -> Contribution:
        self._round = round_number
        return Contribution({"weight": np.full(model["weight"].shape, int(collab.site_name[-1]) / 8)})

    @collab.publish  # type: ignore[untyped-decorator]
    def secagg_answer(self, session: bytes, message: bytes) -> bytes:
        kind, how = FAULTS[self._round]
        if collab.site_name == "site-3" and type(messages.decode(message)).__name__ == kind:
            if how == "raises":
                raise OSError("injected")
            if how == "dies":
                os._exit(1)
            time.sleep(2 * PATIENCE)
        return super().secagg_answer(session, message)


class Main:
    @collab.main  # type: ignore[untyped-decorator]
    def run(self) -> None:
        model = {"weight": np.zeros(3)}
        for number in range(len(FAULTS)):
            # Training waits for the site that hangs: it takes one call after the other.
            found = secure_round(
                collab.clients, model, SETTINGS, round_number=number, training_timeout=60, timeout=PATIENCE
            )
            model = found.model  # for one model sites would unmask no second sum that differs in one of them
            failed = {stage: sorted(sites) for stage, sites in found.failures.items() if sites}
            row = {"survivors": found.aggregate.survivors, "mean": found.aggregate.mean.tolist(), "failed": failed}
            print(f"ROW {json.dumps(row)}", flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    recipe = CollabRecipe("faults", server=Main(), client=Site(), min_clients=SITES, sync_task_timeout=20)
    recipe.execute(SimEnv(num_clients=SITES, workspace_root=sys.argv[1]))
