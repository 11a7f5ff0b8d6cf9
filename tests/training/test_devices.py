"""Training on each device of this machine: the same losses in every precision and layout as in fp32 on the CPU."""

import math

import pytest

from tests.helpers.apps import SMALL, records
from tests.helpers.command_lines import run_all

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
EQUAL = (*SMALL, "model.dropout=0")  # the masks of dropout depend on device and layout
FP32 = ("trainer.precision=32-true",)
# the overrides, and how far the loss of an epoch may be from that of fp32 on the CPU
WAYS = {
    "fp32": (FP32, 1e-3),
    "padded": ((*FP32, "task.layout=padded"), 1e-3),
    "tf32": ((*FP32, "trainer.tf32=true"), 1e-2),
    "bf16": (("trainer.precision=bf16-mixed",), 3e-2),
}

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.xdist_group("devices")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the function that gives the record of each way on a device; all of them are trained at once."""
    known = {}

    def trained(device):
        if device not in known:
            folder = tmp_path_factory.mktemp(device)
            lines = [
                [
                    *SMALL,
                    *words,
                    "model.dropout=0",
                    f"trainer.accelerator={device}",
                    f"paths.results_dir={folder / name}",
                ]
                for name, (words, _) in WAYS.items()
            ]
            done = run_all([[*line, f"paths.cache_dir={folder / 'cache'}"] for line in lines])
            assert all(each.trained for each in done), [each.errors for each in done]
            known[device] = {name: records(folder / name)[0] for name in WAYS}
        return known[device]

    return trained


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
def test_losses_are_those_of_fp32_on_the_cpu(trained, device, way):
    expected, actual = (trained(one)[name]["metrics"]["history"] for one, name in (("cpu", "fp32"), (device, way)))
    assert len(actual) == len(expected) == 2
    for epoch, reference in zip(actual, expected, strict=True):
        assert math.isclose(epoch["loss"], reference["loss"], abs_tol=WAYS[way][1])


@pytest.mark.parametrize("device", DEVICES)
def test_the_record_names_the_precision_and_the_memory_of_the_device(trained, device):
    for name, record in trained(device).items():
        options = record["config"]["trainer"]
        assert options["precision"] == ("bf16-mixed" if name == "bf16" else "32-true")
        assert options["tf32"] is (True if name == "tf32" else None)
        assert device == "cpu" or record["cost"]["peak_memory_bytes"] > 0
