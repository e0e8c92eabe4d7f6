"""The app in this process, without Ray and without a socket: `python run_local.py --run-config 'num-rounds=3'`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when Flower is imported

from flower_clip.client_app import app as client_app  # type: ignore[import-not-found]  # a package of its own
from flower_clip.server_app import app as server_app  # type: ignore[import-not-found]  # likewise
from flwr.app import Context, RecordDict
from flwr.common.config import get_fused_config_from_dir, parse_config_args

from protocols.engines.flower import LocalGrid

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-config", action="append", help="as of `flwr run`")
    overrides = parse_config_args(parser.parse_args().run_config)
    config = get_fused_config_from_dir(Path(__file__).parent, overrides)
    grid = LocalGrid(client_app, int(config["nodes"]), run_config=config)
    context = Context(run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    server_app(grid, context)
