"""Faults: processes killed at random file operations, flipped bits and a full disk, against an undisturbed sweep.

    make faults                             # 100 kills of a sweep, 50 of a rerun, 30 flipped bits, 20 full disks
    python -m tests.faults 10 5 5 5 --seed 3

Records without times, adapters, factors and predictions must be those of the undisturbed sweep, to the byte, or the
fault must be named. The command prints one line per part and exits with 1 at the first difference.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.helpers.apps import SMALL

SWEEP = ("-m", *SMALL, "adapter=lora,pissa", "monitor.every_n_steps=2")
FILES = ("adapter.safetensors", "adapter_best.safetensors", "predictions.parquet", "factors.csv")
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
"""Audit events of Python that touch a path."""
KILLED = -signal.SIGKILL
OPERATIONS = 400
"""File operations of the sweep, of which 121 are left when both runs are recorded; it must be able to end."""


def main() -> int:
    """Run all parts; return the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("kills", 100), ("reruns", 50), ("flips", 30), ("disks", 20)):
        options.add_argument(name, nargs="?", type=int, default=default)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    rng = random.Random(chosen.seed)
    preload()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = undisturbed(folder / "undisturbed")
        parts = (
            ("a sweep killed", killed_sweeps, chosen.kills),
            ("a rerun killed", killed_reruns, chosen.reruns),
            ("a bit flipped", flipped_bits, chosen.flips),
            ("a disk full", full_disks, chosen.disks),
        )
        for title, part, number in parts:
            print(f"{title} {number} times: {part(folder, expected, number, rng)}", flush=True)  # noqa: T201 - a command
    return 0


def preload() -> None:
    """Import what every run needs, so that a forked process starts in milliseconds."""
    import torch

    from xlora_bench.training import train  # noqa: F401

    torch.set_num_threads(1)


def undisturbed(folder: Path) -> dict[str, bytes]:
    """Train the sweep and return its results."""
    assert forked(partial(sweep, folder)) == 0
    return results(folder)


def killed_sweeps(folder: Path, expected: dict[str, bytes], number: int, rng: random.Random) -> str:
    """Kill a sweep at random file operations and give its command again until it ends, in folder after folder."""
    kills = sweeps = 0
    while kills < number:
        here = folder / f"killed {sweeps}"
        while (code := forked(partial(sweep, here), kill_at=rng.randint(1, OPERATIONS), below=here)) == KILLED:
            kills += 1
        assert code == 0, f"exit code {code}"
        assert not different(here, expected), different(here, expected)
        shutil.rmtree(here)
        sweeps += 1
    return f"{kills} kills in {sweeps} sweeps, all results equal"


def killed_reruns(folder: Path, expected: dict[str, bytes], number: int, rng: random.Random) -> str:
    """Kill `rerun=true`; after each kill every run must be whole, and the same as before."""
    here, kills = folder / "undisturbed", 0
    while kills < number:
        code = forked(partial(sweep, here, "rerun=true"), kill_at=rng.randint(1, OPERATIONS), below=here)
        assert code in (0, KILLED), f"exit code {code}"
        kills += code == KILLED
        assert forked(partial(checked, here)) == 0
        assert forked(partial(sweep, here)) == 0
        assert not different(here, expected), different(here, expected)
    return f"{kills} kills, each left whole runs with equal results"


def flipped_bits(folder: Path, expected: dict[str, bytes], number: int, rng: random.Random) -> str:
    """Flip a bit of a cache, a checkpoint or a result: it has no effect, or it is named."""
    named = harmless = 0
    for attempt in range(number):
        here = shutil.copytree(folder / "undisturbed", folder / "flipped")
        if attempt % 2:  # caches and a checkpoint: the runs are trained again
            shutil.rmtree(here / "runs")
            paths = [path for path in here.glob("cache/*/*.safetensors") if path.stat().st_size]
            assert forked(partial(sweep, here), kill_at="last.ckpt", below=here) == KILLED
            paths += here.glob("attempts/*/*/checkpoint/last.ckpt")
            flip(rng.choice(paths), rng)
            assert forked(partial(sweep, here)) == 0
            assert not different(here, expected), different(here, expected)
            harmless += 1
        else:
            path = rng.choice([path for path in here.glob("runs/*/*") if path.name in FILES])
            flip(path, rng)
            assert forked(partial(checked, here)) == 1, f"{path} is not named"
            named += 1
        shutil.rmtree(here)
    return f"{named} named by status --check, {harmless} without effect"


def full_disks(folder: Path, expected: dict[str, bytes], number: int, rng: random.Random) -> str:
    """Let no file grow beyond a random size; with room again, the same command must give the same results."""
    failed = 0
    for attempt in range(number):
        here = folder / f"full {attempt}"
        code = forked(partial(sweep, here), largest_file=rng.randint(0, 300_000))
        failed += code != 0
        assert forked(partial(sweep, here)) == 0
        assert not different(here, expected), different(here, expected)
        shutil.rmtree(here)
    return f"{failed} sweeps failed, all results equal when there was room again"


def sweep(folder: Path, *arguments: str) -> None:
    """Run the sweep in this process, which it ends."""
    from xlora_bench.cli.main import main as command

    sys.argv = ["xlora-bench", *SWEEP, *arguments, f"paths.results_dir={folder}", f"paths.cache_dir={folder / 'cache'}"]
    command()
    sys.exit(0)


def checked(folder: Path) -> None:
    """Compare the files of the runs with their records."""
    from xlora_bench.cli.status import main as status

    sys.exit(status([str(folder), "--check"]))


def results(folder: Path) -> dict[str, bytes]:
    """Return the content of the files that must be equal, and of the records what is not a time or a hash of times."""
    patterns = [*(f"runs/*/{name}" for name in FILES), "reports/*/table.*"]
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    content = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    for path in folder.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        kept = {key: record[key] for key in ("run_id", "status", "metrics", "hashes", "parameters", "ranks", "choices")}
        content[path.parent.name] = json.dumps(kept).encode()
    return content


def different(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """Return the names of the results that are not the expected ones."""
    have = results(folder)
    return sorted(name for name in have.keys() | expected.keys() if have.get(name) != expected.get(name))


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def forked(
    work: Callable[[], None],
    *,
    kill_at: int | str | None = None,
    below: Path | None = None,
    largest_file: int | None = None,
) -> int:
    """Run `work` in a forked process and return its exit code.

    The process kills itself at file operation number `kill_at` on a path below `below`, or when it is about to replace
    the file of that name.
    """
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        if largest_file is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        if kill_at is not None:
            sys.addaudithook(Killer(kill_at, str(below)))
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            os.dup2(nothing.fileno(), 2)
            work()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        os._exit(code if isinstance(code, int) else 1)


class Killer:
    """An audit hook that kills this process at a file operation."""

    def __init__(self, at: int | str, below: str) -> None:
        self.at = at
        self.below = below
        self.seen = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """Count the operation; kill at the given one."""
        if event not in EVENTS or not any(str(each).startswith(self.below) for each in arguments[:2]):
            return
        self.seen += 1
        target = Path(str(arguments[1])) if event == "os.rename" else None
        if self.seen == self.at or (target is not None and target.name == self.at and target.exists()):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
