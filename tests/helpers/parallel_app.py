"""An application whose jobs do what `does` names: `parallel_app.py CONF_DIR ...`; the real one only trains longer.

The GPUs of its sweeps are those that CUDA_VISIBLE_DEVICES names, whatever the machine has.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tests.helpers.fake_devices import fake_devices
from tests.helpers.records import record
from xlora_bench.runs.config_hash import config_hash
from xlora_bench.runs.sweep_context import running_sweep


def main(config: DictConfig) -> float:
    runtime, number = HydraConfig.get().runtime, int(HydraConfig.get().job.num)
    folder = Path(config.paths.results_dir)
    plain = OmegaConf.to_container(config, resolve=True)
    run_id = config_hash(plain, data="toy")
    Path(runtime.output_dir, "run.json").write_text(json.dumps({"run_id": run_id}))
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"number": number, **here()}) + "\n")
    if config.does == "fail":
        raise ValueError("meant to fail")
    if config.does == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.does == "sleep":
        time.sleep(3600)
    choices = {name: choice for name, choice in runtime.choices.items() if not name.startswith("hydra/")}
    score = 0.5 + config.adapter.rank / 100 + config.seed / 1000
    path = folder / "runs" / run_id / "record.json"
    record(run_id, score=score, config=plain, choices=choices, seed=config.seed).write(path)
    return score


def here() -> dict:
    import torch

    return {
        "pid": os.getpid(),
        "torch": torch.get_num_threads(),
        "omp": os.environ.get("OMP_NUM_THREADS"),
        "rayon": os.environ.get("RAYON_NUM_THREADS"),
        "cpus": sorted(os.sched_getaffinity(0)),
        "sweep": running_sweep(),
        "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore Ctrl-C
    fake_devices()
    conf = str(Path(sys.argv.pop(1)).absolute())
    hydra.main(version_base="1.3", config_path=conf, config_name="config")(main)()
