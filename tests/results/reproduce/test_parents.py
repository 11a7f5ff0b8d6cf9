"""A record may name its parent run, and nothing else by it."""

import pytest

from tests.helpers.records import record
from xlora_bench.results.reproduce.records_archive import with_parents
from xlora_bench.results.reproduce.retrain import check_parent_id, config_for
from xlora_bench.runs.record import Record

OWN, OTHER = "a" * 16, "b" * 16


@pytest.mark.parametrize("parent", ["../../x", "/etc", "", "A" * 16, "a" * 15, f"{OWN}\n"])
def test_a_parent_that_is_no_run_id_is_refused(parent):
    with pytest.raises(ValueError, match=f"^run {OTHER}: `hashes.parent` .* must be a run id"):
        check_parent_id(parent, of=f"run {OTHER}", children=(OTHER,))


@pytest.mark.parametrize("children", [(OWN,), (OWN, OTHER)])
def test_a_chain_of_parents_has_no_cycle(children):
    with pytest.raises(ValueError, match="starts from this run itself"):
        check_parent_id(OWN, of="run", children=children)
    check_parent_id("c" * 16, of="run", children=children)


def test_the_recorded_cache_folder_is_not_written_to(tmp_path):
    recorded: Record = record(OWN, config={"paths": {"cache_dir": str(tmp_path / "theirs")}, "trainer": {}})
    assert config_for(recorded, folder=tmp_path, data_dir=None)["paths"]["cache_dir"] == "~/.cache/xlora_bench"


def test_an_archive_reads_no_parent_outside_of_the_results_folder(tmp_path):
    record(OWN, hashes={"parent": "../../x"}).write(tmp_path / "runs" / OWN / "record.json")
    with pytest.raises(ValueError, match=f"^run {OWN}: `hashes.parent` .* must be a run id"):
        with_parents([OWN], results_dir=tmp_path)


def test_an_archive_of_runs_that_name_each_other_ends(tmp_path):
    for own, parent in ((OWN, OTHER), (OTHER, OWN)):
        record(own, hashes={"parent": parent}).write(tmp_path / "runs" / own / "record.json")
    assert [run.record.run_id for run in with_parents([OWN], results_dir=tmp_path)] == [OWN, OTHER]
