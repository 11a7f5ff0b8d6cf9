"""Mutation testing: small semantic errors are put into a copy of the package, and the tests of the area must fail.

    make mutants                        # all of them, two at a time
    python -m tests.mutants schedule    # those whose name contains a word

A mutant that no test notices has survived: the command names it and exits with 1. A mutant whose old text is no longer
in its file once is an error, so the list follows the code.
"""

# ruff: noqa: E501 - a mutant is a line
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2


class Mutant(NamedTuple):
    """`old` in the file `path` becomes `new`; one of `tests` (paths or options of pytest) must fail."""

    name: str
    path: str
    old: str
    new: str
    tests: str


LOOP, RUN = "tests/training/loop", "tests/training/test_callbacks.py tests/training/test_train.py"
VARIANTS = "tests/test_conformance.py tests/adapters -k 'linear-fp32 or adapters'"
MUTANTS = [
    # training
    Mutant("best is last", "training/callbacks/checkpoint.py", "is evaluations[-1]", "is not None", RUN),
    Mutant("best is the worst epoch", "training/loop/evaluation.py", "return max(evaluations", "return min(evaluations", f"{LOOP} {RUN}"),
    Mutant("a tie goes to the last epoch", "training/loop/evaluation.py", "-evaluation.epoch))", "evaluation.epoch))", f"{LOOP} {RUN}"),
    Mutant("schedule per epoch", "training/loop/module.py", '"interval": "step"', '"interval": "epoch"', f"{LOOP} {RUN}"),
    Mutant("retraction one step late", "training/loop/module.py", "self.global_step + 1)\n\n    def configure", "self.global_step)\n\n    def configure", f"{LOOP} {RUN}"),
    Mutant("penalty left out", "training/loop/module.py", "loss = loss + penalty", "loss = loss + 0 * penalty", f"{LOOP} {RUN}"),
    Mutant("a collapse is no stop", "training/loop/module.py", "self.trainer.should_stop = True", "pass", f"{LOOP} {RUN}"),
    Mutant("window counted by batches", "training/loop/module.py", "return batches_per_step * rows / window", "return batches_per_step / (end - first)", LOOP),
    Mutant("partial window not weighted", "training/loop/module.py", "return batches_per_step * rows / window", "return 1.0", LOOP),
    Mutant("no decay at all", "training/loop/optimizers.py", "0.0 if name in spared else self.weight_decay", "0.0", LOOP),
    Mutant("norms decay", "training/loop/optimizers.py", '"norm" in type(module).__name__.lower()', "False", LOOP),
    Mutant("head rate ignored", "training/loop/optimizers.py", "lr = head_lr if name in head else", "lr = self.lr if name in head else", LOOP),
    Mutant("warmup rounded down", "training/loop/optimizers.py", "math.ceil(self.warmup * total_steps)", "int(self.warmup * total_steps)", LOOP),
    Mutant("betas swapped", "training/loop/optimizers.py", "betas=(self.betas[0], self.betas[1])", "betas=(self.betas[1], self.betas[0])", LOOP),
    Mutant("loss sums", "training/loop/scorer.py", "return F.cross_entropy(logits.float(), labels)", "return F.cross_entropy(logits.float(), labels, reduction='sum')", LOOP),
    Mutant("the same masks every epoch", "training/callbacks/streams.py", '"dropout", trainer.current_epoch', '"dropout", 0', "tests/training/test_callbacks.py"),
    Mutant("no clipping by default", "../conf/trainer/default.yaml", "gradient_clip_val: 1.0", "gradient_clip_val: null", LOOP),
    # variants
    Mutant("scale lost with dropout", "nn/layers/linear.py", "F.linear(F.linear(x, A) * delta.scaling, B)", "F.linear(F.linear(x, A), B)", "tests/nn tests/adapters"),
    Mutant("dropout of the base input", "nn/layers/linear.py", "x = drop(x.to(A.dtype), delta.dropout, training=self.training)", "x = x.to(A.dtype)", "tests/nn tests/adapters"),
    Mutant("rslora by the rank", "adapters/base.py", "alpha / math.sqrt(rank) if self.use_rslora else", "alpha / rank if self.use_rslora else", VARIANTS),
    Mutant("no anchor", "adapters/base.py", "        delta.anchor()\n", "", VARIANTS),
    Mutant("DoRA normalises without the update", "adapters/dora.py", "return added.add_(self.squares)", "return added.mul_(0).add_(self.squares)", VARIANTS),
    Mutant("DoRA forgets the cross term", "adapters/dora.py", "beta=2 * self.scaling", "beta=0", VARIANTS),
    Mutant("penalty without the identity", "adapters/orthogonal.py", "(gram - torch.eye(len(gram), device=gram.device))", "gram", VARIANTS),
    Mutant("retraction keeps A", "adapters/orthogonal_qr.py", "        self.lora_A.copy_((signs[:, None] * R) @ self.lora_A)\n", "", VARIANTS),
    Mutant("retraction every step", "adapters/orthogonal_qr.py", "if step % self.frequency:", "if False:", "tests/adapters"),
    Mutant("Cholesky is not signed", "adapters/cholesky.py", "signs[1::2] = -1.0", "pass", VARIANTS),
    Mutant("LoLDU starts at sigma alone", "adapters/loldu.py", "(self.sigma * self.z - self.scaled_z0)", "(self.sigma * self.z)", VARIANTS),
    Mutant("VeRA without d", "adapters/vera.py", "self.vera_d[:, None] * self.projection_A", "self.projection_A", VARIANTS),
    Mutant("LoRA+ has one rate", "adapters/lora_plus.py", "self.lr_ratio", "1.0", "tests/adapters tests/training/loop"),
    Mutant("autocast reaches the factors", "adapters/delta.py", "if not torch.is_autocast_enabled(device):", "if True:", "tests/test_conformance.py -k linear-bf16-mixed"),
    Mutant("bf16 factors", "adapters/delta.py", "return tensor.to(result.device) if narrower else result", "return result", "tests/adapters/test_delta.py"),
    Mutant("merge adds twice", "nn/layers/base.py", "total = total + weight * self.update(self.deltas[name])", "total = total + 2 * weight * self.update(self.deltas[name])", VARIANTS),
    # evaluation, statistics, selection
    Mutant("constant predictions are fine", "data/metrics.py", '{"collapsed": float(constant)}', '{"collapsed": 0.0}', "tests/data"),
    Mutant("predictions by the smallest logit", "data/metrics.py", "logits.argmax(axis=1)", "logits.argmin(axis=1)", "tests/data"),
    Mutant("the worst trial wins", "sweeps/planning/tuning.py", "job.score > best[group][0]", "job.score < best[group][0]", "tests/sweeps/planning/test_tuning.py"),
    Mutant("trials see the reported seed", "sweeps/planning/tuning.py", '{"seed": as_text(self.tuning.seed)}', "{}", "tests/sweeps/planning/test_tuning.py"),
    Mutant("trials see all rows", "sweeps/planning/tuning.py", '{"task.holdout": as_text(self.tuning.holdout)}', "{}", "tests/sweeps/planning/test_tuning.py"),
    Mutant("one-sided p", "results/statistics/permutation_test.py", "flipped = np.abs(signs(len(units)) @ units)", "flipped = signs(len(units)) @ units", "tests/results/statistics"),
    Mutant("no step-down", "results/statistics/permutation_test.py", "adjusted[order] = np.maximum.accumulate(reached)", "adjusted[order] = reached", "tests/results/statistics"),
    Mutant("Holm is Bonferroni", "results/statistics/permutation_test.py", "np.arange(len(array), 0, -1)", "len(array)", "tests/results/statistics"),
    Mutant("smallest p of one side", "results/statistics/permutation_test.py", "2.0 ** (1 - n)", "2.0 ** -n", "tests/results/statistics"),
    Mutant("mean instead of IQM", "results/statistics/iqm.py", "return float(stats.trim_mean(finite(values), 0.25))", "return float(finite(values).mean())", "tests/results/statistics"),
    Mutant("epochs chosen on the scored half", "results/protocols/selection.py", "(by_epoch[1][best[0]] + by_epoch[0][best[1]]) / 2", "(by_epoch[0][best[0]] + by_epoch[1][best[1]]) / 2", "tests/results/protocols"),
    # runs
    Mutant("the seed is not hashed", "runs/config_hash.py", '    "rerun": "whether', '    "seed": "x",\n    "rerun": "whether', "tests/runs"),
    Mutant("the data is not hashed", "runs/config_hash.py", '"data": data}', '"data": ""}', "tests/runs"),
    Mutant("a failed run is finished", "runs/record.py", 'and record.status != "failed" else None', "else None", "tests/runs"),
    Mutant("an old record is reused", "runs/record.py", "if record.schema == SCHEMA and", "if", "tests/runs"),
    Mutant("streams share their draws", "runs/seeds.py", "for part in (seed, *purpose)", "for part in (seed, *purpose[:1])", "tests/runs tests/data"),
]  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Test the mutants whose names contain all words; return the exit code."""
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copies: Queue[Path] = Queue()
        for number in range(WORKERS):
            copies.put(copied(Path(folder) / str(number)))

        def tested(mutant: Mutant) -> bool:
            copy = copies.get()
            try:
                return survives(mutant, copy)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(WORKERS) as pool:
            survivors = []
            for mutant, survived in zip(chosen, pool.map(tested, chosen), strict=True):
                print(f"{'SURVIVED' if survived else 'killed  '} {mutant.name}", flush=True)  # noqa: T201 - a program
                survivors += [mutant.name] if survived else []
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")  # noqa: T201 - as above
    return 1 if survivors else 0


def copied(folder: Path) -> Path:
    """Return a copy of the tracked files of the repository."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def survives(mutant: Mutant, copy: Path) -> bool:
    """Return whether the tests pass with the mutant in `copy`, which is restored."""
    path = (copy / "xlora_bench" / mutant.path).resolve()
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.old!r} is {text.count(mutant.old)} times in {mutant.path}")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider", *shlex.split(mutant.tests)]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False).returncode == 0
    finally:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
