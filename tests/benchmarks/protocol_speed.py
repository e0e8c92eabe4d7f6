"""Cost of the protocol by stage, beside Flower's SecAgg+ functions in the same run.

    python tests/benchmarks/protocol_speed.py [--coordinates 1000000] [--neighbours 10 50] [--repeats 7] [--format json]

Both sides do what one client and the server do for one vector; repetitions alternate between the two, so that a slow
moment of the machine meets both. Medians are compared, and beside them the fastest runs, which are nearer to the cost
of the work itself on a machine that is busy with other things. Flower's functions are called in the order in which its
own client module calls them. Without Flower (`pip install 'secagg[flower]'`) only this project's side is printed.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

import secagg
from secagg import declaration, masking, shamir
from secagg.keys import KeyPair
from secagg.prg import Stream
from secagg.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from secagg.ring import Words

LEVELS = 2**20
SERVER = "server, per dropped client"


@dataclass(frozen=True)
class Side:
    """One implementation: its stages in order, and the bytes that a client uploads for its vector."""

    stages: dict[str, Callable[[], object]]
    upload: Callable[[], int]


def ours(update: NDArray[np.float32], neighbours: int) -> Side:
    """This project's client 0 and server, among ``neighbours + 1`` clients."""
    layout = secagg.Layout((secagg.Tensor("weights", update.shape),))
    params = secagg.Params(levels=LEVELS)
    session = secagg.Session(id=os.urandom(16), params=params, layout=layout, mode="uniform")
    server = secagg.Server(session)
    clients = [secagg.Client(number, session) for number in range(neighbours + 1)]
    fresh = secagg.Client(0, session)
    for client in clients:
        server.receive(client.advertise_keys())
    roster = server.close_round()
    advertised = copy.copy(clients[0])
    for client in clients:
        server.receive(client.share_keys(roster[client.id]))
    relayed = server.close_round()
    shared, values = clients[0], {"weights": update}
    sent = len(copy.copy(shared).masked_input(relayed[0], values))

    total = masking.Accumulator(Ring.holding((neighbours + 1) * params.magnitude), np.zeros(update.size, np.uint32))
    lost = KeyPair.generate(os.urandom)
    threshold = len(clients) // 2 + 1
    dealt = shamir.split(lost.seed, threshold, range(1, len(clients) + 1), os.urandom)
    publics = [KeyPair.generate(os.urandom).public for _ in range(neighbours)]

    def remove_dropout() -> None:
        rebuilt = KeyPair(shamir.rebuild(dict(list(dealt.items())[:threshold])))
        for number, public in enumerate(publics, start=1):
            key = masking.pairwise_key(rebuilt.agree(public), bytes(32), 0, number)
            total.apply(masking.MaskKey(-1, key))

    return Side(
        {
            "AdvertiseKeys": lambda: copy.copy(fresh).advertise_keys(),
            "ShareKeys": lambda: copy.copy(advertised).share_keys(roster[0]),
            "MaskedInput": lambda: copy.copy(shared).masked_input(relayed[0], values),
            SERVER: remove_dropout,
        },
        lambda: sent,
    )


def flower(update: NDArray[np.float32], neighbours: int) -> Side:
    """Flower's SecAgg+ client and server functions for the same work."""
    from flwr.common import ndarray_to_bytes
    from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
    from flwr.common.secure_aggregation.crypto import symmetric_encryption as encryption
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
    from flwr.common.secure_aggregation.quantization import quantize
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
    from flwr.supercore.primitives import asymmetric

    holders = neighbours + 1
    threshold = holders // 2 + 1
    mod_range = 1 << 32
    mine, mine_too = asymmetric.generate_key_pairs(), asymmetric.generate_key_pairs()
    peers = [asymmetric.generate_key_pairs()[1] for _ in range(neighbours)]
    seed = os.urandom(32)
    secret = asymmetric.private_key_to_bytes(mine[0])
    boxes: list[tuple[bytes, bytes]] = []
    state: dict[str, Any] = {}

    def share_keys() -> None:
        boxes.clear()
        of_seed = create_shares(seed, threshold, holders)
        of_key = create_shares(secret, threshold, holders)
        for number, public in enumerate(peers):
            shared = encryption.generate_shared_key(mine_too[0], public)
            plain = share_keys_plaintext_concat(0, number + 1, of_seed[number], of_key[number])
            boxes.append((shared, encryption.encrypt(shared, plain)))

    def masked_input() -> None:
        for shared, box in boxes:
            encryption.decrypt(shared, box)
        vectors = arithmetic.factor_combine(1, quantize(arithmetic.parameters_multiply([update], 1.0), 4.0, LEVELS))
        shapes = [vector.shape for vector in vectors]
        vectors = arithmetic.parameters_addition(vectors, pseudo_rand_gen(seed, mod_range, shapes))
        for public in peers:
            stream = pseudo_rand_gen(encryption.generate_shared_key(mine[0], public), mod_range, shapes)
            vectors = arithmetic.parameters_subtraction(vectors, stream)
        state["sent"] = [ndarray_to_bytes(vector) for vector in arithmetic.parameters_mod(vectors, mod_range)]
        state["shapes"] = shapes

    share_keys()
    masked_input()
    dealt = create_shares(secret, threshold, holders)
    aggregate = [np.zeros(shape, np.int64) for shape in state["shapes"]]

    def remove_dropout() -> None:
        private = asymmetric.bytes_to_private_key(combine_shares(dealt[:threshold]))
        for public in peers:
            stream = pseudo_rand_gen(encryption.generate_shared_key(private, public), mod_range, state["shapes"])
            aggregate[:] = arithmetic.parameters_addition(aggregate, stream)

    return Side(
        {
            "AdvertiseKeys": lambda: (asymmetric.generate_key_pairs(), asymmetric.generate_key_pairs()),
            "ShareKeys": share_keys,
            "MaskedInput": masked_input,
            SERVER: remove_dropout,
        },
        lambda: sum(map(len, state["sent"])),
    )


Milliseconds = dict[str, dict[str, float]]
"""Side to stage to time."""


def side_by_side(sides: dict[str, Side], repeats: int) -> dict[str, Milliseconds]:
    """Median and fastest milliseconds of every stage of every side, repetitions alternating."""
    seconds: dict[str, dict[str, list[float]]] = {
        name: {stage: [] for stage in side.stages} for name, side in sides.items()
    }
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            for stage, work in side.stages.items():
                start = time.perf_counter()
                work()
                if repeat:  # the first round warms up
                    seconds[name][stage].append(time.perf_counter() - start)
    return {"median": summary(seconds, statistics.median), "fastest": summary(seconds, min)}


def summary(seconds: dict[str, dict[str, list[float]]], of: Callable[[list[float]], float]) -> Milliseconds:
    """One number for every stage of every side, and for all that a client does."""
    summed = {name: {stage: 1e3 * of(times) for stage, times in stages.items()} for name, stages in seconds.items()}
    for stages in summed.values():
        stages["client total"] = sum(value for stage, value in stages.items() if stage != SERVER)
    return summed


def ratios(milliseconds: Milliseconds) -> dict[str, float]:
    """Stage to how many times as long Flower takes; empty without Flower."""
    if "flower" not in milliseconds:
        return {}
    return {stage: milliseconds["flower"][stage] / mine for stage, mine in milliseconds["secagg"].items()}


def compare(coordinates: int, neighbours: int, repeats: int) -> dict[str, Any]:
    """One size: milliseconds, ratios, and bytes a coordinate."""
    update = np.random.default_rng(0).normal(size=coordinates).astype(np.float32) * np.float32(0.1)
    sides = {"secagg": ours(update, neighbours)}
    try:
        sides["flower"] = flower(update, neighbours)
    except ImportError:
        print("Flower is not installed (make bench installs it): this project alone", file=sys.stderr)  # noqa: T201
    measured = side_by_side(sides, repeats)
    return {
        "coordinates": coordinates,
        "neighbours": neighbours,
        "milliseconds": measured,
        "ratio": {kind: ratios(milliseconds) for kind, milliseconds in measured.items()},
        "upload_bytes_per_coordinate": {name: side.upload() / coordinates for name, side in sides.items()},
    }


class CountingStream(Stream):
    """A stream that counts the bytes it generates."""

    generated = 0

    def take(self, count: int) -> Words:
        """As ``Stream``."""
        words = super().take(count)
        CountingStream.generated += words.nbytes
        return words


def by_density(coordinates: int, clients: int = 12) -> list[dict[str, float]]:
    """Upload and mask bytes of one pruned client among dense ones, by the share of units that it keeps."""
    width = int((coordinates / 2) ** 0.5)
    first, second = tuple(range(width)), tuple(range(width, 2 * width))
    layout = secagg.Layout(
        (
            secagg.Tensor("one.weight", (width, width), unit_axes={0: first}),
            secagg.Tensor("two.weight", (width, width), unit_axes={0: second, 1: first}),
        ),
        {"one": width, "two": width},
    )
    rows: list[dict[str, float]] = []
    for keep in (1.0, 0.75, 0.5, 0.25):
        units = np.tile(np.arange(width) < round(keep * width), 2)
        mask = declaration.of_units(layout, units, secagg.Provenance.DEVICE) if keep < 1 else declaration.FULL
        density = float(declaration.expand(layout, mask).mean())
        update = {tensor.name: np.full(tensor.shape, 0.1, np.float32) for tensor in layout.tensors}
        session = secagg.Session(
            id=os.urandom(16), params=secagg.Params(max_dropouts=3), layout=layout, mode="mask-indexed"
        )
        server = secagg.Server(session)
        all_clients = [secagg.Client(number, session) for number in range(clients)]
        for client in all_clients:
            server.receive(client.advertise_keys())
        roster = server.close_round()
        shares = 0
        for client in all_clients:
            sent = client.share_keys(roster[client.id], mask if client.id == 0 else None)
            shares = len(sent) if client.id == 0 else shares
            server.receive(sent)
        relayed = server.close_round()
        CountingStream.generated = 0
        with mock.patch.object(masking, "Stream", CountingStream):
            vector = len(all_clients[0].masked_input(relayed[0], update))
            checksum_bytes = 4 * masking.CHECKS * layout.size
        rows.append(
            {
                "density": density,
                "upload_bytes": vector,
                "share_bytes": shares,
                "mask_bytes": CountingStream.generated - checksum_bytes,
            }
        )
    full = rows[0]
    for row in rows:
        row["upload_limit"] = 1.05 * row["density"] * full["upload_bytes"] + 8 * 1024
        row["mask_share"] = row["mask_bytes"] / full["mask_bytes"]
    return rows


def show(results: dict[str, Any]) -> None:
    """The results as text."""
    lines = []
    for result in results["sizes"]:
        for kind, milliseconds in result["milliseconds"].items():
            lines.append(f"\nd = {result['coordinates']:,}, k = {result['neighbours']}: {kind} milliseconds")
            lines.append(f"  {'stage':28}" + "".join(f"{name:>12}" for name in milliseconds) + f"{'ratio':>9}")
            for stage in milliseconds["secagg"]:
                cells = "".join(f"{stages[stage]:12.2f}" for stages in milliseconds.values())
                ratio = result["ratio"][kind].get(stage)
                lines.append(f"  {stage:28}{cells}" + (f"{ratio:8.1f}x" if ratio else ""))
        uploads = ", ".join(f"{name} {value:.2f}" for name, value in result["upload_bytes_per_coordinate"].items())
        lines.append(f"  upload, bytes a coordinate: {uploads}")
    lines.append("\nmask-indexed, one pruned client among dense ones")
    lines.append(f"  {'density':>8}{'upload':>12}{'limit':>12}{'mask bytes':>14}{'of full':>9}{'shares':>9}")
    lines.extend(
        f"  {row['density']:8.3f}{row['upload_bytes']:12,}{row['upload_limit']:12,.0f}{row['mask_bytes']:14,}"
        f"{row['mask_share']:9.3f}{row['share_bytes']:9,}"
        for row in results["densities"]
    )
    print("\n".join(lines))  # noqa: T201 - a script that prints


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coordinates", type=int, default=1_000_000)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    results = {
        "sizes": [compare(arguments.coordinates, k, arguments.repeats) for k in arguments.neighbours],
        "densities": by_density(arguments.coordinates),
    }
    if arguments.format == "json":
        print(json.dumps(results, indent=2))  # noqa: T201 - a script that prints
    else:
        show(results)


if __name__ == "__main__":
    main()
