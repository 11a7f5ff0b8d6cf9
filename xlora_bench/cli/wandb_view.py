"""`xlora-bench wandb-view [DIR]`: a saved workspace and a report in W&B on the runs of a results folder."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from xlora_bench.cli.parser import Parser
from xlora_bench.cli.status import add_results_dir
from xlora_bench.runs.console import console

ABOUT = """\
Make a saved workspace and a report in W&B, on the runs of a results folder that were logged with logger=wandb: the
score by rank and init scheme, parallel coordinates, curves by adapter, the table and the figures. With -o nothing is
sent: both are written to a file as JSON."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the view in W&B, or write it to a file; return the exit code."""
    parser = Parser(prog="xlora-bench wandb-view", description=ABOUT)
    add_results_dir(parser)
    parser.add_argument("--entity", help="user or team in W&B (that of the runs, else your default one)")
    parser.add_argument("--project", help="project in W&B (that of the runs)")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="write both to FILE as JSON, and send nothing")
    options = parser.parse_args(arguments)
    if find_spec("wandb_workspaces") is None:
        parser.error("this command needs the package wandb-workspaces: pip install 'xlora-bench[wandb-view]'")
    from xlora_bench.results.reports.wandb_view import View, logged_runs  # noqa: PLC0415 - slow to import

    try:
        runs = logged_runs(options.results_dir)
        view = View.of(runs, entity=options.entity or runs.entity, project=options.project or runs.project)
        if options.out is not None:
            options.out.write_text(json.dumps(view.as_json(), indent=1) + "\n", encoding="utf-8")
            lines = [f"File: {options.out}"]
        else:
            lines = view.save()
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for line in lines:
        console().print(line, soft_wrap=True, markup=False, highlight=False)
    return 0
