"""The published numbers of `conf/paper/xlora_sst2.yaml`, against the table they were taken from."""

from pathlib import Path

import yaml

from xlora_bench.results.protocols.paper import Paper

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "conf" / "paper" / "xlora_sst2.yaml").read_text())
METHODS = {
    "baseline": "kaiming",
    "svd no-sigma": "svd_nosigma",
    "svd R": "svd_right",
    "svd LR": "svd_both",
    "svd L": "svd_left",
}
MODELS = ("distilbert", "bert_base", "bert_large")
RANKS = (2, 16, 64)
TABLE = """
| baseline | .835 | .843 | .865 | .571 | .853 | .878 | .623 | .899 | .911 |
| svd no-sigma | .830 | .853 | .872 | .591 | .851 | .884 | .636 | .891 | .908 |
| svd R | .828 | .869 | .884 | .725 | .866 | .891 | .797 | .907 | .911 |
| svd LR | .815 | .846 | .870 | .664 | .834 | .866 | .650 | .859 | .884 |
| svd L | .843 | .866 | .882 | .755 | .872 | .897 | .834 | .909 | .919 |
"""


def test_all_published_numbers_are_those_of_the_table():
    paper = Paper.parse({**CONFIG["paper"], "rules": CONFIG["grid"]})
    assert len(paper.numbers) == 45
    places = [(model, rank) for model in MODELS for rank in RANKS]
    for line in TABLE.strip().splitlines():
        name, *values = (text.strip() for text in line.strip("|").split("|"))
        assert paper.row_labels[METHODS[name]] == name
        for place, value in zip(places, values, strict=True):
            assert paper.value((METHODS[name],), place) == float(value)


def test_the_sweep_is_the_grid_of_the_published_numbers():
    params = CONFIG["hydra"]["sweeper"]["params"]
    assert params["model"].split(",") == list(MODELS)
    assert sorted(params["init_scheme"].split(",")) == sorted(METHODS.values())
    assert [int(rank) for rank in params["adapter.rank"].split(",")] == list(RANKS)
    assert CONFIG["adapter"]["alpha"] == "${adapter.rank}"
