"""Three embedded tasks, written by a small grammar from our own word lists, for quick runs without a network.

A sentence gives a verdict, stressed ("truly good") or denied ("hardly good"); half of the good verdicts deny a
bad word and the reverse, so no single word tells them apart and a bag of words stays at chance.

* `synth_single`: is the verdict good?
* `synth_pair`: does the second sentence ("The nurse liked the soup.") agree with the verdict of the first?
* `synth_pair_regression`: two verdicts of one thing, worth 1 and 1.5 points, plus or minus. The score is centred:
  with a mean far from 0 the first steps at a high learning rate only move the output and flatten the features.

Validation scores (accuracy, accuracy, Pearson) of all-MiniLM-L6-v2, seed 0, batch 32, linear decay, last epoch:

| what trains | rows x epochs, learning rate | single | pair | pair regression |
|---|---|---|---|---|
| head only | 2,048 x 20, 5e-3 | 0.717 | 0.531 | 0.237 |
| everything | 2,048 x 4, 1e-4 | 1.000 | 1.000 | 1.000 |
| LoRA (query, value; rank 8, alpha 16) and head | 1,024 x 4 (single: 2), 3e-3 | 1.000 | 1.000 | 0.997 |
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from xlora_bench.runs import seeds

VERSION = 1  # raise it with every change of words or grammar: it moves the stream and so the fingerprint
ROWS = {"train": 2048, "validation": 512}

PEOPLE = "baker nurse farmer teacher painter driver sailor tailor singer gardener doctor hunter writer guard"
THINGS = "soup room film hotel song garden lesson story coat cake chair bread"
GOOD = "good fresh warm clean bright friendly tasty gentle pleasant lovely honest useful"
BAD = "bad rotten cold dirty gloomy rude bland cruel nasty ugly dishonest useless"
FOR = "liked loved enjoyed admired praised"
AGAINST = "hated disliked regretted despised criticised"
STRESS = ("really", "truly", "clearly", "quite")
DENIAL = ("not", "never", "hardly", "far from")


class Dice:
    """Choices by `Random.random` alone, the one stream that Python keeps from version to version."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def choose(self, options: Sequence[str]) -> str:
        """Return one of `options`."""
        return options[int(self._random() * len(options))]

    def word(self, words: str) -> str:
        """Return one word of a list written as one text."""
        return self.choose(words.split())

    def flip(self) -> bool:
        """Return True half of the time."""
        return self._random() < 0.5


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """A task's text columns, the labels it gives in turn, and how a row of a given label is written."""

    columns: tuple[str, ...]
    labels: tuple[int, ...] | tuple[float, ...]
    write: Callable[[Dice, float], tuple[str, ...]]


def read(name: str, split: str) -> pd.DataFrame:
    """Return the rows of one split: balanced labels, no text twice, neither within nor across splits.

    Raises:
        ValueError: If the split is not "train" or "validation".
    """
    if split not in ROWS:
        raise ValueError(f"task {name!r} has no split {split!r}: it has {', '.join(ROWS)}")
    grammar = GRAMMARS[name]
    dice = Dice(seeds.derive(VERSION, "synthetic", name))
    rows: dict[tuple[str, ...], float] = {}
    while len(rows) < sum(ROWS.values()):
        label = grammar.labels[len(rows) % len(grammar.labels)]
        rows.setdefault(grammar.write(dice, label), label)
    frame = pd.DataFrame(list(rows), columns=list(grammar.columns)).assign(label=list(rows.values()))
    return frame[: ROWS["train"]] if split == "train" else frame[ROWS["train"] :].reset_index(drop=True)


def _verdict(dice: Dice, *, good: bool) -> str:
    """Say that something is good or bad, half of the time by denying the opposite."""
    denied = dice.flip()
    degree = dice.choose(DENIAL if denied else STRESS)
    return f"{degree} {dice.word(GOOD if good != denied else BAD)}"


def _single(dice: Dice, label: float) -> tuple[str, ...]:
    verdict = _verdict(dice, good=label == 1)
    return (f"The {dice.word(PEOPLE)} said the {dice.word(THINGS)} was {verdict}.",)


def _pair(dice: Dice, label: float) -> tuple[str, ...]:
    person, thing, good = dice.word(PEOPLE), dice.word(THINGS), dice.flip()
    deed = dice.word(FOR if good == (label == 1) else AGAINST)
    return (
        f"The {person} said the {thing} was {_verdict(dice, good=good)}.",
        f"The {person} {deed} the {thing}.",
    )


def _pair_regression(dice: Dice, score: float) -> tuple[str, ...]:
    thing, verdicts = dice.word(THINGS), (score in (-0.5, 2.5), score > 0)
    return tuple(f"The {dice.word(PEOPLE)} said the {thing} was {_verdict(dice, good=good)}." for good in verdicts)


GRAMMARS = {
    "synth_single": Grammar(columns=("sentence",), labels=(0, 1), write=_single),
    "synth_pair": Grammar(columns=("sentence1", "sentence2"), labels=(0, 1), write=_pair),
    "synth_pair_regression": Grammar(
        columns=("sentence1", "sentence2"), labels=(-2.5, -0.5, 0.5, 2.5), write=_pair_regression
    ),
}
