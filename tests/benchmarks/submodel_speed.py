"""How much time a submodel saves: VGG-9 against its submodels, side by side in one run on one thread.

Run ``python tests/benchmarks/submodel_speed.py [--format json]``. Every repetition trains each model for one batch, in
turn, so that a slow moment of the machine hits all alike; the medians of the repetitions are compared, and beside them
the fastest, which are nearer to the cost of the work itself on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from protocols.models import vgg9
from pruning import cost_of, extract, find_units, ordered_units

KEEP_RATIOS = (1.0, 0.75, 0.5, 0.25)
BATCH = 20


class Trainer:
    """One model, its optimiser, and the seconds of its training steps."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        self.seconds: list[float] = []

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Trains one batch."""
        start = time.perf_counter()
        self.optimiser.zero_grad()
        nn.functional.cross_entropy(self.model(images), labels).backward()
        self.optimiser.step()
        self.seconds.append(time.perf_counter() - start)


def measure(repetitions: int) -> list[dict[str, float]]:
    """A row a keep ratio; shares are of the full model."""
    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 32, 32, generator=draws)
    labels = torch.randint(10, (BATCH,), generator=draws)
    model = vgg9()
    layout = find_units(model, images[:2]).layout
    trainers = [Trainer(extract(model, ordered_units(layout, keep))) for keep in KEEP_RATIOS]
    costs = [cost_of(trainer.model, images) for trainer in trainers]
    warm_up = 3
    for _ in range(warm_up + repetitions):
        for trainer in trainers:
            trainer.step(images, labels)
    medians = [statistics.median(trainer.seconds[warm_up:]) for trainer in trainers]
    fastest = [min(trainer.seconds[warm_up:]) for trainer in trainers]
    return [
        {
            "keep": keep,
            "step_ms": 1000 * seconds,
            "share_of_seconds": seconds / medians[0],
            "share_of_fastest": quickest / fastest[0],
            "step_mflops": cost.step_flops / 1e6,
            "share_of_flops": cost.step_flops / costs[0].step_flops,
            "upload_bytes": cost.parameter_bytes,
        }
        for keep, seconds, quickest, cost in zip(KEEP_RATIOS, medians, fastest, costs, strict=True)
    ]


def main() -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--repetitions", type=int, default=30)
    arguments = parser.parse_args()
    rows = measure(arguments.repetitions)
    sys.stdout.write(json.dumps(rows, indent=2) if arguments.format == "json" else table(rows))
    sys.stdout.write("\n")


def table(rows: list[dict[str, float]]) -> str:
    """The rows as aligned text."""
    head = " keep  step ms  of full  fastest  MFLOP/step  of full  upload bytes"
    lines = [
        f"{row['keep']:5.2f} {row['step_ms']:8.1f} {row['share_of_seconds']:8.3f} {row['share_of_fastest']:8.3f}"
        f" {row['step_mflops']:11.0f} {row['share_of_flops']:8.3f} {row['upload_bytes']:13.0f}"
        for row in rows
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    main()
