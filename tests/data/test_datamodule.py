from itertools import chain
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler

from xlora_bench.data.collators import PaddedCollator
from xlora_bench.data.datamodule import EpochSampler, SharedBatches, TextData
from xlora_bench.system.ranks import ALONE, Ranks


@pytest.fixture
def make_data(make_task, tokenizer, toy_dir, tmp_path):
    def make(seed=0, **changes):
        task = make_task(**changes)
        data = TextData(task, tokenizer=tokenizer, seed=seed, data_dir=toy_dir, cache_dir=tmp_path)
        data.setup()
        return data

    return make


def epochs(loader, numbers):
    for number in numbers:
        loader.sampler.set_epoch(number)
        yield [batch["idx"].tolist() for batch in loader]


def test_a_batch_is_padded_to_its_longest_row(make_data, tokenizer):
    data = make_data()
    rows = data.splits["train"]
    examples = [rows[i] for i in (0, 1, 3)]
    batch = PaddedCollator(tokenizer)(examples)
    lists = [example["input_ids"].tolist() for example in examples]
    expected = tokenizer.pad({"input_ids": lists}, return_tensors="pt")
    assert batch["input_ids"].equal(expected["input_ids"])
    assert batch["attention_mask"].equal(expected["attention_mask"])
    assert batch["token_type_ids"].equal(torch.zeros_like(expected["input_ids"]))
    assert batch["tokens"] == expected["attention_mask"].sum().item()
    assert batch["labels"].equal(torch.tensor([1, 0, 0]))
    assert batch["idx"].equal(torch.tensor([0, 1, 3]))


def test_token_types_are_padded_with_their_own_id(tokenizer):
    tokenizer._pad_token_type_id = 3
    ids = [np.ones(length, dtype=np.int32) for length in (1, 2)]
    examples = [{"input_ids": part, "token_type_ids": part, "label": 0.5, "idx": 0} for part in ids]
    batch = PaddedCollator(tokenizer)(examples)
    assert batch["token_type_ids"].tolist() == [[1, 3], [1, 1]]
    assert batch["labels"].dtype == torch.float32


def test_a_tokenizer_without_padding_is_refused(tokenizer):
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no padding token"):
        PaddedCollator(tokenizer)


@pytest.mark.parametrize(("device", "pins"), [("cuda", True), ("cpu", False), ("mps", False)])
def test_batches_are_in_pinned_memory_where_a_gpu_reads_them(make_data, device, pins):
    data = make_data()
    assert not data.train_dataloader().pin_memory
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    assert [loader.pin_memory for loader in (data.train_dataloader(), *data.val_dataloader())] == [pins, pins]


@pytest.mark.gpu
def test_every_tensor_of_a_batch_is_pinned(make_data):
    data = make_data()
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")))
    batch = next(iter(data.train_dataloader()))
    assert all(value.is_pinned() for value in batch.values() if torch.is_tensor(value))


def test_an_epoch_holds_every_row_once_and_the_last_batch_is_kept(make_data):
    (batches,) = epochs(make_data().train_dataloader(), [0])
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert sorted(chain(*batches)) == list(range(7))


def test_the_order_depends_on_seed_and_epoch_only(make_data):
    first = list(epochs(make_data().train_dataloader(), range(4)))
    torch.manual_seed(99)
    assert list(epochs(make_data().train_dataloader(), range(2, 4))) == first[2:]
    assert len({str(epoch) for epoch in first}) == 4
    assert list(epochs(make_data(seed=1).train_dataloader(), range(4))) != first


def test_loading_leaves_the_global_random_stream_alone(make_data):
    data = make_data()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    list(data.train_dataloader()), [list(loader) for loader in data.val_dataloader()]
    assert torch.get_rng_state().equal(state)


def test_the_order_does_not_depend_on_the_batch_size(make_data):
    small, large = (make_data(batch_size=size).train_dataloader() for size in (2, 5))
    assert list(chain(*next(epochs(small, [1])))) == list(chain(*next(epochs(large, [1]))))


def test_evaluation_is_longest_first_and_whole(make_data):
    data = make_data()
    (loader,) = data.val_dataloader()
    order = [i for batch in loader for i in batch["idx"].tolist()]
    lengths = data.splits["validation"].lengths[order]
    assert sorted(order) == list(range(7))
    assert lengths.tolist() == sorted(lengths, reverse=True)
    assert [len(batch["idx"]) for batch in loader] == [4, 3]


def test_each_eval_split_has_its_loader_in_order(make_task, tokenizer, write_splits, frame, tmp_path):
    task = make_task(eval_splits=("matched", "mismatched"))
    folder = write_splits("toy", train=frame, matched=frame[:2], mismatched=frame[:5])
    data = TextData(task, tokenizer=tokenizer, seed=0, data_dir=folder, cache_dir=tmp_path)
    data.setup()
    assert [len(loader.dataset) for loader in data.val_dataloader()] == [2, 5]


def test_setup_twice_keeps_the_splits(make_data):
    data = make_data()
    before = dict(data.splits)
    data.setup("fit")
    assert all(data.splits[name] is split for name, split in before.items())


def test_own_collators_are_used(make_task, tokenizer, toy_dir, tmp_path):
    data = TextData(make_task(), tokenizer=tokenizer, seed=0, data_dir=toy_dir, cache_dir=tmp_path,
                    train_collator=len, eval_collator=lambda examples: -len(examples))  # fmt: skip
    data.setup()
    assert list(data.train_dataloader()) == [3, 3, 1]
    assert list(data.val_dataloader()[0]) == [-4, -3]


def test_the_fingerprint_needs_no_tokens(make_task, tokenizer, toy_dir, tmp_path):
    data = TextData(make_task(), tokenizer=tokenizer, seed=0, data_dir=toy_dir, cache_dir=tmp_path / "none")
    assert len(data.fingerprint) == 64
    assert not (tmp_path / "none").exists()


class Recorder(lightning.LightningModule):
    """Learns nothing and remembers which rows it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, index):
        self.seen.append((self.current_epoch, batch["idx"].tolist()))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(data, folder, max_epochs, checkpoint=None):
    module = Recorder()
    trainer = lightning.Trainer(
        max_epochs=max_epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / "epoch.ckpt")
    return module.seen


@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_at_an_epoch_boundary_with_the_same_batches(make_data, tmp_path):
    whole = train(make_data(), tmp_path, 4)
    first = train(make_data(), tmp_path, 2)
    rest = train(make_data(), tmp_path, 4, checkpoint=tmp_path / "epoch.ckpt")
    assert first + rest == whole
    (last,) = epochs(make_data().train_dataloader(), [3])
    assert [batch for epoch, batch in whole if epoch == 3] == last


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("rows", [1, 8, 9, 10, 15])
def test_the_ranks_divide_every_batch_and_a_row_that_fills_in_counts_nothing(rows, world):
    order = EpochSampler(rows, seed=3)
    batches = list(BatchSampler(order, 4, drop_last=False))
    ranks = [SharedBatches(order, 4, ranks=Ranks(rank=rank, world=world)) for rank in range(world)]
    shares = [list(sampler) for sampler in ranks]
    assert {len(share) for share in shares} == {len(batches)}, "a rank that takes fewer steps stops the others"
    for index, batch in enumerate(batches):
        counted = [share[index][: sampler.rows_in(index)[0]] for share, sampler in zip(shares, ranks, strict=True)]
        assert sorted(row for part in counted for row in part) == sorted(batch)
        assert {sampler.rows_in(index)[1] for sampler in ranks} == {len(batch)}
        assert all(share[index] for share in shares)
    order.set_epoch(1)
    assert [row for batch in SharedBatches(order, 4, ranks=ALONE) for row in batch] == list(order)
