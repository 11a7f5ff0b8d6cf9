"""The rules of `grid:`."""

import itertools

import pytest
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.helpers.names import CONF
from tests.sweeps.conftest import lines
from xlora_bench.runs.overrides import as_text, from_lines, parent_overrides, parsed, quoted
from xlora_bench.sweeps.planning.compose import Composer

SEEDS = {"adapter": "lora,lu", "seed": "0,1"}


def test_without_rules_the_runs_are_those_of_hydras_own_sweeper(phases_of):
    overrides = ["adapter.rank=2,4", "seed=3", "task=choice(rte,mnli)"]
    every = [f"{key}={value}" for key, value in SEEDS.items()] + overrides
    (expected,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(every), None)
    assert lines(phases_of(SEEDS, *overrides)) == expected


def test_rules_apply_in_order_and_see_what_earlier_ones_set(phases_of):
    rules = [
        {"when": {"adapter": "lu"}, "set": {"optimizer.lr": 1e-4, "adapter.alpha": "${adapter.rank}"}},
        {"when": {"optimizer.lr": 0.0001}, "each": {"adapter.rank": [2, 4]}},
        {"when": {"adapter.alpha": 4}, "exclude": "too wide"},  # an interpolation: 4 where the rank is 4
    ]
    rounds = phases_of(SEEDS, grid=rules)
    assert lines(rounds) == [
        ["adapter=lora", "seed=0"],
        ["adapter=lora", "seed=1"],
        *(
            ["adapter=lu", f"seed={seed}", "optimizer.lr=0.0001", "adapter.alpha=${adapter.rank}", "adapter.rank=2"]
            for seed in (0, 1)
        ),
    ]
    assert rounds.notes == ["Left out: adapter=lu adapter.rank=4: too wide"]


def test_a_list_of_rules_may_stand_in_place_of_a_rule(phases_of):
    shared = [
        {"when": {"adapter": "lu"}, "set": {"optimizer.lr": 1e-4}},
        {"set": {"adapter.alpha": "${adapter.rank}"}},
    ]
    rules = [{"each": {"adapter.rank": [2, 4]}}, "${paths.shared}", {"when": {"adapter": "lora"}, "exclude": "known"}]
    rounds = phases_of({"adapter": "lora,lu"}, grid=rules, paths={"results_dir": "x", "shared": shared})
    assert lines(rounds) == [
        ["adapter=lu", f"adapter.rank={rank}", "optimizer.lr=0.0001", "adapter.alpha=${adapter.rank}"]
        for rank in (2, 4)
    ]
    assert [rule.number for rule in rounds.grid.rules] == [1, 2, 3, 4]


def test_a_rule_sees_values_of_the_config_that_no_override_sets(phases_of):
    rules = [{"when": {"adapter.alpha": [16, 32], "optimizer.lr": "1e-3", "tuning": None}, "set": {"rerun": True}}]
    assert lines(phases_of({"adapter": "lora,tied,head"}, grid=rules)) == [
        ["adapter=lora", "rerun=true"],
        ["adapter=tied"],
        ["adapter=head"],
    ]


def test_the_command_line_wins_over_set_and_each_and_narrows(phases_of):
    rules = [{"set": {"optimizer.lr": 1.0}}, {"each": {"adapter.rank": [2, 4]}}]
    overrides = ("optimizer.lr=0.5", "adapter=lu", "adapter.rank=3")
    assert lines(phases_of(SEEDS, *overrides, grid=rules)) == [
        ["adapter=lu", f"seed={seed}", "optimizer.lr=0.5", "adapter.rank=3"] for seed in (0, 1)
    ]


def test_runs_that_become_one_run_once(phases_of):
    rules = [{"when": {"adapter": "lu"}, "set": {"adapter.rank": 8}}]
    assert lines(phases_of({"adapter": "lora,lu", "adapter.rank": "2,8,64"}, grid=rules)) == [
        *(["adapter=lora", f"adapter.rank={rank}"] for rank in (2, 8, 64)),
        ["adapter=lu", "adapter.rank=8"],
    ]


BAD = {
    "not a list": ({"when": {}}, "`grid`.*must be a list of rules"),
    "not a rule": (["lora"], "rule 1 of `grid` has lora"),
    "unknown part": ([{"if": {"adapter": "lu"}, "set": {"seed": 1}}], r"rule 1 of `grid` has \['if'\].*exclude"),
    "does nothing": ([{"when": {"adapter": "lu"}}], "rule 1 of `grid` does nothing"),
    "excludes and sets": ([{"exclude": "no", "set": {"seed": 1}}], "excludes and sets"),
    "exclude without a reason": ([{"exclude": True}], "`exclude`.*must say why"),
    "each without a list": ([{"each": {"adapter.rank": 2}}], "`each.adapter.rank`.*list"),
    "set and each": ([{"set": {"seed": 1}, "each": {"seed": [1]}}], "`seed` in `set` and in `each`"),
    "unknown key": (
        [{"when": {"adapter.rnak": 2}, "set": {"seed": 1}}],
        "`when.adapter.rnak` of rule 1.*did you mean `adapter.rank`",
    ),
    "all excluded": ([{"exclude": "nothing fits"}], "no run is left"),
    "a parent with a parent without end": ([{"set": {"start_from": ["task=mnli"]}}], "`start_from`.*never ends"),
    "a parent that is left out": (
        [{"when": {"task": "cola"}, "set": {"start_from": ["task=mnli"]}}, {"when": {"task": "mnli"}, "exclude": "x"}],
        "the parent of `adapter=lora seed=0`.*left out by a rule",
    ),
    "a parent that is several": (
        [
            {"when": {"task": "cola"}, "set": {"start_from": ["task=mnli"]}},
            {"when": {"task": "mnli"}, "each": {"seed": [1, 2]}},
        ],
        "is 2 runs",
    ),
    "a parent that is no override": ([{"set": {"start_from": ["mnli"]}}], "`mnli` is not an override"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rules_are_named(phases_of, case):
    rules, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        phases_of(SEEDS, grid=rules)


def test_an_unknown_key_in_set_fails_before_anything_runs(phases_of):
    with pytest.raises(HydraException, match=r"adapter\.rnak"):
        phases_of(SEEDS, grid=[{"when": {"adapter": "lu"}, "set": {"adapter.rnak": 2}}])


def test_a_rule_that_matches_nothing_is_a_warning_unless_the_command_line_narrowed(phases_of, caplog):
    rules = [{"when": {"adapter": "tied"}, "set": {"adapter.rank": 2}}]
    phases_of(SEEDS, "adapter=lora", grid=rules)
    assert caplog.text == ""
    phases_of(SEEDS, "seed=0", grid=rules)
    assert "rule 1 of `grid` matches no run: when {'adapter': ['tied']}" in caplog.text


RULES_WITH_PARENT = [
    {"when": {"task": "mnli"}, "set": {"optimizer.lr": 0.5, "adapter.alpha": 3}},
    {"when": {"task": "rte"}, "set": {"optimizer.lr": 0.25, "adapter.rank": 4, "start_from": ["task=mnli"]}},
]


def test_the_parent_of_a_run_is_the_run_that_the_rules_make_of_it(phases_of, caplog):
    rounds = phases_of({"adapter": "lora,lu", "task": "rte,mnli"}, "seed=0,1", grid=RULES_WITH_PARENT)
    composer = rounds.grid.composer
    runs = {
        tuple(composer.value(from_lines(line), key) for key in ("adapter", "task", "seed")): line
        for line in lines(rounds)
    }
    assert len(runs) == 8
    assert runs["lora", "rte", 1] == [
        "adapter=lora",
        "task=rte",
        "seed=1",
        "optimizer.lr=0.25",
        "adapter.rank=4",
        "start_from=['task=mnli','adapter.alpha=3','adapter.rank=8','optimizer.lr=0.5']",
    ]
    for adapter, seed in itertools.product(("lora", "lu"), (0, 1)):
        child = runs[adapter, "rte", seed]
        start = composer.resolved(from_lines(child))["start_from"]
        parent = parent_overrides(child, start_from=start)
        assert composer.signature(from_lines(parent)) == composer.signature(from_lines(runs[adapter, "mnli", seed]))
    assert caplog.text == ""


def test_start_from_on_the_command_line_is_the_same_and_may_name_another_seed(phases_of):
    (run,) = lines(phases_of({}, "task=rte", "start_from=['task=mnli','seed=7']", grid=RULES_WITH_PARENT[:1]))
    assert run == ["task=rte", "start_from=['seed=7','task=mnli','adapter.alpha=3','optimizer.lr=0.5']"]


def test_a_rule_that_only_a_parent_matches_is_no_idle_rule(phases_of, caplog):
    phases_of({"task": "rte"}, grid=RULES_WITH_PARENT)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "value", [1, 2.5e-5, True, None, "svd_left", "a b", "it's", "a\\", "[x,y]", ["a", 1], {"a": [1]}, "3"]
)
def test_values_from_yaml_survive_the_override_grammar(value):
    again = parsed(f"key={as_text(value)}").value()
    assert again == (3 if value == "3" else value)


def test_a_start_is_written_without_quotes_in_a_shell():
    assert quoted("start_from=[task=mnli, optimizer.lr=5e-4]") == "start_from=['task=mnli','optimizer.lr=5e-4']"
    assert quoted("start_from=['task=mnli']") == "start_from=['task=mnli']"
    assert quoted("adapter.modules=[a=b]") == "adapter.modules=[a=b]"


def test_composed_runs_are_those_of_hydra():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("paper/xlora_sst2", [], run_mode=RunMode.MULTIRUN)
        for line in (
            ["model=bert_base", "adapter=pissa", "adapter.rank=3", "+task.extra=1"],
            ["targets.modules=[query]"],
        ):
            whole = loader.load_sweep_config(master, line)
            ours = Composer(master, loader)
            assert ours.choices(from_lines(line)) == dict(whole.hydra.runtime.choices)
            OmegaConf.set_struct(whole, False)
            del whole["hydra"]
            plain = OmegaConf.to_container(whole, resolve=True)
            assert ours.resolved(from_lines(line)) == {**plain, "grid": [], "tuning": None, "paper": None}


def test_a_sweep_over_a_range_is_refused(phases_of):
    with pytest.raises(HydraException, match="is not a list of values"):
        phases_of({"optimizer.lr": "interval(0,1)"})


RANKS, RATES = [2, 8], [0.001, 0.1]
WHEN = st.fixed_dictionaries(
    {},
    optional={
        "adapter": st.sampled_from(["lora", "lu"]),
        "seed": st.sampled_from([0, 1, [0, 1]]),
        "adapter.rank": st.sampled_from(RANKS),
        "optimizer.lr": st.sampled_from(RATES),
    },
)
SET = st.fixed_dictionaries(
    {}, optional={"adapter.rank": st.sampled_from(RANKS), "optimizer.lr": st.sampled_from(RATES)}
)
EACH = st.sampled_from(
    [{"adapter.rank": RANKS}, {"optimizer.lr": RATES}, {"adapter.rank": RANKS, "optimizer.lr": RATES}]
)
RULE = (
    st.fixed_dictionaries({"when": WHEN, "exclude": st.just("no")})
    | st.fixed_dictionaries({"when": WHEN, "set": SET.filter(bool)})
    | st.fixed_dictionaries({"when": WHEN, "each": EACH})
)


def expanded(runs, rules):
    """The runs after the rules, each a mapping of all its values."""
    for rule in rules:
        after = []
        for run in runs:
            wanted = {key: value if isinstance(value, list) else [value] for key, value in rule["when"].items()}
            if any(run[key] not in values for key, values in wanted.items()):
                after.append(run)
            elif "exclude" not in rule:
                each = rule.get("each", {})
                after += [
                    run | rule.get("set", {}) | dict(zip(each, values, strict=True))
                    for values in itertools.product(*each.values())
                ]
        runs = after
    return [dict(run) for run in dict.fromkeys(tuple(sorted(run.items())) for run in runs)]


@given(st.lists(RULE, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_rules_are_applied_in_order_to_the_values_of_each_run(phases_of, rules):
    product = [
        {"adapter": adapter, "seed": seed, "adapter.rank": 8, "optimizer.lr": 0.001}
        for adapter in ("lora", "lu")
        for seed in (0, 1)
    ]
    defaults = {"adapter.rank": "8", "optimizer.lr": "0.001"}
    if not expanded(product, rules):
        with pytest.raises(ValueError, match="no run"):
            phases_of(SEEDS, grid=rules)
        return
    phases = phases_of(SEEDS, grid=rules)
    found = [defaults | dict(line.split("=") for line in run) for run in lines(phases)]
    typed = [
        {
            "adapter": run["adapter"],
            "seed": int(run["seed"]),
            "adapter.rank": int(run["adapter.rank"]),
            "optimizer.lr": float(run["optimizer.lr"]),
        }
        for run in found
    ]
    assert typed == [{key: run[key] for key in typed[0]} for run in expanded(product, rules)]


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "0.1,${oc.env:SECRET}", "a-${oc.decode:${oc.env:SECRET}}"])
def test_a_list_that_reads_the_environment_is_refused_without_its_value(phases_of, monkeypatch, text):
    monkeypatch.setenv("SECRET", "hf_12345")
    with pytest.raises(ValueError, match=r"^`optimizer.lr` \(=.*\) must not read an environment variable") as caught:
        phases_of({"adapter": "lora", "optimizer.lr": text})
    assert "hf_12345" not in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("SCRATCH", "there")
    assert "paths.results_dir=there" in lines(phases_of({"paths.results_dir": "${oc.env:SCRATCH}"}))[0]
