"""An exported adapter, loaded by peft on the untouched base, gives the same logits."""

import copy
import json

import peft
import pytest
import torch
from torch import nn

from tests.helpers.classifiers import bert, perturb, roberta, sentences
from tests.helpers.names import choices, part
from tests.test_conformance import VARIANTS
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.inject.peft_io import export_peft
from xlora_bench.inject.targets import Targets

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
TARGETS = Targets(modules=["query", "value"])
STARTS = ["svd_left", "svd_both", "svd_minor", "qr"]
CASES = [(variant, None) for variant in VARIANTS] + [
    ("lora", start) for start in STARTS if start in choices("init_scheme")
]


def adapted(variant, start=None):
    """Return an untouched base, and a copy of it with a trained-looking adapter (a YAML's, or given) and head."""
    adapter = part("adapter", variant, "adapter.rank=4", "adapter.alpha=12") if isinstance(variant, str) else variant
    base = roberta(3)
    scheme = part("init_scheme", start) if start else None
    net = inject.add_adapter(copy.deepcopy(base), "task", adapter, targets=TARGETS, init_scheme=scheme)
    perturb(inject.adapter_parameters(net, "task"))
    inject.use_adapters(net, "task")
    return base, net


def logits(net, x=None):
    with torch.no_grad():
        return net.eval()(**(x or sentences())).logits


def error_of(variant, start, folder):
    """Return the largest difference of the logits after a round through peft, and how far the deltas move them."""
    base, net = adapted(variant, start)
    expected = logits(net)
    with inject.use_adapters(net, [], head="task"):
        head_alone = logits(net)
    export_peft(net, folder, name="task")
    loaded = peft.PeftModel.from_pretrained(base, str(folder))
    return (logits(loaded) - expected).abs().max().item(), (expected - head_alone).abs().max().item()


@pytest.mark.parametrize(("variant", "start"), CASES)
def test_peft_gives_the_same_logits_on_the_untouched_base(variant, start, tmp_path):
    error, effect = error_of(variant, start, tmp_path)
    assert effect > 1e-3
    assert error < TOLERANCE


def test_file_is_plain_lora_with_its_head(tmp_path):
    _, net = adapted("lora", "svd_both")
    export_peft(net, tmp_path, name="task")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 8, 24)  # 2r, alpha folded: s = 12 / 4
    assert sorted(config["target_modules"]) == ["query", "value"]
    assert config["modules_to_save"] == ["classifier"]
    assert config["init_lora_weights"] is True


def test_ranks_and_alphas_per_module_become_patterns(tmp_path):
    adapter = LoRA(rank=4, rank_pattern={"layer.1.attention.self.query": 2}, alpha_pattern={"value": 5.0})
    error, _ = error_of(adapter, None, tmp_path)
    assert error < TOLERANCE
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert list(config["rank_pattern"].values()) == [2]
    assert sorted(config["alpha_pattern"].values()) == [5, 5]  # both values; both queries share the default


class Names(nn.Module):
    """Modules whose names are endings of each other."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.ModuleDict({"proj": nn.Linear(5, 5), "a": nn.ModuleDict({"proj": nn.Linear(5, 5)})})
            self.proj = nn.Linear(5, 5)

    def forward(self, x):
        return self.proj(self.inner["a"]["proj"](self.inner["proj"](x)))


def test_peft_adapts_exactly_the_same_modules(tmp_path):
    base = Names()
    net = inject.add_adapter(copy.deepcopy(base), "x", LoRA(rank=2), targets=Targets(modules="proj"))
    perturb(inject.adapter_parameters(net, "x"))
    inject.use_adapters(net, "x")
    export_peft(net, tmp_path, name="x")
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path))
    x = torch.ones(2, 5)
    torch.testing.assert_close(loaded(x), net(x))


def test_injected_model_exports_the_models_own_trained_head(tmp_path):
    base = bert(3)
    net = inject.inject(copy.deepcopy(base), LoRA(rank=2), targets=TARGETS)
    perturb(p for delta in inject.deltas(net).values() for p in delta.parameters())
    perturb(net.classifier.parameters())
    export_peft(net, tmp_path)
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path))
    torch.testing.assert_close(logits(loaded), logits(net))


class Layers(nn.Module):
    """One module of each layer type that peft's LoRA knows too."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.table = nn.Embedding(11, 6, padding_idx=0)
            self.conv = nn.Conv1d(6, 8, 3, padding=1, stride=2)
            self.out = nn.Linear(8, 4)

    def forward(self, ids):
        return self.out(torch.tanh(self.conv(self.table(ids).transpose(1, 2)).mean(-1)))


def test_embeddings_and_convolutions(tmp_path):
    base = Layers()
    targets = Targets(modules=["table", "conv", "out"])
    net = inject.add_adapter(copy.deepcopy(base), "x", LoRA(rank=2), targets=targets)
    perturb(inject.adapter_parameters(net, "x"))
    inject.use_adapters(net, "x")
    export_peft(net, tmp_path, name="x")
    ids = torch.tensor([[0, 3, 4, 10], [1, 1, 0, 0]])
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path))
    torch.testing.assert_close(loaded(ids), net(ids))


@pytest.mark.parametrize("option", [{"groups": 2}, {"dilation": 2}, {"padding_mode": "circular", "padding": 1}])
def test_convolutions_that_peft_computes_otherwise_are_refused(option, tmp_path):
    net = nn.Sequential(nn.Conv1d(6, 8, 3, **option))
    inject.inject(net, LoRA(rank=2), targets=Targets(modules=["0"]))
    with pytest.raises(ValueError, match=f"`0` is a convolution with {next(iter(option))}="):
        export_peft(net, tmp_path)


def test_trained_biases_and_unknown_names_are_refused(tmp_path):
    net = inject.inject(bert(), LoRA(rank=2, bias="adapted"), targets=TARGETS)
    with pytest.raises(ValueError, match="trained biases of the base"):
        export_peft(net, tmp_path)
    with pytest.raises(ValueError, match="no adapter is called 'mrpc'; the model has: default"):
        export_peft(net, tmp_path, name="mrpc")
