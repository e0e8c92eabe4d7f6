"""Flower is silent, and says nothing to anybody else."""

from __future__ import annotations

import logging
import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
logging.getLogger("flwr").setLevel(logging.ERROR)
