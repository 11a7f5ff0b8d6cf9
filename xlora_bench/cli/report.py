"""`xlora-bench report RESULTS_DIR [-o report.html]`: one HTML page of all recorded runs, for any browser, offline."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from xlora_bench.cli.parser import Parser
from xlora_bench.cli.recorded_runs import add_report_options, home, recorded_runs, report_settings
from xlora_bench.results.page.write import NAME
from xlora_bench.results.reports.report import report_page
from xlora_bench.runs.console import console
from xlora_bench.sweeps.reporting.run_states import run_states

ABOUT = """\
Write one HTML file with the answer, the table, charts, learning curves and every run. It needs no server, no network
and no account: open it in a browser, or send it to someone. A sweep writes the page of its own runs into its report
folder."""
UNRECORDED = ("planned", "running", "interrupted")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page of a results folder; return the exit code."""
    parser = Parser(prog="xlora-bench report", description=ABOUT)
    add_report_options(parser)
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=f"the page (RESULTS_DIR/{NAME})")
    options = parser.parse_args(arguments)
    terminal = console()
    try:
        settings = report_settings(options)
        frame = recorded_runs(options.results_dir, options.filter)
        path = report_page(
            frame, options.out or home(options.results_dir) / NAME, notes=_notes(options.results_dir), **settings
        )
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    terminal.print(f"{len(frame)} runs: {path}", soft_wrap=True, markup=False, highlight=False)
    return 0


def _notes(results_dir: Path) -> list[str]:
    """Return a sentence on the runs of a results folder that have no record, if there are any."""
    if results_dir.is_file():
        return []
    counts = Counter(run.state for run in run_states(results_dir))
    without = [f"{counts[state]} {state}" for state in UNRECORDED if counts[state]]
    if not without:
        return []
    return [
        f"Runs of this folder without a record, which are not on this page: {', '.join(without)}. "
        f"`xlora-bench status {results_dir}` lists them."
    ]
