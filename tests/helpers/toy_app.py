"""An application that leaves records as `train.py` does, without training: `toy_app.py CONF_DIR ...`."""

import json
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tests.helpers.records import record
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.record import finished
from xlora_bench.runs.sweep_context import running_sweep


def main(config: DictConfig) -> None:
    runtime = HydraConfig.get().runtime
    if config.adapter.rank == 13:
        raise RuntimeError("thirteen fails before its run is known")
    if config.adapter.rank == 99:
        raise KeyboardInterrupt
    plain = OmegaConf.to_container(config, resolve=True)
    run_id = config_hash(plain, data="toy")
    Path(runtime.output_dir, "run.json").write_text(json.dumps({"run_id": run_id}))
    path = Path(config.paths.results_dir, "runs", run_id, "record.json")
    if finished(path):
        return
    choices = {name: choice for name, choice in runtime.choices.items() if not name.startswith("hydra/")}
    score = 0.5 + config.adapter.rank / 100 + config.seed / 1000
    record(run_id, score=score, config=plain, choices=choices, seed=config.seed).write(path)
    path.with_name("sweep").write_text(str(running_sweep()))


if __name__ == "__main__":
    folder = str(Path(sys.argv.pop(1)).absolute())
    hydra.main(version_base="1.3", config_path=folder, config_name="config")(main)()
