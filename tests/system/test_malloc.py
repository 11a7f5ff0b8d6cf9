import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.process]

BIG = """
import resource
from xlora_bench.system.malloc import keep_freed_memory
import torch
{call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(faults() for _ in range(20)))
"""
PAGES = 40 * 2**20 // 4096


def page_faults(call):
    """How often the system gives a page when 40 MiB are taken again, at best."""
    command = [sys.executable, "-c", BIG.format(call=call)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_was_freed_is_not_asked_for_again():
    if page_faults("") < PAGES / 2:
        pytest.skip("this system gives freed memory again without glibc's thresholds")
    assert page_faults("keep_freed_memory()") < PAGES / 100
