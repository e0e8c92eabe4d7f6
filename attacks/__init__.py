"""What a deployment gives away: attacks to run against one's own.

``coverage`` asks which clients stand alone in a sum, ``denominators`` whether hidden weights can be solved for.
"""

from attacks.coverage import Isolation, isolation
from attacks.denominators import opened_weights

__all__ = ["Isolation", "isolation", "opened_weights"]
