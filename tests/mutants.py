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
INITS = "tests/adapters"
MUTANTS = [
    # the page
    Mutant("names end the script", "results/page/write.py", 'text.replace("<", "\\\\u003c")', "text", "tests/results/page"),
    Mutant("the page takes the first epochs", "results/page/runs.py", "np.linspace(0, len(values) - 1, most)", "np.linspace(0, most - 1, most)", "tests/results/page"),
    Mutant("costs of failed runs count", "results/page/scores.py", "* cost.scale).where(done)", "* cost.scale)", "tests/results/page"),
    Mutant("the page takes any script of the cache", "results/page/write.py", "if sha256(content).hexdigest() == BUNDLES.get(version):", "if content:", "tests/results/page/test_libraries.py"),
    # the index
    Mutant("a file of the same size is the same", "system/file_index.py", "[status.st_size, status.st_mtime_ns, status.st_ino]", "[status.st_size]", "tests/system"),
    Mutant("a damaged index is believed", "system/file_index.py", "if xxh3_128_hexdigest(text).encode() != digest:", "if False:", "tests/system"),
    Mutant("an index of other code is believed", "system/file_index.py", 'if index["version"] != version:', "if False:", "tests/system"),
    Mutant("records of the index are not checked", "runs/read_records.py", "(content, Record(**content))", "(content, type('Any', (Record,), {'__post_init__': id})(**content))", "tests/runs/test_read_records.py"),
    Mutant("predictions of any metric and epoch are known", "results/comparison/predictions.py", 'f"{run_id} {metric} {best}"', "run_id", "tests/results/comparison/test_predictions.py"),
    Mutant("predictions of the index are in the order of the file", "results/comparison/predictions.py", 'rows = rows[np.argsort(saved["idx"][rows], kind="stable")]', "pass", "tests/results/comparison/test_predictions.py"),
    Mutant("a record is checked once and for all", "runs/read_records.py", "if checked.get(run_id, (None,))[0] is not content:", "if run_id not in checked:", "tests/runs/test_read_records.py"),
    # attempts that travel
    Mutant("any attempt that was sent is used", "runs/run.py", "if sent and sent[-1] > max(older, default=0) and", "if sent and", "tests/runs/test_sent_attempts.py"),
    Mutant("a run that is trained again goes on", "runs/run.py", "if older and not rerun:", "if older:", "tests/runs/test_sent_attempts.py"),
    Mutant("an earlier attempt at home is waited for", "training/train.py", "attempt_at_home(run.id) > newest_number(run.folder)", "attempt_at_home(run.id) > 0", "tests/training/test_away_from_home.py"),
    Mutant("the attempt of an ended run comes home", "sweeps/launchers/ray_node.py", "if finished(folder / RECORD) is None:", "if True:", "tests/sweeps/launchers/test_ray.py"),
    Mutant("a task forgets what it was sent", "sweeps/launchers/ray_tasks.py", "needs=tuple(dict.fromkeys([*running.needs, run_id]))", "needs=(run_id,)", "tests/sweeps/launchers/test_ray.py"),
    Mutant("the file of an attempt may be half written", "runs/sent_attempts.py", "if path.is_file() and path != leave_out]", "if path.is_file()]", "tests/runs/test_sent_attempts.py"),
    Mutant("an error in sending ends the run", "sweeps/launchers/ray_node.py", "        except Exception as error:\n            kind", "        except OSError as error:\n            kind", "tests/sweeps/launchers/test_ray.py"),
    Mutant("attempts pile up on their way", "sweeps/launchers/ray_node.py", "if self._last is not None and not ray.wait([self._last], timeout=0)[0]:", "if False:", "tests/sweeps/launchers/test_ray.py"),
    Mutant("an attempt in a folder is not known", "runs/parcel.py", "    return None if content is None else (number, content)", "    return None", "tests/sweeps/launchers/test_ray.py"),
    # files, configs and the library's promises
    Mutant("a model of images is taken", "models/checkpoint_files.py", 'return [fault("model.name", options.name, f"is a {model_type}, which gives no sequence classifier ({reason})")]', "return []", "tests/models/test_checkpoint_files.py"),
    Mutant("a config calls anything", "training/trust.py", "if isinstance(kind, type) and issubclass(kind, bases):", "if True:", "tests/training/test_called_classes.py"),
    Mutant("a record names any class", "training/trust.py", "if not (isinstance(candidate, type) and issubclass(candidate, bases) and inside(candidate.__module__, known)):", "if not isinstance(candidate, type):", "tests/training/test_trust.py"),
    Mutant("a parent chain may be a circle", "results/reproduce/retrain.py", "if parent_id in children:", "if False:", "tests/results/reproduce"),
    Mutant("a parent may be any path", "results/reproduce/retrain.py", "if not re.fullmatch(RUN_ID, str(parent_id)):", "if False:", "tests/results/reproduce"),
    Mutant("terminal escapes are printed", "system/escape.py", "return CONTROLS.sub(lambda match: match[0].encode(\"unicode_escape\").decode(), text)", "return text", "tests/system"),
    Mutant("Markdown escapes no tags", "system/escape.py", "return HTML.sub(lambda match: ENTITIES[match[0]], escaped)", "return escaped", "tests/system"),
    Mutant("files are for their owner alone", "system/io.py", "temporary.write_bytes(content.encode() if isinstance(content, str) else content)", "temporary.write_bytes(content.encode() if isinstance(content, str) else content); temporary.chmod(0o600)", "tests/system"),
    Mutant("a value of the environment is recorded", "runs/plain_config.py", "if ENVIRONMENT.search(text):", "if False:", "tests/runs/test_plain_config.py tests/cli/test_refusals.py"),
    Mutant("W&B is waited for in each run", "training/loggers/wandb_logs.py", "                set_unanswered(labels.sweep_folder)\n", "", "tests/training/test_loggers.py"),
    Mutant("a full disk names no folder", "sweeps/launchers/launcher.py", "error.filename = str(folder)", "pass", "tests/sweeps/test_sweeper.py"),
    Mutant("a full cache ends the run", "system/checked_file.py", "        _unwritable.add(path.parent)\n", "        raise\n", "tests/data/test_tokenize.py"),
    Mutant("a killed publication is forgotten", "runs/run.py", "if ended.attempt == number and (published is None or published.attempt < number):", "if False:", "tests/runs/test_run.py"),
    Mutant("an older attempt is published", "runs/run.py", "if published is not None and published.attempt > self.number:", "if False:", "tests/runs/test_run.py"),
    Mutant("leftovers stay", "system/io.py", "                path.unlink()\n        except FileNotFoundError", "                pass\n        except FileNotFoundError", "tests/system"),
    Mutant("files being written are leftovers", "system/io.py", ">= OLD_SECONDS", ">= 0", "tests/system"),
    Mutant("one logger of several", "training/options.py", "loggers[path] = kind", "loggers = {}; loggers[path] = kind", "tests/training/test_config_groups.py"),
    Mutant("callbacks of the group are dropped", "training/prepare.py", "        *(instantiate(node) for node in nodes_of(\"callbacks\", run.config.get(\"callbacks\")).values()),\n", "", "tests/training/test_config_groups.py"),
    Mutant("a torch optimizer gets no options", "training/trust.py", "torch_class(get_class(node[\"_target_\"]), options)", "torch_class(get_class(node[\"_target_\"]), {})", "tests/training/loop tests/training/test_options.py"),
    Mutant("enable forgets the weights", "inject/activation.py", "        state.restore()\n        return", "        return", "tests/inject/test_activation.py"),
    Mutant("the base's state dict has our keys", "inject/state_dict.py", 'state[owner + key.removeprefix(f"{owner}base_layer.")] = tensor', "state[key] = tensor", "tests/inject/test_base_state_dict.py"),
    Mutant("normalised weights are adapted", "nn/layers/compatibility.py", "    if not parts and not any(", "    if True or not any(", "tests/nn tests/inject"),
    Mutant("a block's inside is a target", "nn/layers/adapted_block.py", "if layers_in(base_layer):", "if False:", "tests/nn/layers/test_adapted_block.py"),
    Mutant("modules of the working folder are not known", "cli/main.py", "        sys.path.insert(0, os.getcwd())\n", "        pass\n", "tests/cli/test_main.py tests/test_use_your_own.py"),
    # training
    Mutant("best is last", "training/callbacks/checkpoint.py", "is evaluations[-1]", "is not None", RUN),
    Mutant("best is the worst epoch", "training/loop/evaluation.py", "return max(evaluations", "return min(evaluations", f"{LOOP} {RUN}"),
    Mutant("a tie goes to the last epoch", "training/loop/evaluation.py", "-evaluation.epoch))", "evaluation.epoch))", f"{LOOP} {RUN}"),
    Mutant("schedule per epoch", "training/loop/module.py", '"interval": "step"', '"interval": "epoch"', f"{LOOP} {RUN}"),
    Mutant("retraction one step late", "training/loop/module.py", "self.global_step + 1)\n\n    def configure", "self.global_step)\n\n    def configure", f"{LOOP} {RUN}"),
    Mutant("penalty left out", "training/loop/module.py", "loss, mean = loss + penalty, mean + penalty", "loss, mean = loss + 0 * penalty, mean + penalty", f"{LOOP} {RUN}"),
    Mutant("a collapse is no stop", "training/loop/module.py", "self.collapse, self.trainer.should_stop = fault, True", "self.collapse = fault", f"{LOOP} {RUN}"),
    Mutant("window counted by batches", "training/loop/module.py", "return batches_per_step * rows / window", "return batches_per_step / (end - first)", LOOP),
    Mutant("partial window not weighted", "training/loop/module.py", "return batches_per_step * rows / window", "return 1.0", LOOP),
    Mutant("no decay at all", "training/loop/optimizers.py", "0.0 if weight_decay is not None and name in spared else weight_decay", "0.0", LOOP),
    Mutant("norms decay", "training/loop/optimizers.py", '"norm" in type(module).__name__.lower()', "False", LOOP),
    Mutant("head rate ignored", "training/loop/optimizers.py", "rate = head_lr if name in head else", "rate = lr if name in head else", LOOP),
    Mutant("warmup rounded down", "training/loop/optimizers.py", "math.ceil(self.warmup * total_steps)", "int(self.warmup * total_steps)", LOOP),
    Mutant("betas swapped", "training/loop/optimizers.py", "betas=(self.betas[0], self.betas[1])", "betas=(self.betas[1], self.betas[0])", LOOP),
    Mutant("loss sums", "training/loop/scorer.py", "return F.cross_entropy(logits, labels)", "return F.cross_entropy(logits, labels, reduction='sum')", LOOP),
    Mutant("the same masks every epoch", "training/callbacks/streams.py", '"dropout", trainer.current_epoch', '"dropout", 0', "tests/training/test_callbacks.py"),
    Mutant("no clipping by default", "../conf/trainer/default.yaml", "gradient_clip_val: 1.0", "gradient_clip_val: null", LOOP),
    # several devices
    Mutant("a rank's loss is not weighted by its rows", "training/loop/module.py", "return loss if weight == 1.0 else weight * loss", "return loss", "tests/training/test_ddp.py -k two_ranks"),
    Mutant("a row is on two ranks", "system/ranks.py", "return rows[self.rank :: self.world]", "return rows[self.rank // 2 :: self.world]", "tests/training/test_ddp.py -k two_ranks"),
    Mutant("the gradients are not summed", "system/ranks.py", "            distributed.all_reduce(tensor)\n", "            pass\n", "tests/training/test_ddp.py -k two_ranks"),
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
    Mutant("autocast reaches the factors", "adapters/delta.py", "if not autocast_enabled(device):", "if True:", "tests/test_conformance.py -k linear-bf16-mixed"),
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
    Mutant("a damaged cache is believed", "system/checked_file.py", "if checksum == checksum_of(tensors):", "if checksum is not None:", "tests/system tests/data/test_tokenize.py"),
    Mutant("a damaged checkpoint is believed", "runs/run.py", "damaged = file.testzip()", "damaged = None", "tests/runs"),
    Mutant("a run is published without its hashes", "runs/run.py", "replace(record, files=files, attempt=self.number)", "replace(record, attempt=self.number)", "tests/runs"),
    Mutant("another run's record counts", "runs/record.py", "run_id != folder.name and", "False and", "tests/runs"),
    Mutant("a sanity check counts", "training/loop/scorer.py", "if self.trainer.sanity_checking:", "if False:", "tests/training/loop/test_plain_trainer.py"),
    Mutant("a resumed run takes the threads of the machine", "training/train.py", "with threads(threads_of(checkpoint)):", "with threads(None):", "tests/training/test_train.py -k killed"),
    Mutant("an old record is reused", "runs/record.py", "own and record.schema == SCHEMA and", "own and", "tests/runs"),
    Mutant("streams share their draws", "runs/seeds.py", "for part in (seed, *purpose)", "for part in (seed, *purpose[:1])", "tests/runs tests/data"),
    # init schemes and decompositions
    Mutant("left is right", "adapters/init_schemes/svd.py", '"left": (1.0, 0.0), "right": (0.0, 1.0)', '"left": (0.0, 1.0), "right": (1.0, 0.0)', INITS),
    Mutant("PiSSA without the root", "adapters/init_schemes/svd.py", '"both": (0.5, 0.5)', '"both": (1.0, 1.0)', INITS),
    Mutant("singular values not divided by the scaling", "adapters/init_schemes/svd.py", "S / scaling if self.divide_by_scaling else S", "S", INITS),
    Mutant("Kaiming by the rank", "adapters/init_schemes/kaiming.py", "1 / math.sqrt(columns)", "1 / math.sqrt(rows)", INITS),
    Mutant("Gaussian with unit variance", "adapters/init_schemes/gaussian.py", "normal_(0.0, 1 / rows", "normal_(0.0, 1.0", INITS),
    Mutant("no unit diagonal", "adapters/init_schemes/unit_diagonal.py", "InitialFactors(B.fill_diagonal_(1.0), A.fill_diagonal_(1.0))", "InitialFactors(B, A)", INITS),
    Mutant("rows of L in the order of the pivots", "adapters/init_schemes/ldu.py", "L[torch.argsort(permutation)]", "L[permutation]", INITS),
    Mutant("LDU without D", "adapters/init_schemes/ldu.py", "D[:, None] * U)", "U)", INITS),
    Mutant("not Haar-random", "adapters/init_schemes/orthonormal.py", "(Q * R.diagonal().sign()).T.contiguous()", "Q.T.contiguous()", INITS),
    Mutant("the minor triplets are the major ones", "adapters/decompositions/factorizations.py", "chosen = slice(len(parts.S) - rank, len(parts.S))", "chosen = slice(0, rank)", INITS),
    Mutant("signs of the singular vectors are free", "adapters/decompositions/factorizations.py", "(sign.T * Vh).to(dtype)", "Vh.to(dtype)", INITS),
    Mutant("fewer terms than needed", "adapters/decompositions/factorizations.py", "while rank is not None and count < rank:", "while rank is not None and 2 * count < rank:", INITS),
    Mutant("R is not triangular", "adapters/decompositions/factorizations.py", "(Q.T @ wide).triu()", "(Q.T @ wide)", INITS),
    Mutant("the default of a pattern wins", "adapters/patterns.py", "return pattern[max(fitting, key=len)] if fitting else default", "return default", "tests/adapters tests/inject"),
    Mutant("the shortest pattern wins", "adapters/patterns.py", "max(fitting, key=len)", "min(fitting, key=len)", "tests/adapters tests/inject tests/training/budget"),
    Mutant("patterns match within words", "adapters/patterns.py", 'module_name.endswith(f".{key}")', "module_name.endswith(key)", "tests/adapters tests/inject"),
    # models with adapters
    Mutant("targets match within words", "inject/targets.py", 'return name == entry or name.endswith(f".{entry}")', "return name.endswith(entry)", "tests/inject/test_targets.py"),
    Mutant("heads are adapted", "inject/targets.py", '        and not any(name == head or name.startswith(f"{head}.") for head in heads)\n', "", "tests/inject/test_targets.py"),
    Mutant("unmerging keeps the merged weight", "inject/merging.py", "    for _, layer in adapted_layers(model):\n        layer.merged_weight = None", "    for _, layer in adapted_layers(model):\n        pass", VARIANTS),
    Mutant("merge in spite of dropout", "inject/merging.py", "layer.training and layer.deltas[name].dropout > 0", "False", "tests/inject tests/nn"),
    Mutant("the base trains too", "inject/adding.py", "            parameter.requires_grad_(False)\n", "            pass\n", "tests/inject"),
    Mutant("an adapter file of another base", "inject/checkpoint.py", 'if not other_base and content_hash(weight) != entry["weight"]:', "if False:", "tests/inject"),
    Mutant("NaN tensors are loaded", "inject/state_dict.py", "return None if given.float().isfinite().all() else", "return None if True else", "tests/inject"),
    Mutant("row orders are not checked", "inject/state_dict.py", "return None if same else", "return None if True else", "tests/inject"),
    Mutant("weights of a sum are ignored", "inject/activation.py", "[float(weight) for weight in weights]", "[1.0 for weight in weights]", "tests/inject"),
    Mutant("missing logits are 0", "nn/layers/adapter_heads.py", 'value=float("-inf")', "value=0.0", "tests/inject"),
    Mutant("routed rows are not put back", "nn/layers/adapter_heads.py", "[torch.cat(list(rows.values())).argsort()]", "", "tests/inject"),
    Mutant("peft's rslora scaling", "inject/peft_io/importing.py", "return alpha / math.sqrt(rank) if config.use_rslora else alpha / rank", "return alpha / rank", "tests/inject/peft_io"),
    Mutant("PiSSA's start is not subtracted", "inject/peft_io/importing.py", "        delta.B0, delta.A0 = (factor.contiguous() for factor in subtracted)\n", "", "tests/inject/peft_io"),
    # data
    Mutant("rows overflow", "data/packing/packed.py", "used + length <= capacity", "used + length <= capacity + 1", "tests/data"),
    Mutant("first fit in any order", "data/packing/packed.py", "np.argsort(-lengths, kind=\"stable\")", "np.argsort(lengths, kind=\"stable\")", "tests/data"),
    Mutant("the dearest packing", "data/packing/packed.py", "return min((first_fit_decreasing", "return max((first_fit_decreasing", "tests/data"),
    Mutant("every epoch has one order", "data/datamodule.py", 'seeds.generator(self.seed, "order", self.epoch)', 'seeds.generator(self.seed, "order", 0)', "tests/data"),
    Mutant("every seed has one order", "data/datamodule.py", 'seeds.generator(self.seed, "order", self.epoch)', 'seeds.generator(0, "order", self.epoch)', "tests/data"),
    Mutant("labels by spelling alone", "data/checks.py", "if isinstance(value, float) and value.is_integer():", "if False:", "tests/data"),
    Mutant("scores beyond fp32", "data/checks.py", "return score if abs(score) <= np.finfo(np.float32).max else None", "return score", "tests/data"),
    Mutant("F1 of the other class", "data/metrics.py", "pos_label=1", "pos_label=0", "tests/data"),
    # planning and results
    Mutant("rules beat the command line", "sweeps/planning/grid.py", "for key, value in rule.set.items() if key not in given_keys", "for key, value in rule.set.items()", "tests/sweeps/planning"),
    Mutant("equal runs run twice", "sweeps/planning/grid.py", "by_signature.setdefault(self.composer.signature(grid_point.overrides), grid_point)", "by_signature[id(grid_point)] = grid_point", "tests/sweeps/planning"),
    Mutant("excluded runs run", "sweeps/planning/grid.py", "elif rule.exclude:", "elif False:", "tests/sweeps/planning"),
    Mutant("an interpolation is not followed", "runs/plain_config.py", "            node[path[-1]] = referred(config, text)\n", "            pass\n", "tests/sweeps/planning"),
    Mutant("configs share their changes", "runs/plain_config.py", "node[key] = node = dict(inner)", "node = inner", "tests/sweeps/planning tests/runs"),
    Mutant("log ranges are linear", "sweeps/planning/search_space.py", 'if axis.get("log"):', "if False:", "tests/sweeps/planning"),
    Mutant("methods get other quantiles", "sweeps/planning/search_space.py", 'seeds.derive(seed, "tuning", key, trial)', 'random.random()', "tests/sweeps/planning"),
    Mutant("seeds are not paired", "results/statistics/pairs.py", "second=np.array([second[seed] for seed in seeds]", "second=np.array([second[seed] for seed in list(second)[: len(seeds)]]", "tests/results"),
    Mutant("the interval is one of one sd", "results/statistics/intervals.py", "return t_interval(mean, error, freedom=len(array) - 1, level=level)", "return t_interval(mean, error, freedom=len(array) - 1, level=0.68)", "tests/results"),
    Mutant("failed runs are averaged", "results/tables/build_table.py", '(frame["status"] == "completed")', '(frame["status"] != "x")', "tests/results"),
    Mutant("the budget is met from above alone", "training/budget/options.py", "abs(value - self.wanted) <= self.tolerance * self.wanted", "0 <= value - self.wanted <= self.tolerance * self.wanted", "tests/training/budget"),
    Mutant("the farthest rank", "training/budget/solve.py", "rank = min(candidates, key=", "rank = max(candidates, key=", "tests/training/budget"),
    Mutant("a text serves for a number", "system/options.py", "ConfigDict(strict=True, allow_inf_nan=False)", "ConfigDict(strict=False, allow_inf_nan=False)", "tests/training/test_options.py"),
    Mutant("infinity is a number", "system/options.py", "allow_inf_nan=False)", "allow_inf_nan=True)", "tests/training/test_options.py tests/inject"),
    Mutant("the t interval is normal", "results/statistics/intervals.py", "special.stdtrit(freedom, (1 + level) / 2)", "special.ndtri((1 + level) / 2)", "tests/results"),
    Mutant("completed runs with one seed are averaged", "results/statistics/pairs.py", "if seed in result[key]:", "if False:", "tests/results"),
    Mutant("a collapsed run is completed", "training/fit.py", '"status": "collapsed" if reason else "completed"', '"status": "completed"', "tests/training/test_start_from.py"),
    Mutant("the last entry is the first", "training/fit.py", '"last": evaluations[-1].summary()', '"last": evaluations[0].summary()', "tests/training/test_fit.py"),
    Mutant("a completed run is trained again", "training/train.py", 'return not run.config["rerun"] or datetime', "return datetime", "tests/training"),
    Mutant("a parent that collapsed is a start", "training/train.py", 'if record.status != "completed":', 'if record.status == "failed":', "tests/training/test_start_from.py"),
    Mutant("the adapter of the last epoch is the start", "training/train.py", 'path = parent.folder / "adapter_best.safetensors"', 'path = parent.folder / "adapter.safetensors"', "tests/training/test_fit.py"),
    Mutant("the parent is not part of the id", "runs/run.py", 'config_hash({**config, "start_from": parent}, data=data)', 'config_hash({**config, "start_from": None}, data=data)', "tests/training/test_start_from.py tests/runs"),
    Mutant("a newer record is overwritten", "runs/record.py", "    except NewerRecordError:\n        raise\n", "", "tests/runs tests/training"),
    Mutant("options are checked by group alone", "training/resolve.py", "faults = faults or preflight(config, objects, caches, starts_here=starts_here)", "pass", "tests/training/test_preflight.py"),
    Mutant("a rank above the full rank is taken", "adapters/base.py", "if rank < 1 or (self.rank_limited and rank > full_rank):", "if rank < 1:", "tests/test_conformance.py -k rank_above"),
    Mutant("the energy threshold is met one rank late", "adapters/base.py", "spectral = energy_rank(", "spectral = 1 + energy_rank(", "tests/adapters"),
    Mutant("the penalty is a sum over layers", "inject/training_hooks.py", "torch.stack(present).mean()", "torch.stack(present).sum()", "tests/training/loop tests/adapters tests/inject"),
    Mutant("inactive adapters are penalised", "inject/training_hooks.py", "for name in layer.active]\n    present", "for name in layer.deltas]\n    present", "tests/training/loop tests/adapters tests/inject"),
    Mutant("dropout is scaled by p", "nn/ops/dropout.py", "STEPS / (STEPS - dropped)", "STEPS / max(dropped, 1)", "tests/nn"),
    Mutant("dropout in evaluation", "nn/ops/dropout.py", "if not training or p == 0.0:", "if p == 0.0:", "tests/nn"),
    Mutant("the dense product forgets the scale", "nn/ops/low_rank_linear.py", "merged = torch.addmm(weight, B, A, alpha=scaling)", "merged = torch.addmm(weight, B, A)", "tests/nn"),
    Mutant("the gradient of A forgets the scale", "nn/ops/low_rank_linear.py", "(inner.T @ x).mul_(ctx.scaling)", "(inner.T @ x)", "tests/nn"),
    Mutant("the gradient of the input forgets the update", "nn/ops/low_rank_linear.py", "(gradient @ weight).addmm_(inner, A, alpha=ctx.scaling) if needs_x", "(gradient @ weight) if needs_x", "tests/nn"),
    Mutant("DoRA's magnitude has no gradient", "nn/ops/low_rank_linear.py", "d_scale = ones @ rows_of(product)", "d_scale = 0 * (ones @ rows_of(product))", "tests/nn"),
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
