import pytest

from xlora_bench.nn.ops.numerics import LATEST, arithmetic, revision


def test_the_latest_is_in_use_unless_a_cell_says_otherwise():
    assert revision() == LATEST
    with arithmetic(None):
        assert revision() == 1
        with arithmetic(2):
            assert revision() == 2
        assert revision() == 1
    with pytest.raises(KeyError), arithmetic(1):
        raise KeyError
    assert revision() == LATEST


@pytest.mark.parametrize("number", [0, LATEST + 1, "2", True, 1.0])
def test_other_revisions_are_refused(number):
    with pytest.raises(ValueError, match=r"`arithmetic` \(=.*must be 1 to"), arithmetic(number):
        pass
