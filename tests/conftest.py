"""Hypothesis settings for the whole suite.

By default every property is tried on few examples, the same ones in each run. ``SECAGG_EXAMPLES=2000 pytest
tests/properties`` tries that many fresh ones; a failure prints the blob that repeats it.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("SECAGG_EXAMPLES", "0"))

settings.register_profile(
    "secagg",
    deadline=None,  # a busy machine is not a failure
    database=None,  # a run leaves no files behind
    print_blob=True,
    derandomize=not EXAMPLES,
    max_examples=EXAMPLES or 15,
    # A session that aborts is discarded where a property speaks of sums; monkeypatches are undone by `context()`.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
settings.load_profile("secagg")
