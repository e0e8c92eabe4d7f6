"""The hashes that bind secrets to what their owner saw: anything else, another hash."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from secagg import transcript
from secagg.declaration import FULL, Declaration, Provenance
from secagg.layout import Layout, Tensor
from secagg.messages import Member, Participant
from secagg.params import Params
from secagg.session import Session

SESSION = Session(id=bytes(16), params=Params(), layout=Layout((Tensor("w", (4,)),)), mode="uniform")
MEMBERS = tuple(Member(number, bytes([number]) * 32, bytes([100 + number]) * 32) for number in range(3))
PARTICIPANTS = tuple(Participant(number, FULL, None) for number in range(3))
H1 = transcript.h1(SESSION, MEMBERS, 2, 2)


def test_h1_changes_with_everything_that_it_covers() -> None:
    changed_key = msgspec.structs.replace(MEMBERS[0], transport_key=bytes(32))
    hashes = {
        H1,
        transcript.h1(replace(SESSION, params=Params(min_cohort=2)), MEMBERS, 2, 2),
        transcript.h1(replace(SESSION, weighted=True), MEMBERS, 2, 2),
        transcript.h1(replace(SESSION, id=b"\x01" * 16), MEMBERS, 2, 2),
        transcript.h1(SESSION, MEMBERS[:2], 2, 2),
        transcript.h1(SESSION, (changed_key, *MEMBERS[1:]), 2, 2),
        transcript.h1(SESSION, MEMBERS, 4, 2),
        transcript.h1(SESSION, MEMBERS, 2, 3),
    }
    assert len(hashes) == 8
    assert transcript.h1(SESSION, MEMBERS, 2, 2) == H1


def test_the_graph_follows_from_the_session_and_everybody_s_keys() -> None:
    changed_key = msgspec.structs.replace(MEMBERS[0], masking_key=b"\xff" * 32)
    seeds = {
        transcript.graph_seed(SESSION, MEMBERS),
        transcript.graph_seed(replace(SESSION, id=b"\x01" * 16), MEMBERS),
        transcript.graph_seed(SESSION, MEMBERS[:2]),
        transcript.graph_seed(SESSION, (changed_key, *MEMBERS[1:])),
    }
    assert len(seeds) == 4
    assert H1 not in seeds


def test_h2_changes_with_who_takes_part_what_they_declare_and_what_they_weigh() -> None:
    first, *rest = PARTICIPANTS
    hashes = {
        transcript.h2(H1, PARTICIPANTS),
        transcript.h2(bytes(32), PARTICIPANTS),
        transcript.h2(H1, rest),
        transcript.h2(H1, (*rest, first)),
        transcript.h2(H1, (Participant(0, Declaration("bitmap", b"\xf0"), None), *rest)),
        transcript.h2(H1, (Participant(0, Declaration("full", b"", Provenance.DATA), None), *rest)),
        transcript.h2(H1, (Participant(0, FULL, 0), *rest)),
        transcript.h2(H1, (Participant(0, FULL, 1), *rest)),
    }
    assert len(hashes) == 8


def test_a_share_commitment_binds_salt_both_ids_and_the_share() -> None:
    commitments = {
        transcript.share_commitment(b"salt", 1, 2, b"share"),
        transcript.share_commitment(b"tlas", 1, 2, b"share"),
        transcript.share_commitment(b"salt", 2, 1, b"share"),
        transcript.share_commitment(b"salt", 1, 3, b"share"),
        transcript.share_commitment(b"salt", 1, 2, b"erahs"),
        transcript.share_commitment(b"sal", 1, 2, b"share"),
    }
    assert len(commitments) == 6


def test_a_seed_commitment_binds_transcript_owner_and_seed() -> None:
    commitments = {
        transcript.seed_commitment(H1, 1, b"seed"),
        transcript.seed_commitment(bytes(32), 1, b"seed"),
        transcript.seed_commitment(H1, 2, b"seed"),
        transcript.seed_commitment(H1, 1, b"dees"),
    }
    assert len(commitments) == 4


def test_a_share_never_commits_like_a_seed() -> None:
    assert transcript.share_commitment(H1, 1, 2, b"x") != transcript.seed_commitment(
        H1, 1, transcript.id_bytes(2) + b"x"
    )


def test_an_id_is_eight_big_endian_bytes() -> None:
    assert transcript.id_bytes(0x0102) == bytes(6) + b"\x01\x02"
    assert transcript.id_bytes(2**63 - 1) == b"\x7f" + b"\xff" * 7
