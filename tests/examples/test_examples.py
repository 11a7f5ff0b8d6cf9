"""Each example runs, and shows what it says."""

import importlib.util
import inspect

import pytest

from tests.helpers.names import CONF

pytestmark = pytest.mark.slow

EXAMPLES = CONF.parent / "examples"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def falls(losses, *, to):
    """Whether the loss ends below the fraction `to` of its start."""
    return losses[-1] < to * losses[0]


def test_loldu_on_a_vision_transformer():
    result = loaded("loldu_vit").main()
    assert result.unchanged_at_start
    assert [name.rsplit(".", 1)[-1] for name in result.trained] == ["z"] * 4  # q and v of two layers
    assert set(result.trained.values()) == {32}  # r = full rank = 32, one number for each pivot
    assert falls(result.losses, to=0.3)
    assert result.merging_error < 1e-4
    assert result.base_restored


def test_asymmetric_lora_on_gpt2():
    result = loaded("asymmetric_gpt2").main()
    assert result.unchanged_at_start
    assert [name.rsplit(".", 1)[-1] for name in result.trained] == ["lora_B"] * 2
    assert set(result.trained.values()) == {4 * 96}  # r out: c_attn makes query, key and value of width 32
    assert result.A_orthonormal
    assert result.frozen_A_unchanged
    assert falls(result.losses, to=0.6)


def test_two_styles_on_a_conv_net():
    result = loaded("conv_styles").main()
    assert result.unchanged_at_start
    assert set(result.losses) == {"surrealism", "pokemon"}
    assert all(falls(losses, to=0.1) for losses in result.losses.values())
    assert result.order_does_not_matter
    assert result.sum_error < 1e-4
    assert result.moved["both"] > max(result.moved["surrealism"], result.moved["pokemon"])
    assert result.base_kept


@pytest.fixture(scope="module")
def methods():
    module = loaded("xlora_methods")
    return module, module.main()


# r (in + out) = 512 for a 32 x 32 weight at r = 8, six weights; LU: less r (r - 1); Cholesky: r n - r (r - 1) / 2
COUNTS = {"baseline": 512, "svd": 512, "ortho_penalty": 512, "ortho_qr": 512, "struct_lu": 456, "struct_cholesky": 228}


@pytest.mark.parametrize("name", COUNTS)
def test_method_of_xlora(methods, name):
    module, results = methods
    result = results[name]
    assert result.unchanged_at_start
    assert result.parameters == 6 * COUNTS[name]
    assert falls(result.losses, to=0.5)
    assert len(inspect.getsource(getattr(module, name)).splitlines()) <= 5


def test_orthogonal_methods_of_xlora_keep_b_orthonormal(methods):
    errors = {name: result.orthonormality_error for name, result in methods[1].items()}
    assert errors["ortho_qr"] < 1e-5  # the last step is one of the retractions
    assert errors["ortho_penalty"] < errors["svd"] < errors["baseline"]


def test_every_example_is_tested():
    tested = {"two_tasks", "loldu_vit", "asymmetric_gpt2", "conv_styles", "xlora_methods"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested
