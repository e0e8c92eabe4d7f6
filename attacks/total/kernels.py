"""Separate rows: each client is handed a model with rows of its own, so that the sum keeps the clients apart.

Threat: a server that hands a different model to each client. All have the block of ``imprint`` before them, with as
many rows for each client; a client's model has its own rows alive, and those of the others dead. So only one client
changes each row, and the sum over all of them is, row by row, one client's update: examples are few to a bin, and each
is known by its client.

A simplification of LOKI (Zhao et al., IEEE S&P 2024), which keeps clients apart by convolution kernels before the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attacks.total.imprint import Imprint, block

if TYPE_CHECKING:
    from torch import nn

    from attacks.total.imprint import Measure
    from protocols.training import Examples, Training


class SeparateRows(Imprint):
    """Reads the examples of one client off its rows; its view has those alone.

    Args:
        bins: Rows for each client.
        peak: The range of the inputs.
    """

    name = "separate kernels"
    source = "Zhao et al., LOKI, IEEE S&P 2024, simplified: rows instead of kernels"

    def __init__(self, bins: int = 64, peak: float = 1.0) -> None:
        super().__init__(bins, peak)

    def craft_for(
        self,
        client: int,
        clients: int,
        model: nn.Module,
        measure: Measure,
        *,
        known: Examples,
        training: Training,
        reach: float,
    ) -> nn.Module:
        """The model that one of the clients is handed.

        Args:
            client: Its number.
            clients: How many there are.
            model: As ``craft``.
            measure: What the rows measure, of all clients the same.
            known: As ``craft``.
            training: As ``craft``.
            reach: As ``craft``.
        """
        thresholds = np.full(clients * self.bins, np.inf)
        thresholds[self.rows(client)] = measure.thresholds(self.bins)
        return block(model, measure, thresholds, known=known, training=training, reach=reach)

    def rows(self, client: int) -> slice:
        """Where a client's rows are."""
        return slice(client * self.bins, (client + 1) * self.bins)
