"""Every paper's config lists its runs, each of them composes, and each follows the recipe it is compared under."""

from functools import cache

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from tests.helpers.names import CONF, choices
from xlora_bench.results.frame.collect import requested_columns
from xlora_bench.results.frame.pivot_axes import keys
from xlora_bench.results.protocols.load_paper import load_paper
from xlora_bench.results.protocols.protocol import recipe
from xlora_bench.sweeps.planning.grid import Grid

pytestmark = pytest.mark.slow

NAMES = sorted(path.stem for path in (CONF / "paper").glob("*.yaml") if not path.stem.startswith("_"))
PUBLISHED = [name for name in NAMES if name != "quickstart"]
NARROWED = dict.fromkeys(PUBLISHED, ("seed=0", "task=cola,rte")) | {  # a composition takes half a second
    "asym_roberta_large": ("seed=0", "task=rte"),
    "pissa_deberta_v3_base": ("seed=0", "task=rte"),
    "xlora_sst2": ("model=distilbert", "adapter.rank=2,16"),
    "quickstart": ("seed=0",),
}
RUNS = {  # the published rows of methods that exist, times the tasks
    "asym_roberta_large": 3 + 2 * 4,
    "fourierft_roberta_base": 2,
    "fourierft_roberta_large": 2,
    "loldu_roberta_base": 6 * 2,
    "lora_roberta_base": 3 * 2,
    "lora_roberta_base_as_script": 3 * 2,
    "lora_roberta_large": 2 * 2,
    "lora_roberta_large_as_script": 2 * 2,
    "lora_roberta_large_dagger": 2,
    "pissa_deberta_v3_base": 7,
    "quickstart": 4,
    "vera_roberta_base": 2 * 2,
    "vera_roberta_large": 3 * 2,
    "xlora_sst2": 5 * 2,
}
TASKS = {
    "asym_roberta_large": "mnli,sst2,mrpc,cola,qnli,rte,stsb",
    "xlora_sst2": None,
    **{name: "mnli,sst2,mrpc,cola,qnli,qqp,rte,stsb" for name in PUBLISHED if name[:4] in ("lora", "piss")},
    **{name: "sst2,mrpc,cola,qnli,rte,stsb" for name in PUBLISHED if name[:4] in ("vera", "four", "lold")},
}


@cache
def runs_of(name, *more):
    """Return the runs of a narrowed paper as rows of a frame, with the headline that a run would have."""
    arguments = (*NARROWED[name], *more)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        single = [argument for argument in arguments if "," not in argument]
        config = compose(f"paper/{name}", single, return_hydra_config=True)
        grid = Grid(config, GlobalHydra.instance().config_loader(), arguments=arguments)
        rows = []
        for draft in grid.grid_points:
            whole = grid.with_parent(draft).overrides
            resolved = grid.composer.resolved(whole)
            named = requested_columns(resolved, grid.composer.choices(whole))
            rows.append({**named, "headline": resolved["task"]["headline"], "config": resolved})
        return pd.DataFrame(rows)


@cache
def paper_of(name):
    return load_paper(name)


@pytest.mark.parametrize("name", NAMES)
def test_lists_its_runs_and_their_parts_can_be_made(name):
    frame = runs_of(name)
    assert len(frame) == RUNS[name]
    for _, row in frame.drop_duplicates(["adapter", "init_scheme", "task"]).iterrows():
        for part in ("adapter", "init_scheme", "targets", "task", "optimizer", "scheduler"):
            instantiate(row["config"][part])


@pytest.mark.parametrize("name", PUBLISHED)
def test_runs_as_configured_follow_the_papers_protocol(name):
    paper = paper_of(name)
    compared = {number.row for number in paper.numbers if not number.refuse}
    for _, row in runs_of(name).drop(columns="config").iterrows():
        if keys(row.to_frame().T, paper.rows)[0] in compared:
            assert paper.protocol.reasons(row.to_frame().T, rules=paper.rules) == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_swept_task_has_published_numbers_and_a_recipe_of_known_keys(name):
    params = compose_paper_params(name)
    assert params.get("task") == TASKS[name]
    paper, frame = paper_of(name), runs_of(name)
    tasks = (TASKS[name] or "sst2").split(",")
    assert set(tasks) <= set(choices("task"))
    assert TASKS[name] is None or set(paper.tasks) == set(tasks)
    for _, row in frame.iterrows():
        for task in tasks:
            decided = recipe(paper.rules, {**row, "task": task})
            assert set(decided) <= set(frame.columns), task
            assert decided or name == "loldu_roberta_base"
    assert name == "xlora_sst2" or len(params["seed"].split(",")) == 5


def compose_paper_params(name):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return dict(compose(f"paper/{name}", return_hydra_config=True).hydra.sweeper.params)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_axis_of_a_published_number_is_a_choice_that_exists(name):
    paper = paper_of(name)
    for number in paper.numbers:
        if number.row[0] not in choices(paper.rows[0]):
            assert all(part is None for part in number.row[1:]), number.row  # a label
        index = dict(zip(paper.columns, number.column, strict=True))
        assert index["model"] in choices("model")
        assert index.get("task", "average") in (*choices("task"), "average")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_row_of_a_method_that_exists_is_swept(name):
    paper, frame = paper_of(name), runs_of(name)
    assert set(keys(frame, paper.rows)) >= {row for row in paper.published_rows if row[0] in choices(paper.rows[0])}


def test_what_starts_from_mnli_where_the_paper_did():
    for name in PUBLISHED:
        start = paper_of(name).protocol.start
        rules = paper_of(name).rules
        for task in (TASKS[name] or "sst2").split(","):
            run = {"task": task, "adapter": "lora"}
            assert ("start_from" in recipe(rules, run)) == (start.get(task, "base") == "mnli"), (name, task)
    frame = runs_of("lora_roberta_base")
    assert frame[frame["adapter"] != "lora"]["start_from"].isna().all()
    started = frame[frame["adapter"] == "lora"].set_index("task")["start_from"]
    assert started.isna().to_dict() == {"cola": True, "rte": False}
    assert '"task=mnli"' in started["rte"]
    assert '"trainer.max_epochs=30"' in started["rte"]  # MNLI's own recipe


RECIPES = {  # Table 9 of LoRA and its scripts: batch of a step, epochs, learning rate, length
    "lora_roberta_base": {
        "mnli": (16, 30, 5e-4, 512),
        "sst2": (16, 60, 5e-4, 512),
        "mrpc": (16, 30, 4e-4, 512),
        "cola": (32, 80, 4e-4, 512),
        "qnli": (32, 25, 4e-4, 512),
        "qqp": (16, 25, 5e-4, 512),
        "rte": (32, 80, 5e-4, 512),
        "stsb": (16, 40, 4e-4, 512),
    },
    "lora_roberta_large": {
        "mnli": (4, 10, 3e-4, 128),
        "sst2": (4, 10, 4e-4, 128),
        "mrpc": (4, 20, 3e-4, 512),
        "cola": (4, 20, 2e-4, 128),
        "qnli": (4, 10, 2e-4, 512),
        "qqp": (4, 20, 3e-4, 512),
        "rte": (8, 20, 4e-4, 512),
        "stsb": (8, 30, 2e-4, 512),
    },
    "lora_roberta_large_as_script": {
        "mnli": (32, 10, 3e-4, 128),
        "sst2": (64, 10, 4e-4, 512),
        "mrpc": (32, 20, 3e-4, 512),
        "cola": (32, 20, 3e-4, 128),
        "qnli": (32, 10, 2e-4, 512),
        "qqp": (32, 20, 3e-4, 512),
        "rte": (64, 20, 4e-4, 512),
        "stsb": (32, 10, 3e-4, 128),
    },
    "lora_roberta_large_dagger": {
        "mnli": (4, 10, 3e-4, 128),
        "sst2": (4, 10, 4e-4, 128),
        "mrpc": (4, 20, 3e-4, 128),
        "cola": (4, 20, 2e-4, 128),
        "qnli": (4, 10, 2e-4, 128),
        "qqp": (4, 20, 3e-4, 128),
        "rte": (4, 20, 4e-4, 128),
        "stsb": (4, 10, 2e-4, 128),
    },
}
RECIPES["lora_roberta_base_as_script"] = {
    task: ({"cola": 64, "qnli": 256, "rte": 256}.get(task, 128), *rest)
    for task, (_, *rest) in RECIPES["lora_roberta_base"].items()
}
KEYS = ("task.batch_size", "trainer.max_epochs", "optimizer.lr", "task.max_length")


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_of_lora_are_those_of_its_table_and_its_scripts(name):
    for task, wanted in RECIPES[name].items():
        result = recipe(paper_of(name).rules, {"task": task, "adapter": "lora"})
        assert tuple(result[key][0] for key in KEYS) == wanted, task
        assert paper_of(name).protocol.effective_batch[task] == wanted[0]
    alpha = 8 if name == "lora_roberta_base" else 16
    frame = runs_of(name)
    assert set(map(tuple, frame[frame["adapter"] == "lora"][["adapter.rank", "adapter.alpha"]].to_numpy())) == {
        (8, alpha)
    }
    assert set(frame[frame["adapter"] == "lora"]["scheduler.warmup"]) == {0.06}


OTHERS = {  # epochs, batch, learning rate and the third number of the paper's line
    ("pissa_deberta_v3_base", "pissa", "adapter.alpha"): {
        "mnli": (5, 16, 5e-4, 8),
        "sst2": (20, 16, 3e-5, 8),
        "mrpc": (20, 32, 2e-4, 8),
        "cola": (20, 16, 1e-4, 8),
        "qnli": (10, 32, 1e-4, 16),
        "qqp": (10, 16, 1e-4, 8),
        "rte": (50, 16, 1e-4, 8),
        "stsb": (20, 8, 3e-4, 8),
    },
    ("pissa_deberta_v3_base", "dora", "adapter.alpha"): {
        "mnli": (10, 32, 2e-4, 16),
        "sst2": (10, 16, 4e-4, 16),
        "mrpc": (10, 32, 4e-4, 16),
        "cola": (20, 8, 1e-4, 6),
        "qnli": (10, 16, 2e-4, 16),
        "qqp": (10, 16, 1e-4, 6),
        "rte": (50, 8, 2e-4, 6),
        "stsb": (20, 16, 3e-4, 6),
    },
    ("pissa_deberta_v3_base", "lora", "adapter.alpha"): {
        "mnli": (10, 32, 3e-4, 8),
        "sst2": (10, 32, 1e-4, 8),
        "mrpc": (10, 32, 4e-4, 8),
        "cola": (30, 32, 4e-4, 8),
        "qnli": (25, 32, 3e-4, 8),
        "qqp": (10, 16, 3e-4, 8),
        "rte": (50, 32, 4e-4, 8),
        "stsb": (30, 16, 3e-4, 8),
    },
    ("pissa_deberta_v3_base", "peft_adalora", "task.max_length"): {  # AdaLoRA's scripts
        "mnli": (7, 32, 5e-4, 256),
        "sst2": (24, 32, 8e-4, 128),
        "mrpc": (30, 32, 1e-3, 320),
        "cola": (25, 32, 8e-4, 64),
        "qnli": (5, 32, 5e-4, 512),
        "qqp": (5, 32, 8e-4, 320),
        "rte": (50, 32, 1.2e-3, 320),
        "stsb": (25, 32, 2.2e-3, 128),
    },
    ("lora_roberta_base", "full", "scheduler.warmup"): {  # fairseq's README for GLUE
        "mnli": (10, 32, 1e-5, 0.06),
        "qnli": (10, 32, 1e-5, 0.06),
        "rte": (10, 16, 2e-5, 0.06),
        "sst2": (10, 32, 1e-5, 0.06),
        "mrpc": (10, 16, 1e-5, 0.06),
        "cola": (10, 16, 1e-5, 0.06),
        "stsb": (10, 16, 2e-5, 0.06),
    },
    ("lora_roberta_base", "bitfit", "task.max_length"): {"rte": (16, 8, 1e-3, 128)},  # defaults of BitFit's script
    ("vera_roberta_base", "vera", "optimizer.head_lr"): {
        "sst2": (60, 64, 4e-3, 4e-3),
        "mrpc": (30, 64, 1e-2, 4e-3),
        "cola": (80, 64, 1e-2, 1e-2),
        "qnli": (25, 64, 1e-2, 4e-3),
        "rte": (160, 64, 4e-3, 1e-2),
        "stsb": (80, 64, 1e-2, 1e-2),
    },
    ("fourierft_roberta_base", "peft_fourierft", "adapter.options.scaling"): {
        "cola": (100, 32, 0.12, 49),
        "rte": (90, 32, 0.09, 110),
        "mrpc": (30, 32, 0.05, 151),
        "sst2": (40, 32, 0.05, 140),
        "stsb": (60, 32, 0.09, 84),
        "qnli": (40, 32, 0.1, 29),
    },
    ("loldu_roberta_base", "loldu", "task.max_length"): {
        "sst2": (10, 32, 4e-4, 128),
        "mrpc": (20, 32, 3e-4, 512),
        "cola": (20, 32, 2e-4, 128),
        "qnli": (10, 32, 2e-4, 512),
        "rte": (20, 32, 4e-4, 512),
        "stsb": (30, 32, 2e-4, 512),
    },
}


@pytest.mark.parametrize(("name", "adapter", "more"), OTHERS)
def test_the_recipes_of_the_others(name, adapter, more):
    for task, wanted in OTHERS[name, adapter, more].items():
        scheme = {"lora": "kaiming"}.get(adapter)
        result = recipe(paper_of(name).rules, {"task": task, "adapter": adapter, "init_scheme": scheme})
        names = ("trainer.max_epochs", "task.batch_size", "optimizer.lr", more)
        assert tuple(result.get(key, [32])[0] for key in names) == wanted, task  # 32: not stated, the default


def test_a_run_off_the_recipe_is_refused_even_where_the_command_line_says_so():
    frame = runs_of("lora_roberta_base", "trainer.max_epochs=1").drop(columns="config")
    paper = paper_of("lora_roberta_base")
    frame = frame[frame["adapter"] == "lora"]
    assert paper.protocol.reasons(frame[frame["task"] == "rte"], rules=paper.rules) == [
        "trainer.max_epochs: published 80, measured 1"
    ]


def test_the_effective_batch_may_be_accumulated():
    paper = paper_of("lora_roberta_base_as_script")
    halves = ("task.batch_size=32", "trainer.accumulate_grad_batches=2")
    frame = runs_of("lora_roberta_base_as_script", *halves).drop(columns="config")
    frame = frame[frame["adapter"] == "lora"]
    assert paper.protocol.reasons(frame[frame["task"] == "cola"], rules=paper.rules) == []
    assert paper.protocol.reasons(frame[frame["task"] == "rte"], rules=paper.rules) == [
        "effective batch: published 256, measured 64"
    ]
