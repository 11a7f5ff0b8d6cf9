import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xlora_bench.results.comparison.build import compare
from xlora_bench.results.frame.pivot_axes import find_pivot_axes

pytestmark = pytest.mark.slow


def frame(methods, tasks, *, seeds=5, rank=(8,), noise=0.01):
    rng, rows = np.random.default_rng(0), []
    for task in tasks:
        for r in rank:
            for index, method in enumerate(methods):
                for seed in range(seeds):
                    score = 0.5 + 0.05 * index + noise * rng.normal()
                    known = {"run_id": f"{len(rows)}", "status": "completed", "seed": seed, "headline": "accuracy"}
                    rows.append(known | {"adapter": method, "task": task, "adapter.rank": r, "score": score})
    return pd.DataFrame(rows)


def compared(runs):
    return compare(runs, axes=find_pivot_axes(runs), row_labels={})


TASKS = ("sst2", "cola", "mrpc", "rte", "stsb")


def test_ranks_tests_and_interquartile_means():
    runs = frame(("lora", "lu", "full"), TASKS)
    (found,) = compared(runs).across
    assert found.ranks.to_dict() == {"full": 1.0, "lu": 2.0, "lora": 3.0}
    means = runs.groupby(["adapter", "task"])["score"].mean().unstack()
    assert found.friedman == pytest.approx(stats.friedmanchisquare(*means.to_numpy()).pvalue)
    assert found.p_pairs.loc["full", "lora"] <= 0.05 < found.p_pairs.loc["full", "lu"]
    assert found.iqm["full"].estimate == pytest.approx(
        stats.trim_mean(runs.loc[runs["adapter"] == "full", "score"], 0.25)
    )
    assert list(found.iqm_difference) == ["lu", "full"]
    assert found.iqm_difference["full"].low > 0.08
    assert "Significantly different over tasks: lora and full" in " ".join(found.sentences)


def test_a_setting_each_for_ranks():
    found = compared(frame(("lora", "lu", "full"), TASKS, rank=(2, 8)))
    assert [across.setting for across in found.across] == [(2,), (8,)]
    assert [len(across.scores) for across in found.across] == [5, 5]


def test_means_are_over_the_seeds_that_all_methods_share():
    runs = frame(("lora", "lu", "full"), TASKS)
    runs.loc[(runs["adapter"] == "full") & (runs["seed"] == 4), "status"] = "failed"
    (found,) = compared(runs).across
    shared = runs[(runs["seed"] < 4) & (runs["task"] == "cola") & (runs["adapter"] == "lora")]
    assert found.scores.loc["cola", "lora"] == pytest.approx(shared["score"].mean())


def test_a_method_that_failed_on_a_task_is_left_out_and_named():
    runs = frame(("lora", "lu", "full", "vera"), TASKS)
    runs.loc[(runs["adapter"] == "vera") & (runs["task"] == "rte"), "status"] = "collapsed"
    (found,) = compared(runs).across
    assert "vera" not in found.ranks
    assert found.sentences[0] == "Left out, without a completed run on every task: vera."


def test_two_tasks_are_too_few_and_it_says_so():
    found = compared(frame(("lora", "lu", "full"), TASKS[:2]))
    assert found.across == []
    assert found.notes == [
        "Not compared over tasks: 2 tasks are too few for a comparison over tasks: at least 3 are needed."
    ]


def test_one_task_has_nothing_over_tasks():
    found = compared(frame(("lora", "lu"), TASKS[:1]))
    assert (found.across, found.notes) == ([], [])


def test_equal_methods_do_not_differ_significantly_over_tasks_and_it_says_so():
    (found,) = compared(frame(("lora", "lu", "full"), TASKS[:3], noise=10.0)).across
    assert found.sentences[-1] == "No two methods differ significantly over tasks."
    assert "apart, of 2 that they can be." in found.sentences[1]


def test_two_methods_take_wilcoxons_test():
    (few,) = compared(frame(("lora", "full"), TASKS)).across
    assert "5 tasks are too few for Wilcoxon's test" in few.sentences[0]
    (enough,) = compared(frame(("lora", "full"), (*TASKS, "qnli"))).across
    assert enough.p_pairs.loc["lora", "full"] == pytest.approx(2 / 2**6)
    assert enough.sentences[0] == "Wilcoxon's signed-rank test over 6 tasks: p = 0.0312, significant."


def test_too_few_seeds_for_the_interquartile_mean_are_named():
    (found,) = compared(frame(("lora", "lu", "full"), TASKS, seeds=4)).across
    assert found.iqm == {}
    assert "lora: no interquartile mean: 4 runs of sst2 are too few: at least 5 are needed" in " ".join(found.sentences)
