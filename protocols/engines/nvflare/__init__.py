"""Secure aggregation on NVFlare, over its Collab API: a base class for the client object, a function for the server.

    class Hospital(SecureClient):
        settings = SETTINGS
        def train(self, model, round_number): ...

    outcome = secure_round(collab.clients, model, SETTINGS, round_number=1)     # in @collab.main

It takes ``pip install 'secagg[nvflare]'``.
"""

from protocols.engines.nvflare.client import SecureClient
from protocols.engines.nvflare.server import Outcome, secure_round
from protocols.engines.nvflare.settings import Settings

__all__ = ["Outcome", "SecureClient", "Settings", "secure_round"]
