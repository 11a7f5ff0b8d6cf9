import subprocess
import sys

import pytest

from tests.helpers.names import ROOT


@pytest.mark.process
@pytest.mark.slow
def test_tables_and_pages_import_neither_torch_nor_lightning():
    heavy = "{'torch', 'lightning', 'transformers', 'datasets'} & set(sys.modules)"
    code = f"import sys, xlora_bench.cli.table, xlora_bench.cli.report, xlora_bench.cli.compare; print({heavy})"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
