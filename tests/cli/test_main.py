"""The first words of a command line."""

import pytest

from xlora_bench.cli.main import refuse, run_main_job


def test_what_is_refused_is_printed_without_control_characters(capsys, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        refuse("`--\x1b[2Jno\u202ething` is no option")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: `--\\x1b[2Jno\\u202ething` is no option\n"
    monkeypatch.setattr("sys.argv", ["xlora-bench", "--\x1b[2Jnothing"])
    with pytest.raises(SystemExit):
        run_main_job()
    assert "\x1b" not in capsys.readouterr().err
