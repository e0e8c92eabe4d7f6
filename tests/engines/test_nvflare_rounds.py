"""Rounds over Collab's proxies come to the means that ``simulate`` has, with whoever is left; no simulator is started.

The proxies here call the client objects of this process, as NVFlare's do those of other machines: by name of a site and
a method, with keyword arguments, and with a ``CollabCallError`` where that fails.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("nvflare.collab")

from nvflare.collab import CollabCallError, collab
from nvflare.collab.api.context import get_call_context, set_call_context

from protocols.engines.nvflare import SecureClient, Settings, secure_round
from secagg import Identity, Params, messages, simulate
from secagg.driver import Contribution
from secagg.errors import AbortError, DifferencingError, ParameterError, SecAggError, TooFewClientsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from protocols.engines.nvflare import Outcome

    Arrays = dict[str, NDArray[Any]]

SITES = [f"site-{number}" for number in range(1, 7)]
PARAMS = Params(min_cohort=2, max_dropouts=2, max_weight=100, levels=2**30)
SETTINGS = Settings(params=PARAMS, weighted=True)
IDENTITIES = {site: Identity(site.encode().ljust(32)) for site in SITES}
ACTIVE = Settings(
    params=replace(PARAMS, adversary="active", max_dropouts=1),
    weighted=True,
    pinned={site: identity.public for site, identity in IDENTITIES.items()},
)
STAGES = ("AdvertiseKeys", "ShareKeys", "MaskedInput", "Unmask")
LAST = {"AdvertiseKeys": None, "ShareKeys": "AdvertiseKeys", "MaskedInput": "ShareKeys", "Unmask": "MaskedInput"}
"""Stage to the one before: the last that a client completes which fails there."""
STAGE_OF = {"Roster": "ShareKeys", "RelayedShares": "MaskedInput", "ConsistencyRequest": "ConsistencyCheck"}


def number_of(site: str) -> int:
    return int(site.removeprefix("site-"))


def model() -> Arrays:
    generator = np.random.default_rng(3)
    return {
        "weight": generator.normal(size=(4, 3)).astype(np.float32),
        "bias": generator.normal(size=4),
        "steps": np.array([17]),
    }


def update_of(site: str) -> Arrays:
    generator = np.random.default_rng(number_of(site))
    return {"weight": generator.normal(size=(4, 3)).astype(np.float32) / 4, "bias": generator.normal(size=4) / 4}


class Site(SecureClient):
    settings = SETTINGS

    def train(self, model: Mapping[str, NDArray[Any]], round_number: int) -> Contribution:
        assert round_number >= 0
        assert set(model) == {"weight", "bias", "steps"}
        return Contribution(update_of(collab.site_name), weight=number_of(collab.site_name))


class ActiveSite(Site):
    settings = ACTIVE

    def identity(self) -> Identity:
        return IDENTITIES[collab.site_name]


class Proxy:
    """What NVFlare makes of a client object for everybody else."""

    def __init__(self, name: str, target: SecureClient, federation: Federation) -> None:
        self.name, self._target, self._federation = name, target, federation

    def __call__(self, *, timeout: float = 60.0, expect_result: bool = True, optional: bool = False) -> Proxy:
        assert timeout > 0
        assert optional is not expect_result
        self._expects = expect_result
        return self

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            kind = type(messages.decode(kwargs["message"])).__name__ if "message" in kwargs else ""
            stage = STAGE_OF.get(kind, "Unmask") if kind else "AdvertiseKeys"
            fault = None if method == "secagg_abandon" else self._federation.fault(stage, self.name)
            if isinstance(fault, Exception):
                raise CollabCallError(self.name, method, f"{type(fault).__name__}: {fault}")
            if fault is not None:
                return fault
            with self._federation.context(self.name):
                try:
                    sent = getattr(self._target, method)(*copy.deepcopy(args), **copy.deepcopy(kwargs))
                except SecAggError as error:
                    assert self._expects
                    raise CollabCallError(self.name, method, f"{type(error).__name__}: {error}") from None
            self._federation.sent.append((stage, self.name, sent))
            return sent

        return call


class Federation:
    """Sites in this process, and the server's view of them."""

    def __init__(self, kind: type[SecureClient] = Site, fault: Any = lambda _stage, _site: None) -> None:
        self.fault = fault
        self.sent: list[tuple[str, str, Any]] = []
        self.targets = {site: kind() for site in SITES}
        self.proxies = [Proxy(site, target, self) for site, target in self.targets.items()]

    def context(self, name: str) -> Any:
        return _Here(SimpleNamespace(clients=list(self.proxies), app=SimpleNamespace(name=name, logger=_Silent())))

    def round(self, settings: Settings = SETTINGS, start: Arrays | None = None, sites: list[str] = SITES) -> Outcome:
        with self.context("server"):
            asked = [proxy for proxy in self.proxies if proxy.name in sites]
            return secure_round(asked, start or model(), settings, timeout=1, training_timeout=1)


class _Silent:
    def exception(self, _text: str) -> None:
        """What NVFlare would write into the site's log."""


class _Here:
    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._before = get_call_context()
        set_call_context(self._context)

    def __exit__(self, *_: object) -> None:
        set_call_context(self._before)


@pytest.fixture(autouse=True)
def no_context_is_left() -> Iterator[None]:
    yield
    assert get_call_context() is None


def at(stage: str, site: str, what: Exception | bytes) -> Any:
    return lambda at_stage, at_site: what if (at_stage, at_site) == (stage, site) else None


def expected(sites: list[str] = SITES, dropouts: dict[str, str] | None = None, **settings: Any) -> Arrays:
    """The model after the mean that ``simulate`` has."""
    updates = {site: update_of(site) for site in sites}
    weights = {site: number_of(site) for site in sites}
    found = simulate(updates, weights=weights, params=PARAMS, dropouts=dropouts or {}, **settings)
    start = model()
    return {**found.apply({name: start[name] for name in ("weight", "bias")}), "steps": start["steps"]}


def assert_same(found: Arrays, wanted: Arrays) -> None:
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_a_round_ends_with_the_model_that_simulate_ends_with_bit_for_bit() -> None:
    outcome = Federation().round()
    assert_same(outcome.model, expected())
    assert outcome.failures == {stage: {} for stage in STAGES}
    assert outcome.verdict.startswith("deployed, a semi-honest server would learn")


def test_an_active_server_takes_one_more_stage() -> None:
    outcome = Federation(ActiveSite).round(ACTIVE)
    assert_same(outcome.model, expected())
    assert list(outcome.failures) == ["AdvertiseKeys", "ShareKeys", "MaskedInput", "ConsistencyCheck", "Unmask"]


@pytest.mark.parametrize("what", [RuntimeError("1234"), TimeoutError("late"), b"nonsense"], ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_the_mean_is_over_whoever_is_left_and_the_next_round_is_whole_again(
    stage: str, what: Exception | bytes
) -> None:
    federation = Federation(fault=at(stage, "site-3", what))
    outcome = federation.round()
    others = [site for site in SITES if site != "site-3"]
    last = LAST[stage]
    assert_same(outcome.model, expected(others if last is None else SITES, {"site-3": last} if last else None))
    assert {name: set(sites) for name, sites in outcome.failures.items() if sites} == {stage: {"site-3"}}
    federation.fault = lambda _stage, _site: None
    again = federation.round(start=outcome.model)
    assert len(again.aggregate.survivors) == len(SITES)


def test_what_training_raises_stays_on_the_site() -> None:
    class Broken(Site):
        def train(self, model: Mapping[str, NDArray[Any]], round_number: int) -> Contribution:
            if collab.site_name == "site-2":
                raise ValueError("patient 1234")
            return super().train(model, round_number)

    outcome = Federation(Broken).round()
    reason = outcome.failures["AdvertiseKeys"]["site-2"]
    assert "ValueError in train" in reason
    assert "1234" not in reason
    assert len(outcome.aggregate.survivors) == len(SITES) - 1


def test_an_update_that_cannot_be_encoded_is_a_dropout_that_names_the_setting() -> None:
    class Wild(Site):
        def train(self, model: Mapping[str, NDArray[Any]], round_number: int) -> Contribution:
            brought = super().train(model, round_number)
            factor = 1000 if collab.site_name == "site-5" else 1
            return replace(brought, update={name: factor * values for name, values in brought.update.items()})  # type: ignore[operator]

    outcome = Federation(Wild).round()
    assert "value_range" in outcome.failures["MaskedInput"]["site-5"]
    assert_same(outcome.model, expected(dropouts={"site-5": "ShareKeys"}))


def test_declared_masks_are_averaged_over_those_who_hold_a_coordinate() -> None:
    held = np.arange(16) > 2

    class Pruned(Site):
        settings = Settings(params=PARAMS, mode="mask-indexed")

        def train(self, model: Mapping[str, NDArray[Any]], round_number: int) -> Contribution:
            mask = held if number_of(collab.site_name) <= 2 else None
            return replace(super().train(model, round_number), mask=mask, weight=None)

    outcome = Federation(Pruned).round(Pruned.settings)
    masks = {}
    for site in SITES:
        vector = held if number_of(site) <= 2 else np.ones(16, bool)
        masks[site] = {"weight": vector[:12].reshape(4, 3), "bias": vector[12:]}
    updates = {site: update_of(site) for site in SITES}
    start = {name: values for name, values in model().items() if name != "steps"}
    wanted = simulate(updates, masks, params=PARAMS, mode="mask-indexed").apply(start)
    assert_same(outcome.model, {**wanted, "steps": model()["steps"]})


def test_a_site_that_is_not_asked_keeps_its_number() -> None:
    some = ["site-2", "site-3", "site-5", "site-6"]
    outcome = Federation().round(sites=some)
    assert outcome.aggregate.survivors == (1, 2, 4, 5)
    assert_same(outcome.model, expected(some))


def test_a_site_that_speaks_for_another_is_refused() -> None:
    federation = Federation()
    said: dict[str, bytes] = {}

    def fault(stage: str, site: str) -> bytes | None:
        if stage == "ShareKeys" and site == "site-1":
            said["keys"] = next(
                sent for one, name, sent in federation.sent if (one, name) == ("AdvertiseKeys", "site-2")
            )
            return said["keys"]
        return None

    federation.fault = fault
    outcome = federation.round()
    assert "another client's name" in outcome.failures["ShareKeys"]["site-1"]
    assert said


def test_too_few_sites_end_the_round_with_the_reasons_and_the_same_model_may_be_tried_again() -> None:
    federation = Federation(
        fault=lambda stage, site: OSError("gone") if stage == "MaskedInput" and site > "site-3" else None
    )
    with pytest.raises(TooFewClientsError) as caught:
        federation.round()
    assert "site-4" in caught.value.__notes__[0]
    assert "gone" in caught.value.__notes__[0]
    federation.fault = lambda _stage, _site: None
    assert_same(federation.round().model, expected())


def test_when_shares_were_asked_for_no_site_sends_a_second_vector_for_that_model() -> None:
    federation = Federation(
        fault=lambda stage, site: OSError("gone") if stage == "Unmask" and site > "site-2" else None
    )
    with pytest.raises(AbortError):
        federation.round()
    federation.fault = lambda _stage, _site: None
    with pytest.raises(AbortError) as caught:
        federation.round()
    assert "start from a new model" in caught.value.__notes__[0]
    moved = {**model(), "bias": model()["bias"] + 1}
    assert len(federation.round(start=moved).aggregate.survivors) == len(SITES)


def test_an_active_server_cannot_say_that_nothing_came_of_a_session() -> None:
    federation = Federation(
        ActiveSite, fault=lambda stage, _site: OSError("gone") if stage == "ConsistencyCheck" else None
    )
    with pytest.raises(AbortError):
        federation.round(ACTIVE)
    federation.fault = lambda _stage, _site: None
    with pytest.raises(AbortError) as caught:
        federation.round(ACTIVE)
    assert DifferencingError.__name__ in caught.value.__notes__[0]


def test_sites_that_were_handed_different_models_come_to_no_mean() -> None:
    class Misled(ActiveSite):
        def secagg_begin(self, session: bytes, round_number: int, model: Any) -> bytes:
            if collab.site_name == "site-1":
                model["bias"] += 1
            return super().secagg_begin(session, round_number, model)

    outcome = Federation(Misled).round(ACTIVE)
    assert "SignatureError" in outcome.failures["AdvertiseKeys"]["site-1"]
    assert 0 not in outcome.aggregate.survivors


def test_no_secret_is_kept_when_a_round_is_over() -> None:
    federation = Federation(fault=at("MaskedInput", "site-3", OSError("gone")))
    federation.round()
    for target in federation.targets.values():
        assert target._client is None
        assert not hasattr(target, "_update")


def test_settings_and_pins_belong_together() -> None:
    with pytest.raises(ParameterError, match="pinned"):
        Settings(params=ACTIVE.params)
    with pytest.raises(ParameterError, match="pinned"):
        Settings(pinned=ACTIVE.pinned)
