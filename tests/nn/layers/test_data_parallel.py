"""Two gloo processes compute the gradients of one."""

import socket

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.adapted import adapted, perturbed, seeded

pytestmark = pytest.mark.slow

X = torch.randn(4, 2, 6, generator=torch.Generator().manual_seed(1))


def model():
    """Return an adapted convolution and linear layer, anchored starts included."""
    layers = seeded(lambda: nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.Linear(6, 3)))
    return nn.Sequential(perturbed(adapted(layers[0])), perturbed(adapted(layers[1], "lu")))


def gradients(net, rows):
    """Return the gradients of the mean over `rows`."""
    net(rows).square().mean().backward()
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in net.named_parameters()
        if parameter.requires_grad
    }


def work(rank, port, folder):
    """Be process `rank` of two: see half of the rows, save the synchronised gradients."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save(gradients(DistributedDataParallel(model()), X[2 * rank : 2 * rank + 2]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(port, tmp_path), nprocs=2)
    expected = gradients(model(), X)
    for rank in range(2):
        actual = torch.load(tmp_path / f"{rank}.pt")
        assert actual.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, msg=name)
