from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from protocols.aggregators import Uniform
from protocols.baselines.submodels import RandomDropout
from protocols.clip import Clip, ClipSettings
from protocols.randomness import generator, number, session_seed
from protocols.submodels import SubmodelSettings

if TYPE_CHECKING:
    from inspect import BoundArguments

    from protocols.federation import Federation

streams = st.tuples(st.integers(0, 5), st.sampled_from(["cohort", "units"]), st.lists(st.integers(0, 3), max_size=3))


@given(streams, streams)
def test_every_purpose_and_every_list_of_numbers_has_a_stream_of_its_own(
    one: tuple[int, str, list[int]], other: tuple[int, str, list[int]]
) -> None:
    first, second = (generator(seed, purpose, *numbers).integers(1 << 62) for seed, purpose, numbers in (one, other))
    assert (first == second) == (one == other)  # also where one list of numbers is the other and zeros


def test_a_stream_repeats_and_so_does_its_number() -> None:
    assert generator(1, "cohort", 2).random() == generator(1, "cohort", 2).random()
    assert number(1, "cohort", 2) == number(1, "cohort", 2) != number(1, "cohort", 3)


def test_sessions_over_other_values_have_other_secrets(federation: Federation, sessions: list[BoundArguments]) -> None:
    """Else one vector less the other would be the difference of what two sessions hide."""
    uniform = Uniform(federation.units.layout)
    for budget in ("compute", "round"):
        RandomDropout(federation, uniform, SubmodelSettings(budget=budget))
        Clip(federation, uniform, ClipSettings(budget=budget))
    seeds = [session.arguments["seed"] for session in sessions]
    assert len(set(seeds)) == len(seeds) == 4


def test_a_seed_tells_everything_that_it_is_made_of_apart() -> None:
    assert session_seed("vote", 1, 23) != session_seed("vote", 12, 3) != session_seed("vote", "12", 3)
