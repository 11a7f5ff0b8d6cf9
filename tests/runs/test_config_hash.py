import pytest

from xlora_bench.runs.config_hash import COSMETIC, config_hash

CONFIG = {
    "seed": 0,
    "adapter": {"rank": 8, "targets": ["query", "value"]},
    "trainer": {"max_epochs": 3, "enable_progress_bar": True},
    "paths": {"results_dir": "multirun"},
    "logger": {"project": "a"},
    "rerun": False,
}


def changed(**entries):
    return config_hash({**CONFIG, **entries}, data="d")


def test_is_sixteen_hex_digits_and_stable():
    name = config_hash(CONFIG, data="d")
    assert len(name) == 16
    assert int(name, 16) >= 0
    assert name == config_hash(dict(reversed(CONFIG.items())), data="d")


def test_cosmetic_keys_do_not_matter():
    trainer = {"max_epochs": 3, "enable_progress_bar": False, "enable_model_summary": False}
    same = changed(paths={"data_dir": "x"}, logger=None, rerun=True, paper={"title": "t"}, trainer=trainer)
    assert same == config_hash(CONFIG, data="d")
    assert all(COSMETIC.values()), "every cosmetic key needs its reason"


@pytest.mark.parametrize(
    "entries",
    [
        {"seed": 1},
        {"adapter": {"rank": 16, "targets": ["query", "value"]}},
        {"adapter": {"rank": 8, "targets": ["value", "query"]}},
        {"trainer": {"max_epochs": 4}},
        {"new": False},
    ],
)
def test_everything_else_matters(entries):
    assert changed(**entries) != config_hash(CONFIG, data="d")


def test_the_data_matters_and_the_config_is_left_alone():
    before = str(CONFIG)
    assert config_hash(CONFIG, data="d") != config_hash(CONFIG, data="e")
    assert str(CONFIG) == before


def test_an_option_that_is_null_says_nothing():
    assert changed(new=None) == changed(adapter={**CONFIG["adapter"], "new": None}) == config_hash(CONFIG, data="d")


@pytest.mark.parametrize(("one", "other"), [(16, 16.0), (0, 0.0), (0, -0.0), ([1, 2], [1.0, 2.0]), (1e3, 1000)])
def test_numbers_count_by_their_value(one, other):
    assert changed(new={"a": one}) == changed(new={"a": other})


def test_true_is_no_number():
    assert len({changed(new=value) for value in (True, 1, "1", 1.5, "1.0")}) == 5


def test_the_number_of_devices_is_no_part_of_a_run_and_older_runs_keep_their_ids():
    older = changed(trainer={"max_epochs": 3, "devices": 1})
    assert changed(trainer={"max_epochs": 3, "devices": 4}) == older != changed(trainer={"max_epochs": 3})
