"""The settings of differential privacy: what they default to, and what they refuse by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from secagg.errors import ParameterError
from secagg.params import Params
from secagg.privacy.settings import LARGEST_CLIP, SMALLEST_CLIP, Privacy
from secagg.ring import Ring


def test_noise_is_skellam_in_a_ring_of_24_bits_unless_said_otherwise() -> None:
    privacy = Privacy(clip=1.0, noise_multiplier=2.0)
    assert (privacy.mechanism, privacy.ring_bits, privacy.delta) == ("skellam", 24, 1e-5)
    assert privacy.ring == Ring(24)
    assert Params(privacy=privacy).ring(10**6) == Ring(24)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("clip", 0.0),
        ("clip", -1.0),
        ("clip", math.nan),
        ("clip", math.inf),
        ("clip", SMALLEST_CLIP / 2),
        ("clip", LARGEST_CLIP * 2),
        ("clip", "long"),
        ("clip", None),
        ("noise_multiplier", -1e-9),
        ("noise_multiplier", math.nan),
        ("noise_multiplier", math.inf),
        ("noise_multiplier", [1.0]),
        ("delta", 0.0),
        ("delta", 1.0),
        ("delta", math.nan),
        ("delta", "small"),
        ("mechanism", "laplace"),
        ("mechanism", None),
        ("ring_bits", 24.0),
        ("ring_bits", "24"),
    ],
)
def test_a_senseless_setting_is_refused_by_its_name(name: str, wrong: Any) -> None:
    with pytest.raises(ParameterError, match=f"^{name} "):
        Privacy(**{"clip": 1.0, "noise_multiplier": 1.0} | {name: wrong})


@pytest.mark.parametrize("bits", [8, 20, 48, True])
def test_a_ring_of_another_width_is_refused(bits: int) -> None:
    with pytest.raises(ParameterError, match="bits is not offered"):
        Privacy(clip=1.0, noise_multiplier=1.0, ring_bits=bits)


@pytest.mark.parametrize("clip", [SMALLEST_CLIP, LARGEST_CLIP])
@pytest.mark.parametrize("ring_bits", [16, 24, 32, 64])
def test_the_ends_of_what_clip_may_be_are_on_offer(clip: float, ring_bits: int) -> None:
    assert Privacy(clip=clip, noise_multiplier=0.0, ring_bits=ring_bits).clip == clip


def test_equal_settings_have_equal_digests_however_they_were_spelled() -> None:
    spellings = [
        Privacy(clip=1, noise_multiplier=2),
        Privacy(clip=1.0, noise_multiplier=2.0),
        Privacy(clip=np.float64(1.0), noise_multiplier=np.float64(2.0)),
    ]
    assert len({Params(privacy=one).digest for one in spellings}) == 1
    assert Params(privacy=Privacy(clip=1, noise_multiplier=3)).digest != Params(privacy=spellings[0]).digest
