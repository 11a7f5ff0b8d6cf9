"""Option values by module name."""

import pytest

from xlora_bench.adapters.patterns import pattern_value

NAME = "encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ({}, 8),
        ({"query": 1}, 1),
        ({NAME: 2}, 2),
        ({"uery": 3, "ayer.0.attention.self.query": 4}, 8),  # a part of a word is no match
        ({"query": 1, "self.query": 5, "key": 6}, 5),  # the longest one wins
        ({"encoder": 7}, 8),  # a beginning is no ending
    ],
)
def test_the_longest_dotted_ending_gives_the_value(pattern, value):
    assert pattern_value(pattern, NAME, 8) == value
