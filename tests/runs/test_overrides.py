"""Overrides: what a YAML value is after Hydra's override grammar has read its text."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from xlora_bench.runs.overrides import PLAIN, START_FROM, as_lines, as_text, from_lines, listed, parent_overrides

TEXTS = st.text(max_size=12).filter(lambda text: not PLAIN.fullmatch(text)) | st.sampled_from(["lora", "a/b", "x-1"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), inner, max_size=3)
    ),
)
KEYS = st.from_regex(r"[a-z]{1,6}(\.[a-z]{1,6}){0,2}", fullmatch=True)


def read(text: str):
    return OverridesParser.create().parse_override(f"key={text}").value()


@given(VALUES)
@example("a'b\\")
@example("\\'")
@example(" x ")
def test_a_value_is_read_back_as_it_was(value):
    assert unquoted(read(as_text(value))) == value


def unquoted(value):
    """A value of Hydra's grammar with plain text in place of its quoted strings."""
    if isinstance(value, dict):
        return {key: unquoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unquoted(item) for item in value]
    return getattr(value, "text", value)


def test_a_number_in_yaml_without_a_dot_stays_a_number():
    assert read(as_text("1e-3")) == 1e-3  # YAML 1.1 reads 1e-3 as text


@given(st.dictionaries(KEYS, SCALARS.map(as_text), max_size=5))
def test_lines_and_overrides_are_one(overrides):
    assert from_lines(as_lines(overrides)) == overrides


@given(
    st.dictionaries(KEYS.filter(lambda key: key not in {START_FROM, "rerun"}), st.integers().map(str), max_size=4),
    st.dictionaries(
        KEYS.filter(lambda key: key not in {START_FROM, "rerun"}), st.integers().map(str), min_size=1, max_size=4
    ),
)
def test_a_parent_has_its_own_overrides_over_those_of_the_run(own, changes):
    start_from = as_lines(changes)
    parent = from_lines(
        parent_overrides([*as_lines(own), f"{START_FROM}={as_text(start_from)}"], start_from=start_from)
    )
    assert listed(as_text(start_from)) == start_from
    assert parent == {**own, **changes, START_FROM: "null", "rerun": "false"}
