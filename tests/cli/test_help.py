"""The program's own help and version, and what it says to words that are no command."""

import subprocess
import sys
import time

import pytest

import xlora_bench
from tests.helpers.names import CONF, ROOT, choices
from xlora_bench.cli import help as help_page
from xlora_bench.cli import main as program
from xlora_bench.cli.main import SUBCOMMANDS, command_of, main


def started(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "xlora_bench", *words], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_every_group_choice_and_primary_config_is_on_the_page():
    words = set(help_page.page().split())
    for group in help_page.GROUPS:
        assert {f"{group}=", *choices(group)} <= words
    for folder in help_page.PRIMARY:
        assert {f"{folder}/{name}" for name in choices(folder)} <= words
    assert not [word for word in words if word.startswith("_") or "/_" in word]


def test_no_group_is_left_out():
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders == {*help_page.GROUPS, *help_page.PRIMARY, "hydra"}


def test_every_subcommand_is_on_the_page():
    page = help_page.page()
    assert not [name for name in set(SUBCOMMANDS) - {"help"} if f"xlora-bench {name}" not in page]
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.slow
@pytest.mark.process
def test_help_answers_at_once_and_is_ours():
    before = time.perf_counter()
    done = started("adapter=lora", "--help")
    assert time.perf_counter() - before < 1  # measured: 0.25
    assert done.stdout == help_page.page() + "\n"
    assert "ydra" not in done.stdout.replace("hydra/", "").replace("--hydra-help", "").replace("Hydra's own", "")
    code = "import sys; from xlora_bench.cli.main import main; sys.argv = ['x', '--help']\ntry: main()\nfinally: "
    code += "assert not {'torch', 'hydra', 'numpy', 'rich'} & set(sys.modules), set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.process
def test_hydras_own_options_still_work():
    assert "Hydra (1." in started("--hydra-help").stdout
    assert "lr: 0.5" in started("--cfg", "job", "optimizer.lr=0.5").stdout


def test_version(capsys):
    for words, lines in ((["--version"], 1), (["version"], 7)):
        with pytest.raises(SystemExit) as stop:
            called(*words)
        out = capsys.readouterr().out.splitlines()
        assert stop.value.code == 0
        assert (out[0], len(out)) == (f"xlora-bench {xlora_bench.__version__}", lines)
    assert [line.split()[0] for line in out[1:]] == [
        "python",
        "torch",
        "transformers",
        "peft",
        "lightning",
        "hydra-core",
    ]


def called(*words):
    before, sys.argv = sys.argv, ["xlora-bench", *words]
    try:
        main()
    finally:
        sys.argv = before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["statsu"], "`statsu` is not a command; did you mean `status`?"),
        (["lora"], "`lora` is not a command; `xlora-bench --help` lists them; an override is key=value"),
        (
            ["--foo"],
            "unrecognized arguments: --foo; options first, then all overrides; `xlora-bench --help` lists both",
        ),
        (["table"], "the following arguments are required: results_dir; see `xlora-bench table --help`"),
        (["adapter=lorra"], "`adapter` (=lorra) is not one of its choices; did you mean `lora`? Available options in"),
        (
            ["--config-name", "paper/x"],
            "Cannot find primary config 'paper/x'. Check that it's in your config search path.",
        ),
        (["seed=[0"], "an override is key=value"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        called(*words)
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert message in error
    assert len(error.splitlines()) == 1


def test_overrides_go_to_the_main_job():
    assert command_of(["-m", "seed=0,1"]) == (None, ["-m", "seed=0,1"])
    assert command_of(["table", "--help"]) == ("table", ["--help"])
    assert command_of([]) == (None, [])


def test_the_working_folder_is_importable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/usr/bin"])
    program.make_working_folder_importable()
    program.make_working_folder_importable()
    assert sys.path == [str(tmp_path), "/usr/bin"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("results", "table"),
        ("results.diff", "diff"),
        ("results.verify", "verify"),
        ("results.summary", "archive"),
        ("spectrum", "spectrum"),
    ],
)
def test_old_module_commands_print_the_new_ones(module, command):
    command_line = [sys.executable, "-m", f"xlora_bench.{module}", "multirun"]
    done = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"error: `python -m xlora_bench.{module}` is now `xlora-bench {command}`, with the same arguments\n"
    )
