"""A view of logged runs in Weights & Biases as code: a saved workspace, and a report, with the same panels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from xlora_bench.results.reports.wandb_table import wandb_node
from xlora_bench.runs.record import Record, record_paths

NAME = "xlora_bench: score by rank and init scheme"
GROUPING = ("task", "adapter", "init_scheme", "rank")
"""Keys of the W&B config by which runs are grouped: what is left in a group are the seeds."""
COLUMNS = (
    *(f"config:{key}.value" for key in (*GROUPING, "seed")),
    *(f"summary:{key}" for key in ("score", "parameters/trainable", "cost/train_seconds", "cost/peak_memory_bytes")),
)
"""Columns of the table of runs, in W&B's notation."""


@dataclass(frozen=True, kw_only=True)
class LoggedRuns:
    """Where the runs of a results folder are in W&B, their headline metrics, and the names of the report's figures.

    `project` is None if no run was logged to W&B; `entity` is None for the default one of the account.
    """

    project: str | None
    entity: str | None
    headlines: tuple[str, ...]
    figures: tuple[str, ...]


def logged_runs(results_dir: Path) -> LoggedRuns:
    """Return what the records of a results folder say about their W&B runs; the youngest record names the project.

    Raises:
        ValueError: if it is not a results folder.
    """
    if not (results_dir / "runs").is_dir():
        raise ValueError(f"`{results_dir}` is not a results folder: it has no folder `runs`")
    node: Mapping[str, Any] = {}
    headlines: dict[str, None] = {}
    records = [Record.read(path) for path in record_paths(results_dir)]
    for record in sorted(records, key=lambda record: record.finished):
        if headline := record.metrics.get("headline"):
            headlines[headline] = None
        node = wandb_node(record.config.get("logger")) or node
    figures = {path.stem: None for path in sorted((results_dir / "reports").glob("*/*.png"))}
    return LoggedRuns(
        project=node.get("project"),
        entity=node.get("entity"),
        headlines=tuple(sorted(headlines)),
        figures=tuple(figures),
    )


@dataclass(frozen=True, kw_only=True)
class View:
    """The saved workspace and the report, objects of the package wandb-workspaces."""

    workspace: Any
    report: Any

    @classmethod
    def of(cls, runs: LoggedRuns, *, project: str | None, entity: str | None) -> Self:
        """Return the view of logged runs.

        Raises:
            ValueError: if the project is not known.
        """
        import wandb_workspaces.reports.v2 as wr  # noqa: PLC0415 - an extra
        import wandb_workspaces.workspaces as ws  # noqa: PLC0415 - an extra

        if project is None:
            raise ValueError(
                "no run of this folder was logged to W&B (logger=wandb), so `--project` must name the project"
            )
        sections = {"Score": score_panels(), "Curves": curve_panels(runs.headlines), "Report": report_panels(runs)}
        workspace = ws.Workspace(
            entity=entity or "",
            project=project,
            name=NAME,
            sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
            runset_settings=ws.RunsetSettings(
                groupby=[ws.Config(key) for key in GROUPING], pinned_columns=["run:displayName", *COLUMNS]
            ),
        )
        blocks = []
        trained = {"filters": "JobType = 'train'", "groupby": [f"config.{key}" for key in GROUPING]}
        for name, panels in sections.items():
            runset = wr.Runset(**({"filters": "JobType = 'report'"} if name == "Report" else trained))
            blocks += [wr.H2(name), wr.PanelGrid(runsets=[runset], panels=panels)]
        report = wr.Report(project=project, entity=entity or "", title=NAME, blocks=blocks)
        return cls(workspace=workspace, report=report)

    def as_json(self) -> dict[str, Any]:
        """Return `workspace` and `report` in the form in which W&B keeps them."""
        models = {"workspace": self.workspace._to_model(), "report": self.report._to_model()}
        return {name: model.model_dump(mode="json", by_alias=True, exclude_none=True) for name, model in models.items()}

    def save(self) -> list[str]:
        """Save both in W&B; return a line with the address of each.

        Raises:
            ValueError: if W&B does not answer or refuses.
        """
        import wandb  # noqa: PLC0415 - slow to import

        try:
            entity = self.workspace.entity or wandb.Api().default_entity
            self.workspace.entity = self.report.entity = entity
            self.workspace.save()
            self.report.save()
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"W&B did not take the view ({reason}); try `wandb login`, or write it to a file with -o view.json"
            ) from error
        return [f"Workspace: {self.workspace.url}", f"Report: {self.report.url}"]


def score_panels() -> list[Any]:
    """Return the panels of the score: by rank, by init scheme, and beside all that was varied."""
    import wandb_workspaces.reports.v2 as wr  # noqa: PLC0415 - an extra

    score, trained = wr.SummaryMetric("score"), wr.SummaryMetric("parameters/trainable")
    axes = (
        *(wr.Config(key) for key in ("adapter", "init_scheme", "rank", "options.optimizer.lr")),
        *(trained, wr.SummaryMetric("cost/train_seconds"), score),
    )
    bars = {"metrics": ["score"], "orientation": "v", "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    return [
        wr.ScatterPlot(title="Score by rank", x=wr.Config("rank"), y=score, log_x=True),
        wr.ScatterPlot(title="Score by trained parameters", x=trained, y=score, log_x=True),
        *(
            wr.BarPlot(title=f"Score by {key}, mean and standard deviation", groupby=wr.Config(key), **bars)
            for key in ("init_scheme", "adapter")
        ),
        wr.ParallelCoordinatesPlot(
            title="All runs", columns=[wr.ParallelCoordinatesPlotColumn(metric=axis) for axis in axes]
        ),
    ]


def curve_panels(headlines: Sequence[str]) -> list[Any]:
    """Return the curves, one mean per adapter."""
    import wandb_workspaces.reports.v2 as wr  # noqa: PLC0415 - an extra

    by_epoch = [f"validation/{name}" for name in (*headlines, "loss")]
    axes = {
        **dict.fromkeys(by_epoch, "validation/epoch"),
        **dict.fromkeys(("train/loss", "train/grad_norm", "factors/update"), "trainer/global_step"),
    }
    return [
        wr.LinePlot(
            title=name,
            x=axis,
            y=[name],
            groupby=wr.Config("adapter"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )
        for name, axis in axes.items()
    ]


def report_panels(runs: LoggedRuns) -> list[Any]:
    """Return the table and the figures of the W&B runs of job type `report`."""
    import wandb_workspaces.reports.v2 as wr  # noqa: PLC0415 - an extra

    figures = [wr.MediaBrowser(title="Figures", media_keys=[f"figures/{name}" for name in runs.figures])]
    return [wr.WeavePanelSummaryTable(table_name="table"), *(figures if runs.figures else [])]
