"""Every published number of `conf/paper/`, against a transcription of the tables it was taken from.

`published.csv` holds the tables as they are printed, in percent, by the section of the specification that collects
them; where that specification is at hand the transcription is checked against it too. X-LoRA's table is in
`test_xlora_paper.py`.
"""

import csv
import os
import re
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.names import CONF
from xlora_bench.results.protocols.load_paper import load_paper as load_paper_from_file
from xlora_bench.results.protocols.published import AVERAGE

load_paper = cache(load_paper_from_file)
TABLES = Path(__file__).with_name("published.csv")
TASKS = {"mnli": "MNLI", "sst2": "SST-2", "mrpc": "MRPC", "cola": "CoLA", "qnli": "QNLI", "qqp": "QQP", "rte": "RTE"}
TASKS |= {"stsb": "STS-B"}
LORA = "arXiv 2106.09685v2, Table 2"

BASE = {
    ("full",): ("3.1", "RoB-base FT*", "125.0M"),
    ("bitfit",): ("3.1", "RoB-base BitFit*", "0.1M"),
    ("AdptD* 0.3M",): ("3.1", "RoB-base AdptD*", "0.3M"),
    ("AdptD* 0.9M",): ("3.1", "RoB-base AdptD*", "0.9M"),
    ("lora",): ("3.1", "RoB-base LoRA", "0.3M"),
}
LARGE = {("full",): ("3.1", "RoB-large FT*", "355.0M"), ("lora",): ("3.1", "RoB-large LoRA", "0.8M")}
TRAIN_B, TRAIN_A = "A_rand_hB_zero", "hA_zero_B_rand"
PAPERS = {
    "lora_roberta_base": BASE,
    "lora_roberta_base_as_script": BASE,
    "lora_roberta_large": LARGE,
    "lora_roberta_large_as_script": LARGE,
    "lora_roberta_large_dagger": {
        ("AdptP† 3.0M",): ("3.1", "RoB-large AdptP†", "3.0M"),
        ("AdptP† 0.8M",): ("3.1", "RoB-large AdptP†", "0.8M"),
        ("AdptH† 6.0M",): ("3.1", "RoB-large AdptH†", "6.0M"),
        ("AdptH† 0.8M",): ("3.1", "RoB-large AdptH†", "0.8M"),
        ("lora",): ("3.1", "RoB-large LoRA†", "0.8M"),
    },
    "asym_roberta_large": {
        ("lora", None, 8): ("3.3 memory", "LoRA r=8", ""),
        ("peft_adalora", None, 8): ("3.3 memory", "AdaLoRA", ""),
        ("peft_ia3", None, None): ("3.3 memory", "(IA)³", ""),
        ("asymmetric", TRAIN_B, 8): ("3.3 memory", "B̂₀A_rand r=8", ""),
        ("asymmetric", TRAIN_B, 16): ("3.3 memory", "B̂₀A_rand r=16", ""),
        ("asymmetric", TRAIN_A, 16): ("3.3 memory", "A-only r=16", ""),
        ("asymmetric", TRAIN_A, 8): ("3.3 averages", "A-only r=8", "0.3 %"),
    },
    "loldu_roberta_base": {
        ("full",): ("3.4", "FT", "125M"),
        ("bitfit",): ("3.4", "BitFit", "0.1M"),
        ("lora",): ("3.4", "LoRA", "0.3M"),
        ("pissa",): ("3.4", "PiSSA", "0.707M"),
        ("vera",): ("3.4", "VeRA", "0.043M"),
        ("loldu",): ("3.4", "LoLDU", "0.0184M"),
    },
    "vera_roberta_base": {
        ("vera",): ("3.5", "base VeRA r=1024", "0.043M"),
        ("lora",): ("3.5", "base LoRA", "0.3M"),
    },
    "vera_roberta_large": {
        ("vera",): ("3.5", "large VeRA r=256", "0.061M"),
        ("lora",): ("3.5", "large LoRA†", "0.8M"),
        ("lora_xs",): ("3.5", "large LoRA-XS r=25", "60K"),
    },
    "fourierft_roberta_base": {("peft_fourierft",): ("3.5", "base FourierFT n=1000", "0.024M")},
    "fourierft_roberta_large": {("peft_fourierft",): ("3.5", "large FourierFT n=1000", "0.048M")},
    "pissa_deberta_v3_base": {
        ("full", "builtin"): ("3.6", "Full FT", "184M"),
        ("bitfit", "builtin"): ("3.6", "BitFit", "0.1M"),
        ("HAdapter", None): ("3.6", "HAdapter", "1.22M"),
        ("PAdapter", None): ("3.6", "PAdapter", "1.18M"),
        ("lora", "gaussian"): ("3.6", "LoRA (Gaussian)", "1.33M"),
        ("lora", "kaiming"): ("3.6", "LoRA (Kaiming)", "1.33M"),
        ("dora", "kaiming"): ("3.6", "DoRA", "1.27M"),
        ("peft_adalora", "builtin"): ("3.6", "AdaLoRA", "1.27M"),
        ("pissa", "svd_both"): ("3.6", "PiSSA", "1.33M"),
    },
}
STATUS = {
    "asym_roberta_large": {"memory", "secondary"},
    "loldu_roberta_base": {"secondary"},
    "vera_roberta_base": {"secondary", "pdf"},
    "vera_roberta_large": {"secondary", "pdf", "memory"},
    "fourierft_roberta_base": {"logs"},
    "fourierft_roberta_large": {"logs"},
    "pissa_deberta_v3_base": {"secondary"},
}
AVERAGES = {
    ("lora", None, 8): "LoRA r=8",
    ("peft_adalora", None, 8): "AdaLoRA",
    ("asymmetric", TRAIN_B, 8): "B̂₀A_rand r=8",
    ("asymmetric", TRAIN_B, 16): "B̂₀A_rand r=16",
    ("asymmetric", TRAIN_A, 8): "A-only r=8",
    ("asymmetric", TRAIN_A, 16): "A-only r=16",
}


@pytest.fixture(scope="module")
def tables():
    with TABLES.open(encoding="utf-8") as file:
        return {(line["section"], line["row"], line["parameters"]): line for line in csv.DictReader(file)}


def by_row(paper):
    rows = {}
    for number in paper.numbers:
        rows.setdefault(number.row, {})[number.column[1]] = number
    return rows


def printed(text):
    """Return value and spread of a printed number, in our unit."""
    value, _, spread = text.partition("±")
    return float(value) / 100, float(spread) / 100 if spread else None


@pytest.mark.parametrize("name", PAPERS)
def test_every_number_and_no_other_is_there(name, tables):
    found = by_row(load_paper(name))
    assert set(found) == set(PAPERS[name])
    for row, key in PAPERS[name].items():
        wanted = {task: printed(tables[key][text]) for task, text in TASKS.items() if tables[key][text]}
        numbers = {task: number for task, number in found[row].items() if task != AVERAGE}
        assert {task: (number.value, number.spread) for task, number in numbers.items()} == {
            task: (pytest.approx(value), None if spread is None else pytest.approx(spread))
            for task, (value, spread) in wanted.items()
        }, row
        counts = {number.parameters for number in numbers.values()} - {None}
        if key[2] and counts:
            factor = {"M": 1e6, "K": 1e3}[key[2][-1]]
            assert [*counts] == [pytest.approx(float(key[2][:-1]) * factor)], row


@pytest.mark.parametrize("name", PAPERS)
def test_averages_are_recomputed_and_agree_with_the_printed_ones(name, tables):
    for row, numbers in by_row(load_paper(name)).items():
        text = tables[PAPERS[name][row]]["Avg"]
        if AVERAGE not in numbers:
            assert not text
            continue
        half_a_digit = 0.5 * 10.0 ** -(len(text.partition(".")[2]))
        assert numbers[AVERAGE].value * 100 == pytest.approx(float(text), abs=half_a_digit + 0.051), row
        parts = [number.value for task, number in numbers.items() if task != AVERAGE]
        if parts and numbers[AVERAGE].status != "secondary":
            assert numbers[AVERAGE].value == pytest.approx(sum(parts) / len(parts))


def test_the_averages_of_asymmetry_are_the_ones_with_a_source(tables):
    found = by_row(load_paper("asym_roberta_large"))
    for row, name in AVERAGES.items():
        (line,) = (line for key, line in tables.items() if key[:2] == ("3.3 averages", name))
        assert (found[row][AVERAGE].value * 100, found[row][AVERAGE].status) == (
            pytest.approx(float(line["Avg"])),
            "secondary",
        )
        assert {number.status for task, number in found[row].items() if task != AVERAGE} <= {"memory"}


@pytest.mark.parametrize("name", PAPERS)
def test_every_number_says_where_it_is_from_and_how_sure_it_is(name):
    numbers = load_paper(name).numbers
    assert all(number.source for number in numbers)
    assert {number.status for number in numbers} == STATUS.get(name, {"pdf"})
    assert all(number.n == 5 for number in numbers if number.status == "logs")
    if name.startswith("lora_"):
        assert {number.source for number in numbers} == {LORA}
        assert {number.n for number in numbers if number.row == ("lora",)} == {5}


def test_every_paper_config_is_checked():
    files = {path.stem for path in (CONF / "paper").glob("*.yaml") if not path.stem.startswith("_")}
    assert files == {*PAPERS, "quickstart", "xlora_sst2"}


def test_the_transcription_is_that_of_the_specification(tables):
    path = Path(os.environ.get("XLORA_BENCH_SPEC", CONF.parents[1] / "shared" / "spec")) / "seed-systems.md"
    if not path.is_file():
        pytest.skip(f"no specification at {path} (name its folder by XLORA_BENCH_SPEC)")
    specified = {}
    for section in ("3.1", "3.3", "3.4", "3.5", "3.6"):
        for head, *lines in markdown_tables(path.read_text(encoding="utf-8"), section):
            names = [{"#": "parameters", '"params"': "parameters", "mean": "Avg", "All": "Avg"}.get(n, n) for n in head]
            for line in lines:
                specified[section, plain(line[0]), line[1]] = dict(zip(names, line, strict=True))
    for (section, row, parameters), ours in tables.items():
        if section == "3.3 averages" and row.startswith("A-only"):
            (line,) = (line for key, line in specified.items() if key[1].startswith("A-only, B random frozen"))
            averages = dict(zip(("A-only r=8", "A-only r=16"), line["Avg"].split(" / "), strict=True))
            assert ours["Avg"] == averages[row]
            continue
        ending = lambda key: parameters in ("", key[2])  # noqa: B023, E731 - a table without counts
        found = [line for key, line in specified.items() if key[:2] == (section[:3], row) and ending(key)]
        assert any(all(number(line.get(name, "")) == ours[name] for name in [*TASKS.values(), "Avg"]) for line in found)


def markdown_tables(text, section):
    """Return the tables of one section as lists of lines of runs, the head first."""
    part = re.split(r"\n##", text.partition(f"### {section} ")[2])[0]
    blocks = re.findall(r"(?:^\|.*\n?)+", part, flags=re.MULTILINE)
    for block in blocks:
        lines = [
            [cell.strip().replace("**", "") for cell in line.strip(" |").split("|")] for line in block.splitlines()
        ]
        width = len(lines[0])
        yield [(line + [""] * width)[:width] for line in lines if not set("".join(line)) <= set("-")]


def plain(name):
    return re.sub(r" \((no MNLI.*|train B)\)?$", "", name)


def number(text):
    return text if re.fullmatch(r"[\d.±]+", text) else ""
