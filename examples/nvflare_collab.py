"""Federated averaging on NVFlare, over its Collab API, by a server that sees no update.

    pip install '.[nvflare]'
    python examples/nvflare_collab.py

Six sites fit a plane to points of their own, on NVFlare's simulator; in the second round site 3 fails. The two classes
run in NVFlare's POC and production environments as they stand: give ``execute`` another one than ``SimEnv``, and
install secagg on every machine.
"""

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvflare.collab import CollabRecipe, collab
from nvflare.recipe import SimEnv

from protocols.engines.nvflare import SecureClient, Settings, secure_round
from secagg import Params, delta
from secagg.driver import Contribution

ROUNDS = 5
SETTINGS = Settings(params=Params(min_cohort=3, max_weight=100), weighted=True)
SLOPE = np.array([1.0, -2.0, 0.5])


class Site(SecureClient):
    """A site: what it agreed to, and how it trains. All else it inherits."""

    settings = SETTINGS

    def train(self, model: Mapping[str, NDArray[Any]], round_number: int) -> Contribution:
        """A few steps of gradient descent on this site's points, of which every site has another number."""
        number = int(collab.site_name.removeprefix("site-"))
        if (number, round_number) == (3, 1):
            raise RuntimeError("no power")
        points = np.random.default_rng(number).normal(size=(10 * number, 3))
        trained = {"slope": model["slope"].copy()}
        for _ in range(10):
            trained["slope"] -= 0.1 * points.T @ (points @ (trained["slope"] - SLOPE)) / len(points)
        return Contribution(delta(trained, model), weight=len(points))


class Main:
    """The server: whom it asks, and what becomes of the model."""

    @collab.main  # type: ignore[untyped-decorator]
    def run(self) -> None:
        """All rounds."""
        model = {"slope": np.zeros(3)}
        for round_number in range(ROUNDS):
            outcome = secure_round(collab.clients, model, SETTINGS, round_number=round_number, timeout=60)
            model = outcome.model
            print(f"round {round_number}: {len(outcome.aggregate.survivors)} sites, slope {model['slope'].round(2)}")
        print(outcome.verdict)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        recipe = CollabRecipe("secure-averaging", server=Main(), client=Site(), min_clients=6)
        recipe.execute(SimEnv(num_clients=6, workspace_root=folder))
