"""`wandb-view`: a saved workspace and a report in W&B, as files that W&B's own library reads."""

import json

import pytest

from tests.helpers.records import record
from xlora_bench.cli import wandb_view
from xlora_bench.cli.wandb_view import main

workspaces = pytest.importorskip("wandb_workspaces.workspaces", reason="needs the extra `wandb-view`")
reports = pytest.importorskip("wandb_workspaces.reports.v2")

LOGGER = {"wandb": {"_target_": "xlora_bench.WandbLogs", "project": "p", "entity": "team", "mode": "offline"}}
STRANGE = "<script>alert(1)</script>|😀" + "x" * 200


@pytest.fixture
def results(tmp_path):
    """Make a results folder with a run that was logged to W&B as a given node of the config says."""

    def make(logger=LOGGER, adapter="lora"):
        one = record("a", config={"logger": logger, "adapter": {"rank": 8}}, choices={"adapter": adapter})
        one.write(tmp_path / "runs" / "a" / "record.json")
        figure = tmp_path / "reports" / "all" / "score_vs_parameters.png"
        figure.parent.mkdir(parents=True)
        figure.touch()
        return tmp_path

    return make


def written(folder, *words):
    """Return workspace and report of the view of a results folder, read by W&B's library."""
    path = folder / "view.json"
    assert main([str(folder), "-o", str(path), *words]) == 0
    content = json.loads(path.read_text())
    view = workspaces.internal.View.model_validate(content["workspace"])
    report = reports.internal.ReportViewspec.model_validate(content["report"])
    return workspaces.Workspace._from_model(view), reports.Report._from_model(report)


def panels_of(workspace):
    return [panel for section in workspace.sections for panel in section.panels]


@pytest.mark.parametrize("adapter", ["lora", STRANGE], ids=["plain", "strange"])
def test_workspace_and_report_have_the_same_panels_on_the_project_of_the_runs(results, adapter):
    workspace, report = written(results(adapter=adapter))
    assert (workspace.entity, workspace.project, report.entity, report.project) == ("team", "p", "team", "p")
    titles = [getattr(panel, "title", None) for panel in panels_of(workspace)]
    grids = [block for block in report.blocks if isinstance(block, reports.PanelGrid)]
    assert [getattr(panel, "title", None) for grid in grids for panel in grid.panels] == titles
    assert [key.name for key in workspace.runset_settings.groupby] == ["task", "adapter", "init_scheme", "rank"]
    keys = [f"config.{key.name}.value" for key in workspace.runset_settings.groupby]
    assert [grid.runsets[0].groupby for grid in grids] == [keys, keys, []]
    jobs = ["train", "train", "report"]
    assert [grid.runsets[0].filters for grid in grids] == [f"Metric(\"JobType\") == '{job}'" for job in jobs]


def test_the_panels_show_keys_that_runs_have(results):
    panels = panels_of(written(results())[0])
    (by_rank,) = (panel for panel in panels if getattr(panel, "title", None) == "Score by rank")
    assert (by_rank.x.name, by_rank.y.name) == ("rank", "score")
    (all_runs,) = (panel for panel in panels if isinstance(panel, reports.ParallelCoordinatesPlot))
    assert [column.metric.name for column in all_runs.columns] == [
        *("adapter", "init_scheme", "rank", "options.optimizer.lr"),
        *("parameters/trainable", "cost/train_seconds", "score"),
    ]
    lines = {panel.title: panel for panel in panels if isinstance(panel, reports.LinePlot)}
    assert {"validation/accuracy", "validation/loss", "train/loss", "train/grad_norm"} <= set(lines)
    assert all(line.groupby.name == "adapter" for line in lines.values())
    (figures,) = (panel for panel in panels if isinstance(panel, reports.MediaBrowser))
    assert figures.media_keys == ["figures/score_vs_parameters"]


def test_the_command_line_may_name_another_project(results):
    workspace, _ = written(results(logger={"csv": {"_target_": "xlora_bench.CSVLogs"}}), "--project", "q")
    assert (workspace.entity, workspace.project) == ("", "q")


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    error = capsys.readouterr().err
    assert (stop.value.code, len(error.splitlines())) == (1, 1)
    return error


def test_what_is_missing_is_one_line(results, capsys, monkeypatch):
    assert "is not a results folder: it has no folder `runs`" in refused(capsys, "nothing", "-o", "x")
    folder = results(logger=None)
    assert "`--project` must name the project" in refused(capsys, folder, "-o", folder / "x")
    assert not (folder / "x").exists()
    monkeypatch.setattr(wandb_view, "find_spec", lambda name: None)
    assert "pip install 'xlora-bench[wandb-view]'" in refused(capsys, folder, "-o", folder / "x")


def test_w_and_b_that_does_not_answer_is_one_line(results, capsys, monkeypatch):
    class Absent:
        def __init__(self, *_, **__):
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr("wandb.Api", Absent)
    error = refused(capsys, results())
    assert "W&B did not take the view (no route to host); try `wandb login`, or write it to a file with -o" in error
