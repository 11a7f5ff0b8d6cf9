"""Run many command lines in one process: `python -m tests.warm_process` reads a JSON list of them from stdin.

Prints, as JSON, the resident bytes after each.
"""

import json
import sys

import psutil

from xlora_bench.cli.main import main

if __name__ == "__main__":
    resident = []
    for arguments in json.load(sys.stdin):
        sys.argv = ["xlora_bench", *arguments]
        main()
        resident.append(psutil.Process().memory_info().rss)
    sys.stdout.write(json.dumps(resident))
