"""Plain words: for threats, for settings, for figures, and for the terms that a report cannot do without."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from attacks.attack import Threat
from attacks.measurement import CONFIDENCE, Bound, Detection, Exposure, Recovery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attacks.deployment import Deployment
    from attacks.measurement import Measurement, Rate

SURE = f"{100 * CONFIDENCE:g} %"
"""The confidence of every interval, in words."""

TITLES: Mapping[Threat, str] = MappingProxyType(
    {
        Threat.ONE_UPLOAD: "One client's upload",
        Threat.THE_SUM: "The sum of one round",
        Threat.SEVERAL_ROUNDS: "The sums of several rounds",
        Threat.CRAFTED_MODELS: "Models made to leak",
        Threat.THE_MASKS: "Who holds which coordinates",
        Threat.THE_MODEL: "The final model",
        Threat.THE_TRANSCRIPT: "The protocol's messages",
    }
)

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "mode": "How updates travel",
        "clients": "Clients",
        "parameters": "Coordinates (numbers in the model)",
        "pruned": "Clients that train a part of the model",
        "steps": "Training steps in a round",
        "batch_size": "Examples in a step",
        "min_cohort": "Fewest clients in a released sum",
        "adversary": "Server that the settings guard against",
        "noise_multiplier": "Noise, as a multiple of the largest update",
        "clip": "Largest update (norm, clipped)",
    }
)
"""Name of a setting, as ``Deployment.to_json`` has it, to what it says."""

_MODES = {
    "plain": "in the clear, one by one",
    "uniform": "encrypted; only the sum of whole updates is opened",
    "mask-indexed": "encrypted; each coordinate is summed over the clients that declare to hold it",
}

GLOSSARY: Mapping[str, str] = MappingProxyType(
    {
        "Accountant": "The calculation that says, before any attack, how large ε is at most.",
        "AUC": "Area under the ROC curve: shown one case where the answer is yes and one where it is no, how often the "
        "attack ranks them rightly. 0.5 is a coin toss, 1 is always right.",
        "Ceiling": "The largest ε that so many trials could have shown. A bound near its ceiling says that more trials "
        "might show more; a small bound under a small ceiling is no sign of safety.",
        "Chance": "What the same attack comes to when it knows nothing of its victim. For pictures: the same guesses "
        "held against somebody else's examples.",
        "Clip": "Shrinking an update that is larger than agreed, so that no client can weigh more than that.",
        "Coordinate": "One number of a model, or of an update.",
        "Differential privacy (DP)": "Noise, added so that a result hardly depends on any single client.",
        "ε (epsilon), δ (delta)": "How much a result may depend on one client: the odds of any guess about it change "
        "by a factor of e^ε at most, but for a chance of δ. Smaller is safer.",
        "Exact interval": "Of a share: Clopper and Pearson's (1934), right however few the trials.",
        "FPR, TPR": "False positive rate: share of the no-cases that an attack takes for yes. True positive rate: "
        "share of the yes-cases that it finds. An attack that finds a few for certain has a high TPR at a low FPR.",
        "Mask": "Which coordinates a client trains and sends, if it does not send all.",
        "Mask-indexed": "Sums in which each coordinate runs over the clients that declare to hold it. The masks are "
        "open; the values are not.",
        "Promise": "What the settings of a deployment say cannot happen: here, that an upload or the protocol's "
        "messages tell anything of a single client. What a sum or a model says of its clients is no promise, unless "
        "noise bounds it.",
        "p": "How likely chance alone comes to such a figure, or to a better one.",
        "PSNR": "How near a picture comes to the original, in dB. From about 20 one recognises it; above 30 it is "
        "almost the same.",
        "ROC curve": "TPR over FPR, as an attack says yes more and more readily.",
        "SSIM": "How alike two pictures look: 1 is the same, 0 is nothing in common.",
        "Uniform": "Sums over whole updates; nobody learns who trained which part.",
        "Update": "What one client's training changes in the model in one round.",
    }
)

NOT_COVERED = (
    "Attacks that are not listed here. “As chance” says that these found nothing in so many trials, no more than that.",
    "Other models, data and settings. Smaller cohorts, longer training or more rounds may leak more.",
    "Clients that send bad updates on purpose in order to spoil the model.",
    "More clients in league with the server than the settings allow for.",
    "Devices and networks: timing, power, traffic analysis, stolen keys, bad random numbers of the system.",
    "What people do with the released model later, beyond what the attacks on the model show.",
)


def number(value: float) -> str:
    """Three digits; thousands in groups."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def percent(share: float) -> str:
    """A share as percent: whole ones, with a digit more near the ends, and never 0 or 100 for what is not."""
    value = 100 * share
    if 10 <= value <= 90:
        return f"{value:.0f} %"
    near = min(abs(value), abs(100 - value))
    digits = 1 if near >= 0.1 or near == 0 else min(6, math.ceil(-math.log10(near)))
    return f"{value:.{digits}f}".removesuffix(".0") + " %"


def span(low: float, high: float) -> str:
    """An interval of shares, as percent."""
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def sentence(words: str) -> str:
    """Words that begin with a capital letter, unless the first is a name like iDLG."""
    return words if words[1:2].isupper() else words[:1].upper() + words[1:]


def rate(one: Rate) -> str:
    """A share with its interval."""
    return f"{percent(one.value)} ({span(*one.interval)})"


def figure(measurement: Measurement) -> str:
    """The figure itself."""
    match measurement:
        case Recovery(rate=found):
            return f"{found.hits} of {found.trials}"
        case Detection():
            return f"AUC {measurement.value:.2f}"
        case Exposure():
            return f"{measurement.exposed:,} of {measurement.of:,}"
        case Bound():
            return f"ε ≥ {number(measurement.epsilon)}"
    return number(measurement.value)


def interval(measurement: Measurement) -> str:
    """Where the figure lies."""
    low, high = measurement.interval
    match measurement:
        case Recovery():
            return span(low, high)
        case Detection():
            return f"{low:.2f} to {high:.2f}"
        case Exposure():
            return f"{percent(low)}, counted"
        case Bound(trials=0):
            return "computed, not sampled"
        case Bound():
            most = "no ceiling" if math.isinf(measurement.ceiling) else f"at most {number(measurement.ceiling)}"
            return f"{most} in {measurement.trials:,} trials"
    return f"{number(low)} to {number(high)}"


def chance(measurement: Measurement) -> str:
    """What it is held against."""
    match measurement:
        case Recovery():
            return f"chance {percent(measurement.chance)}"
        case Detection():
            return "chance 0.50"
        case Exposure():
            return "safe: none"
        case Bound() if math.isinf(measurement.claimed):
            return "no claim"
        case Bound():
            return f"claim ε ≤ {number(measurement.claimed)}"
    return f"chance {number(measurement.chance)}"


def setting(name: str, value: object) -> str:
    """A setting's value."""
    if value is None:
        return "none"
    if name == "mode":
        return _MODES.get(str(value), str(value))
    if name == "pruned" and isinstance(value, float | int):
        return percent(round(value, 3)) if value else "none"
    return number(value) if isinstance(value, float | int) and not isinstance(value, bool) else str(value)


def sees(threat: Threat, deployment: Deployment) -> str:
    """What the attacker of a threat sees of a deployment."""
    plain, indexed = deployment.mode == "plain", deployment.mode == "mask-indexed"
    private, prunes = deployment.params.privacy is not None, deployment.mask is not None and deployment.pruned > 0
    total = "the sum of all updates" + (", with noise" if private else ", exactly")
    if indexed:
        least = deployment.params.min_cohort
        total = f"for each coordinate the sum over its holders, if there are {least} or more"
        total += ", with noise" if private else ""
    match threat:
        case Threat.ONE_UPLOAD:
            return "each client's update as it is" if plain else "masked numbers: noise to whoever lacks the keys"
        case Threat.THE_SUM:
            return "the sum, and every update beside it" if plain else total
        case Threat.SEVERAL_ROUNDS:
            return "every update of every round" if plain else f"in each round {total}"
        case Threat.CRAFTED_MODELS:
            return f"{'every update' if plain else total}; of a model that the server made up"
        case Threat.THE_MASKS if not prunes:
            return "nothing: every client sends whole updates"
        case Threat.THE_MASKS if plain:
            return "each client's mask, read off its update"
        case Threat.THE_MASKS:
            return "each client's mask, which it declares" if indexed else "nothing: masks stay on the devices"
        case Threat.THE_MODEL:
            return "the final model" + (", trained with noise" if private else "")
    return "every update: there is no protocol" if plain else "every message, and may lie, replay and withhold"


def promise(threat: Threat, deployment: Deployment, *, in_part: bool = False) -> str:
    """What the settings say of a threat.

    Args:
        threat: What the attacker sees.
        deployment: Whose settings.
        in_part: Whether some of what is asked about it is promised.
    """
    if deployment.claims(threat):
        return "✓ promised: nothing of a single client"
    if in_part:
        return "✓ promised in part: see the overview"
    if deployment.params.privacy is not None and threat is not Threat.THE_MASKS:
        return "≤ bounded: by the privacy budget (ε)"
    return "no promise"
