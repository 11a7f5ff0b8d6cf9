"""Write the page of a results folder: `report.html`, one file without any reference to another server or file."""

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from xlora_bench.results.comparison.build import Comparison
from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.frame.trials import without_trials
from xlora_bench.results.page.answers import answers
from xlora_bench.results.page.charts import diagram_rows, looks, specifications
from xlora_bench.results.page.runs import details, plain, run_table
from xlora_bench.results.page.scores import cost_labels, entries
from xlora_bench.results.tables.table import Table
from xlora_bench.runs.config_folder import CACHE_DIR
from xlora_bench.system.escape import one_line
from xlora_bench.system.io import write_atomically

NAME = "report.html"
VEGA_LITE = "6.4"
BUNDLES = {"1.9.0.post1": "373b1f84072b31010f15ceb787be6b415c53936411aae267c8c2b2b6ccde46e7"}
"""By version of vl-convert-python: SHA-256 of the JavaScript that it gives for `VEGA_LITE`."""
DIRECTIONS = re.compile(r"\\(u202[a-e]|u206[6-9])")
"""Characters in JSON that change the direction of writing; the page shows their names."""
MOST_LAYERS = 200
"""Modules in the chart of ranks by layer."""


def write_page(
    path: Path,
    *,
    title: str,
    frame: pd.DataFrame,
    table: Table | None,
    comparison: Comparison | None = None,
    results_dir: Path | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page of the runs of `frame`, with their table and comparison; return its path.

    `table` is None if there is no recorded run. `results_dir` is the folder that holds `runs/`: curves, ranks and
    factors are read there. `notes` are shown above the answer, such as what is not recorded yet.

    Raises:
        OSError: if it cannot be written.
    """
    trials = frame if table is None else without_trials(frame).reset_index(drop=True)
    data = {} if table is None else _data(trials, table, comparison, results_dir)
    data |= {"title": title, "runs_folder": _runs_folder(results_dir, path)}
    text = _template().render(
        title=title,
        answers=None if table is None else answers(frame, table, comparison),
        notes=notes,
        table_notes=[] if table is None else table.notes,
        comparison_notes=[] if comparison is None else comparison.notes,
        failures=_failures(trials),
        provenance=_provenance(trials),
        results_dir=str(results_dir or "DIR"),
        data=script(DIRECTIONS.sub(r"\\\\\1", json.dumps(data, allow_nan=False, separators=(",", ":")))),
        **_libraries(),
    )
    write_atomically(path, text)
    return path


def script(text: str) -> str:
    r"""Return JSON for a `<script>` element: `<` is written `\u003c`, so that no text ends the element."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _data(frame: pd.DataFrame, table: Table, comparison: Comparison | None, results_dir: Path | None) -> dict[str, Any]:
    methods = [method_name(row, table.row_labels) for row in table.rows]
    reference = "" if comparison is None else comparison.labels[comparison.reference]
    rows, costs = entries(table, comparison, frame), cost_labels(frame)
    more = details(frame, results_dir)
    return {
        "axes": list(table.axes.names),
        "methods": methods,
        "looks": looks(methods),
        "center": table.aggregation,
        "reference": reference,
        "costs": costs,
        "entries": rows,
        "runs": run_table(frame),
        **more,
        "layers": _layers(rows, more["ranks"]),
        "diagrams": [] if comparison is None else _diagrams(comparison),
        "charts": specifications(methods, reference=reference, costs=costs),
    }


def _runs_folder(results_dir: Path | None, page: Path) -> str | None:
    """Return the folder of the runs relative to that of the page."""
    if results_dir is None or results_dir.is_file():
        return None
    return Path(os.path.relpath(results_dir / "runs", page.parent)).as_posix()


def _layers(rows: Sequence[dict[str, Any]], ranks: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the mean rank of each module in each entry, if modules of a run have different ranks."""
    maps, index = ranks
    if not any(of_run and len(set(of_run.values())) > 1 for of_run in maps):
        return []
    result = []
    for row in rows:
        known = [maps[index[run]] for run in row["runs"] if maps[index[run]]]
        for module in list(dict.fromkeys(name for of_run in known for name in of_run))[:MOST_LAYERS]:
            values = [of_run[module] for of_run in known if module in of_run]
            mean = plain(sum(values) / len(values))
            result.append({"method": row["method"], "panel": row["panel"], "module": module, "rank": mean})
    return result


def _diagrams(comparison: Comparison) -> list[dict[str, Any]]:
    result = []
    for across in comparison.across:
        title = ", ".join(str(value) for value in across.setting if value is not None)
        interval = {
            name: [plain(each.estimate), plain(each.low), plain(each.high)] for name, each in across.iqm.items()
        }
        result.append({"title": title, "rows": diagram_rows(across), "text": list(across.sentences), "iqm": interval})
    return result


def _failures(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return collapsed and failed runs by reason: status, reason, and the ids of the runs."""
    bad = frame[frame["status"].isin(["collapsed", "failed", "missing"])]
    groups: dict[tuple[str, str], list[str]] = {}
    for status, reason, run_id in zip(bad["status"], bad["reason"], bad["run_id"], strict=True):
        text = reason if isinstance(reason, str) else "no reason recorded"
        groups.setdefault((str(status), text), []).append(str(run_id) if isinstance(run_id, str) else "")
    return [{"status": status, "reason": reason, "runs": runs} for (status, reason), runs in groups.items()]


def _provenance(frame: pd.DataFrame) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return, by name, the values of versions, code and data hashes, each with its number of runs."""
    names = [name for name in frame.columns if name.startswith(("code/", "versions/", "hashes/"))]
    result = []
    for name in names:
        counts = frame[name].dropna().astype(str).value_counts()
        result.append((name, [(str(value), int(count)) for value, count in counts.items()]))
    return [(name, values) for name, values in result if values]


@cache
def _template() -> jinja2.Template:
    folder = files(__package__) / "template"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")


def _shown(value: Any) -> Any:
    """Return texts without control characters; what is marked as safe stays."""
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _libraries() -> dict[str, str]:
    """Return JavaScript and CSS of the libraries: DataTables from itables, Vega-Lite from vl-convert."""
    itables = files("itables") / "html"
    return {
        "vega": script_code(vega_bundle(Path(CACHE_DIR).expanduser() / "page")),
        "tables": script(json.dumps((itables / "dt_bundle.js").read_text(encoding="utf-8"))),
        "tables_css": (itables / "dt_bundle.css").read_text(encoding="utf-8"),
    }


def vega_bundle(folder: Path) -> str:
    """Return the JavaScript of Vega-Lite. Building it takes two seconds; it is kept in `folder` if its hash is known.

    Others may write into a shared cache, so a file with another hash is not used.
    """
    version = metadata.version("vl-convert-python")
    path = folder / f"vega-{version}.js"
    with suppress(OSError):
        content = path.read_bytes()
        if sha256(content).hexdigest() == BUNDLES.get(version):
            return content.decode()
    import vl_convert  # noqa: PLC0415 - slow to import

    bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE))
    if sha256(bundle.encode()).hexdigest() == BUNDLES.get(version):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, bundle)
    return bundle


def script_code(code: str) -> str:
    r"""Return JavaScript for a `<script>` element: in its strings, what would end the element begins with `\x3c`."""
    return code.replace("</script", "\\x3c/script").replace("<!--", "\\x3c!--")
