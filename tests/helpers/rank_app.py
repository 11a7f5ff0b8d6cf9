"""Train runs as one rank of several: `rank_app.py RANK WORLD PORT FOLDER`, with the overrides of each run on stdin."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import distributed

from tests.helpers.names import configured
from xlora_bench.runs.run import Run
from xlora_bench.system.log_levels import set_log_levels
from xlora_bench.system.ranks import Ranks
from xlora_bench.training.caches import PROCESS
from xlora_bench.training.fit import fit
from xlora_bench.training.options import PARTS, checked_part
from xlora_bench.training.prepare import prepare
from xlora_bench.training.resolve import request_of


def train(overrides: list[str], folder: Path, ranks: Ranks) -> None:
    """Train a run in `folder`; the first rank leaves the entries of the record in `outcome.json`."""
    config = OmegaConf.to_container(configured(*overrides), resolve=True)
    parts = {group: checked_part(group, config[group]) for group in PARTS}
    request = request_of(config, parts, choices=dict.fromkeys(PARTS, "x"), caches=PROCESS)
    run: Run = replace(request.run, folder=folder / "runs" / "one").start(rerun=False)
    outcome = fit(prepare(replace(request, run=run), ranks=ranks))
    if ranks.is_first:
        (run.attempt / "outcome.json").write_text(json.dumps(outcome, default=float))


if __name__ == "__main__":
    rank, world, port, results = sys.argv[1:]
    set_log_levels()
    torch.set_num_threads(1)
    own = Ranks(rank=int(rank), world=int(world))
    if own.world > 1:
        store = distributed.TCPStore("127.0.0.1", int(port), is_master=False)
        distributed.init_process_group("gloo", store=store, rank=own.rank, world_size=own.world)
    for name, lines in json.load(sys.stdin).items():
        train(lines, Path(results) / f"{world}-{rank}" / name, own)
