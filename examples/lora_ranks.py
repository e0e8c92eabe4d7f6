"""Federated LoRA whose clients hold different ranks, under encryption. Run it with `python examples/lora_ranks.py`.

A network that knows the digits 0 to 4 is taught all ten by low-rank adapters (E. J. Hu et al., "LoRA", ICLR 2022). Slow
clients train and upload the first rows and columns of them only, as mask-indexed updates: each is averaged over those
who hold it, and none leaves the protocol that too few hold.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

import secagg

RANK = 8
RANKS = {f"client-{number}": rank for number, rank in enumerate([8] * 4 + [4] * 4 + [2] * 4)}
SHAPES = {"first": (64, 64), "last": (10, 64)}
TRAIN = 1200


def forward(base: dict[str, Tensor], adapters: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """The base network, with ``up @ down`` added to each layer's weights."""
    hidden = inputs
    for name in SHAPES:
        low = hidden @ adapters[f"{name}.down"].T @ adapters[f"{name}.up"].T if adapters else 0
        hidden = hidden @ base[f"{name}.weight"].T + base[f"{name}.bias"] + low
        hidden = torch.relu(hidden) if name == "first" else hidden
    return hidden


def fit(tensors: dict[str, Tensor], predict: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor) -> None:
    """Trains these tensors in place."""
    optimiser = torch.optim.Adam([one.requires_grad_() for one in tensors.values()], 0.01)
    for _ in range(10):
        optimiser.zero_grad()
        functional.cross_entropy(predict(inputs), labels).backward()
        optimiser.step()
    for one in tensors.values():
        one.requires_grad_(False)


def held(name: str, shape: torch.Size, rank: int) -> NDArray[np.bool_]:
    """Which numbers of an adapter a client of that rank holds: first rows of ``down``, first columns of ``up``."""
    kept = np.arange(RANK) < rank
    return np.broadcast_to(kept[:, None] if name.endswith("down") else kept, shape)


def part(name: str, whole: Tensor, rank: int) -> Tensor:
    """These numbers, as the smaller adapter that the client trains."""
    return (whole[:rank] if name.endswith("down") else whole[:, :rank]).clone()


torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)
base: dict[str, Tensor] = {}
adapters: dict[str, Tensor] = {}
for layer, (outputs, inner) in SHAPES.items():
    base |= {f"{layer}.weight": torch.randn(outputs, inner) / 8, f"{layer}.bias": torch.zeros(outputs)}
    adapters |= {f"{layer}.down": torch.randn(RANK, inner) / 8, f"{layer}.up": torch.zeros(outputs, RANK)}
few = (y[:TRAIN] < 5).nonzero()[:, 0]
for _ in range(20):
    fit(base, lambda inputs: forward(base, {}, inputs), x[few], y[few])

params = secagg.Params(min_cohort=3, max_dropouts=1)
for round_number in range(15):
    updates, masks = {}, {}
    for number, (client, rank) in enumerate(RANKS.items()):
        own = {name: part(name, whole, rank) for name, whole in adapters.items()}
        mine = slice(number, TRAIN, len(RANKS))
        fit(own, lambda inputs, own=own: forward(base, own, inputs), x[mine], y[mine])  # type: ignore[misc]
        masks[client] = {name: held(name, whole.shape, rank) for name, whole in adapters.items()}
        updates[client] = {name: torch.zeros_like(whole) for name, whole in adapters.items()}
        for name, update in updates[client].items():
            part_of = torch.from_numpy(masks[client][name].copy())
            update[part_of] = (own[name] - part(name, adapters[name], rank)).flatten()
    result = secagg.simulate(updates, masks, mode="mask-indexed", params=params, provenance=secagg.Provenance.DEVICE)
    adapters = result.apply(adapters)
    accuracy = (forward(base, adapters, x[TRAIN:]).argmax(dim=1) == y[TRAIN:]).float().mean()
    print(f"round {round_number}: accuracy {accuracy:.2f}")
for rank in sorted(set(RANKS.values()), reverse=True):
    sent = [result.stats.upload_bytes[client] for client, own_rank in RANKS.items() if own_rank == rank]
    print(f"rank {rank}: {np.mean(sent):,.0f} bytes up in a round")
print(result.verdict)
