"""What the server does with revealed shares: check them, rebuild secrets, and find every mask still in the sum."""

from __future__ import annotations

import hmac
from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from secagg import field, masking, shamir
from secagg.errors import ShareError, TooFewClientsError, UnexpectedMessageError
from secagg.keys import KeyPair
from secagg.lifting import MaskLeft
from secagg.messages import UnmaskAndReveal
from secagg.transcript import seed_commitment, share_commitment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from secagg.graph import Graph
    from secagg.messages import Member, ShareKeys, Unmask
    from secagg.release import Plan


def check_revealed(
    message: Unmask, dealers: Sequence[int], shared: Mapping[int, ShareKeys], survivors: Collection[int]
) -> None:
    """Refuses shares that are not the ones asked for.

    Args:
        message: What a holder revealed.
        dealers: Whose shares it holds, ascending, itself among them.
        shared: Client to what it sent in ShareKeys.
        survivors: Of whom the self seed is asked for; of the others the masking key.

    Raises:
        ShareError: Not one share of each dealer, or one that contradicts its commitment.
        DecodingError: No field element.
    """
    if [share.dealer for share in message.shares] != list(dealers):
        raise ShareError("not exactly one share for each neighbour")
    alive = frozenset(survivors)
    for revealed in message.shares:
        field.decode(revealed.share)
        if revealed.dealer == message.sender:
            continue  # a dealer's own share carries no commitment; what it rebuilds does
        dealt = shared[revealed.dealer].shares
        sealed = dealt[bisect_left(dealt, message.sender, key=lambda share: share.holder)]
        expected = sealed.self_seed_commitment if revealed.dealer in alive else sealed.masking_key_commitment
        actual = share_commitment(revealed.salt, revealed.dealer, message.sender, revealed.share)
        if not hmac.compare_digest(actual, expected):
            raise ShareError("a revealed share contradicts its dealer's commitment")


def check_seeds(message: Unmask, plan: Plan, survivors: Sequence[int]) -> None:
    """Refuses seeds of noise that were not asked for, and an answer without those that were.

    Args:
        message: What a survivor revealed.
        plan: Says which parts of its noise stay.
        survivors: Clients in the sums.

    Raises:
        UnexpectedMessageError: Not a seed for each part that comes off.
    """
    kept = plan.parts_kept(survivors)
    revealed = message.noise_seeds if isinstance(message, UnmaskAndReveal) else None
    expected = None if kept is None or plan.shares is None else len(plan.shares.levels) - kept
    if expected != (None if revealed is None else len(revealed)):
        raise UnexpectedMessageError("not exactly a seed for each part of the noise that comes off")


def surplus(plan: Plan, survivors: Sequence[int], answers: Mapping[int, Unmask]) -> NDArray[np.int64]:
    """The noise that comes off the sums, (plan.length,) int64: that of the parts whose seeds survivors revealed."""
    total, kept = np.zeros(plan.length, np.int64), plan.parts_kept(survivors)
    if kept is None or plan.shares is None:
        return total
    for client, answer in answers.items():
        if isinstance(answer, UnmaskAndReveal):
            sent = plan.places(client)
            total[sent] += plan.shares.drawn(sent, answer.noise_seeds, kept)
    return total


def rebuild(
    answers: Mapping[int, Unmask], points: Mapping[int, int], threshold: int, dealers: Sequence[int]
) -> dict[int, bytes]:
    """The secret of each dealer that its holders revealed shares of: of one kind, as ``Unmask`` has no other.

    Args:
        answers: Holder to what it revealed, checked.
        points: Holder to the point of its shares.
        threshold: Shares that rebuild a secret.
        dealers: Whose secrets to rebuild.

    Raises:
        TooFewClientsError: Fewer shares of a secret than the threshold.
        ShareError: Shares that rebuild no secret; ``culprits`` names their dealer.
    """
    shares: dict[int, dict[int, int]] = {client: {} for client in dealers}
    for holder in sorted(answers):
        for revealed in answers[holder].shares:
            shares[revealed.dealer][points[holder]] = field.decode(revealed.share)
    secrets = {}
    for client, known in shares.items():
        if len(known) < threshold:
            raise TooFewClientsError(
                f"{len(known)} shares of a client's secret < {threshold} (share_threshold): "
                "wait for more clients, or lower share_threshold"
            )
        # A dealer's own share carries no commitment, so it is used only where the others do not suffice. Among
        # clients that all share with each other, one set of points without one of them serves every dealer.
        chosen = dict(sorted(known.items())[: threshold + 1])
        spare = None if len(chosen) == threshold else points[client] if points[client] in chosen else max(chosen)
        if spare is not None:
            del chosen[spare]
        try:
            secrets[client] = shamir.rebuild(chosen, spare)
        except ShareError as error:
            raise ShareError(str(error), culprits=[client]) from None
    return secrets


def check_rebuilt(seed: bytes, member: Member, shared: ShareKeys, h1: bytes, *, survived: bool) -> None:
    """Refuses a secret that is not the one that its dealer advertised.

    Args:
        seed: Self seed of a survivor, seed of the masking key of a dropout.
        member: What the dealer advertised.
        shared: What it sent in ShareKeys.
        h1: The transcript of the keys.
        survived: Which of the two it is.

    Raises:
        ShareError: It is another; ``culprits`` names the dealer.
    """
    if survived:
        expected, actual = shared.seed_commitment, seed_commitment(h1, member.id, seed)
    else:
        expected, actual = member.masking_key, KeyPair(seed).public
    if not hmac.compare_digest(actual, expected):
        raise ShareError("shares rebuild another secret than their dealer advertised", culprits=[member.id])


def masks_left(
    plan: Plan,
    graph: Graph,
    h2: bytes,
    *,
    survivors: Collection[int],
    keys: Mapping[int, bytes],
    seeds: Mapping[int, bytes],
) -> Iterator[MaskLeft]:
    """Every stream that is still in the sum, with the sign that takes it off.

    Args:
        plan: Of the session.
        graph: Who masks with whom.
        h2: The transcript that everybody masked under.
        survivors: The clients whose vectors are in the sum.
        keys: Client to its public masking key.
        seeds: Survivor to its self seed, dropout to the seed of its masking key.
    """
    alive = frozenset(survivors)
    dropouts = {client: KeyPair(seed) for client, seed in seeds.items() if client not in alive}

    def between(client: int, dropout: int) -> bytes:
        return masking.pairwise_key(dropouts[dropout].agree(keys[client]), h2, client, dropout)

    alike = plan.session.mode == "uniform"
    for client in survivors:
        neighbours = graph.neighbours(client).intersection(plan.clients)
        for term in masking.terms(client, neighbours):
            if term.peer is None:
                key = partial(masking.self_key, seeds[client], h2)
                yield MaskLeft(-term.sign, key, () if alike else (client,))
            elif term.peer not in alive:
                key = partial(between, client, term.peer)
                yield MaskLeft(-term.sign, key, () if alike else (client, term.peer))
