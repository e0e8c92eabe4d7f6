"""Flower's SecAgg+ functions, called in the order in which its own client module and workflow call them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from protocols.benchmark.stages import DROPOUT, Side
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MODULUS = 1 << 32


def version() -> str:
    """Flower's version.

    Raises:
        ParameterError: It is not installed.
    """
    from importlib import metadata

    try:
        return metadata.version("flwr")
    except metadata.PackageNotFoundError:
        raise ParameterError("--against flower needs Flower: pip install 'secagg[flower]'") from None


def functions(update: NDArray[np.float32], neighbours: int, levels: int) -> Side:
    """What one client and the server do for one vector.

    Args:
        update: The vector.
        neighbours: Of the client.
        levels: Steps that values are divided into.
    """
    from flwr.supercore.primitives import asymmetric

    client = _Client(update, neighbours, levels)
    client.share_keys()
    client.masked_input()
    return Side(
        {
            "AdvertiseKeys": lambda: (asymmetric.generate_key_pairs(), asymmetric.generate_key_pairs()),
            "ShareKeys": client.share_keys,
            "MaskedInput": client.masked_input,
            DROPOUT: client.dropping_out(),
        },
        lambda: {"MaskedInput": sum(map(len, client.sent))},
    )


class _Client:
    """One client, with the public keys of its neighbours."""

    def __init__(self, update: NDArray[np.float32], neighbours: int, levels: int) -> None:
        from flwr.supercore.primitives import asymmetric

        self._update, self._levels = update, levels
        self._masking, self._transport = asymmetric.generate_key_pairs(), asymmetric.generate_key_pairs()
        self._secret = asymmetric.private_key_to_bytes(self._masking[0])
        self._peers = [asymmetric.generate_key_pairs()[1] for _ in range(neighbours)]
        self._seed = os.urandom(32)
        self._boxes: list[tuple[bytes, bytes]] = []
        self._holders, self._threshold = neighbours + 1, (neighbours + 1) // 2 + 1
        self._shapes: list[tuple[int, ...]] = []
        self.sent: list[bytes] = []

    def share_keys(self) -> None:
        """Shares of both secrets, sealed."""
        from flwr.common.secure_aggregation.crypto.shamir import create_shares
        from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
        from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat

        self._boxes.clear()
        of_seed, of_key = (create_shares(one, self._threshold, self._holders) for one in (self._seed, self._secret))
        for number, public in enumerate(self._peers):
            shared = generate_shared_key(self._transport[0], public)
            plain = share_keys_plaintext_concat(0, number + 1, of_seed[number], of_key[number])
            self._boxes.append((shared, encrypt(shared, plain)))

    def masked_input(self) -> None:
        """The masked vector; shares of others are opened."""
        from flwr.common import ndarray_to_bytes
        from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
        from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, generate_shared_key
        from flwr.common.secure_aggregation.quantization import quantize
        from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

        for shared, box in self._boxes:
            decrypt(shared, box)
        scaled = arithmetic.parameters_multiply([self._update], 1.0)
        vectors = arithmetic.factor_combine(1, quantize(scaled, 4.0, self._levels))
        self._shapes = [vector.shape for vector in vectors]
        vectors = arithmetic.parameters_addition(vectors, pseudo_rand_gen(self._seed, MODULUS, self._shapes))
        for public in self._peers:
            agreed = generate_shared_key(self._masking[0], public)
            vectors = arithmetic.parameters_subtraction(vectors, pseudo_rand_gen(agreed, MODULUS, self._shapes))
        self.sent = [ndarray_to_bytes(vector) for vector in arithmetic.parameters_mod(vectors, MODULUS)]

    def dropping_out(self) -> Callable[[], None]:
        """What the server does once this client is gone."""
        from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
        from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
        from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition
        from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
        from flwr.supercore.primitives.asymmetric import bytes_to_private_key

        dealt = create_shares(self._secret, self._threshold, self._holders)
        aggregate = [np.zeros(shape, np.int64) for shape in self._shapes]

        def once() -> None:
            private = bytes_to_private_key(combine_shares(dealt[: self._threshold]))
            for public in self._peers:
                stream = pseudo_rand_gen(generate_shared_key(private, public), MODULUS, self._shapes)
                aggregate[:] = parameters_addition(aggregate, stream)

        return once
