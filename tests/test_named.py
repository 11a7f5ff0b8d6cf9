"""Several adapters on one base: switching, sums, routing, heads, files; every refusal leaves the model as it was."""

import copy
import pickle

import lightning
import pytest
import torch
from safetensors import safe_open
from torch import nn

from tests.classifiers import bert, perturb, roberta, sentences
from tests.names import part
from tests.test_conformance import VARIANTS
from xlora_bench import inject
from xlora_bench.adapters import LoLDU, LoRA, Orthogonal
from xlora_bench.decompositions import ldu_along
from xlora_bench.layers.named import key_of, name_of
from xlora_bench.layout import forward
from xlora_bench.targets import Targets

QV = Targets(modules=["query", "value"])
QK = Targets(modules=["query", "key"])


def stacked(*names, base=None):
    """Return a RoBERTa classifier with an adapter of its own rank, variant and targets for each name."""
    net = base or roberta(2)
    kinds = [(LoRA(rank=2), QV), (Orthogonal(rank=3, alpha=5), QK), (LoLDU(rank=4), QV)]
    for place, name in enumerate(names):
        adapter, targets = kinds[place % 3]
        inject.add_adapter(net, name, adapter, targets=targets)
        perturb(inject.adapter_parameters(net, name), seed=place)
    return net


def logits(net, batch=None):
    return net(**(sentences() if batch is None else batch)).logits


def used(net, *names, **options):
    with torch.no_grad(), inject.use_adapters(net, list(names), **options):
        return logits(net)


def snapshot(net):
    """Return everything that a refused call must leave as it was."""
    return (
        {name: tensor.tolist() for name, tensor in net.state_dict().items()},
        {name: parameter.requires_grad for name, parameter in net.named_parameters()},
        [(path, type(module).__name__) for path, module in net.named_modules()],
        inject.tree.active_weights(net),
    )


def refused(net, call, message):
    before = snapshot(net)
    with pytest.raises(ValueError, match=message):
        call()
    assert snapshot(net) == before


# Switching


def test_each_adapter_computes_as_if_it_were_alone():
    net = stacked("mrpc", "rte", "cola")
    for place, name in enumerate(["mrpc", "rte", "cola"]):
        alone = roberta(2)
        adapter, targets = [(LoRA(rank=2), QV), (Orthogonal(rank=3, alpha=5), QK), (LoLDU(rank=4), QV)][place]
        inject.add_adapter(alone, name, adapter, targets=targets)
        perturb(inject.adapter_parameters(alone, name), seed=place)
        assert torch.equal(used(net, name), used(alone, name))
    assert torch.equal(used(net), logits(roberta(2)))


def test_t6_context_is_exception_safe_and_reentrant():
    net = stacked("mrpc", "rte")
    base, mrpc, rte = used(net), used(net, "mrpc"), used(net, "rte")
    assert not torch.equal(mrpc, rte)
    with torch.no_grad():
        context = inject.use_adapters(net, "mrpc")
        with context:
            assert torch.equal(logits(net), mrpc)
            with pytest.raises(IndexError), inject.use_adapters(net, "rte"):
                logits(net)[len(ROWS)]
            assert torch.equal(logits(net), mrpc)
            with inject.use_adapters(net, []), context:
                assert torch.equal(logits(net), mrpc)
        assert torch.equal(logits(net), base)
        with context:
            assert torch.equal(logits(net), mrpc)
        inject.use_adapters(net, "rte")
        assert torch.equal(logits(net), rte)


def test_t6_a_layer_can_be_called_before_any_switch():
    net = stacked("mrpc")
    assert net.roberta.encoder.layer[0].attention.self.query(torch.ones(1, 2, 16)).shape == (1, 2, 16)


def test_sum_does_not_depend_on_the_order_to_the_bit():
    net = stacked("surrealism", "pokemon", "zebra", base=None)
    names, weights = ["surrealism", "pokemon", "zebra"], [0.3, 1.7, -0.2]
    expected = used(net, *names, weights=weights, head="zebra")
    for order in ([2, 0, 1], [1, 2, 0], [2, 1, 0]):
        got = used(net, *(names[i] for i in order), weights=[weights[i] for i in order], head="zebra")
        assert torch.equal(got, expected)


def test_weighted_sum_is_the_dense_formula():
    net = nn.Sequential(nn.Linear(6, 5))
    for name, rank in (("a", 2), ("b", 3)):
        inject.add_adapter(net, name, LoRA(rank=rank), targets=Targets(modules=["0"]))
        perturb(inject.adapter_parameters(net, name))
    base, x = net[0].base_layer, torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    W = base.weight + 0.25 * net[0].deltas["a"].matrix() - 2 * net[0].deltas["b"].matrix()
    with inject.use_adapters(net, ["b", "a"], weights=[-2, 0.25]):
        torch.testing.assert_close(net(x), x @ W.T + base.bias)
        inject.merge(net)
        torch.testing.assert_close(net(x), x @ W.T + base.bias)
    assert torch.equal(net(x), base(x))


def test_merged_weights_come_back_after_a_block():
    net = stacked("mrpc", "rte")
    inject.use_adapters(net, "mrpc")
    inject.merge(net)
    with torch.no_grad():
        merged = logits(net)
        with inject.use_adapters(net, "rte"):
            assert net.roberta.encoder.layer[0].attention.self.query.merged_weight is None
        assert torch.equal(logits(net), merged)


def test_t16_unknown_repeated_and_unfit_names_are_errors():
    net = stacked("mrpc", "rte")
    refused(net, lambda: inject.use_adapters(net, "mprc"), "no adapter is called 'mprc'; the model has: mrpc, rte")
    refused(net, lambda: inject.use_adapters(net, ["mrpc", "mrpc"]), "repeats a name")
    refused(net, lambda: inject.use_adapters(net, ["mrpc"], weights=[1, 2]), "one finite number for each")
    refused(net, lambda: inject.use_adapters(net, ["mrpc"], weights=[float("nan")]), "one finite number for each")
    refused(net, lambda: inject.use_adapters(net, ["mrpc", "rte"]), "each have a task head; say which serves")
    refused(net, lambda: inject.route(net, ["mrpc", "x"]), "no adapter is called 'x'")
    refused(net, lambda: inject.adapter_parameters(net, "x"), "no adapter is called 'x'")
    refused(net, lambda: inject.save_adapter(net, "x", "x.safetensors"), "no adapter is called 'x'")


def test_t16_double_injection_and_bad_names_leave_the_model_as_it_was():
    net = stacked("mrpc")
    refused(net, lambda: inject.add_adapter(net, "mrpc", LoRA(), targets=QK), "is at `roberta.*` already")
    for name in ("a/b", "", " ", "a\\b", "a\n"):
        refused(net, lambda name=name: inject.add_adapter(net, name, LoRA(rank=2), targets=QV), "without slashes")
    refused(net, lambda: inject.add_adapter(net, "x", LoRA(rank=99), targets=QV), r"`adapter.rank` \(=99\)")
    refused(net, lambda: inject.add_adapter(net, "x", LoRA(rank=2, bias="all"), targets=QV), "biases of the base")
    wrong = {"clasifier": nn.Linear(2, 2)}
    refused(net, lambda: inject.add_adapter(net, "x", LoRA(rank=2), targets=QV, head=wrong), "no module of the model")


@pytest.mark.parametrize("name", ["v1.2", ".", "100%", "%2E", "keys", "training", "train", "a.b.c", "日本"])
def test_t16_names_with_dots_and_names_of_attributes_work(name, tmp_path):
    assert name_of(key_of(name)) == name
    net = stacked(name, "other")
    inject.save_adapter(net, name, tmp_path / "a.safetensors")
    fresh = inject.load_adapter(roberta(2), tmp_path / "a.safetensors")
    assert inject.adapter_names(fresh) == [name]
    assert torch.equal(used(fresh, name), used(net, name))
    twin = stacked(name, "other")
    perturb(inject.adapter_parameters(twin, name))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(used(twin, name), used(net, name))


def test_rename_and_remove():
    net, base = stacked("mrpc", "rte"), roberta(2)
    mrpc, rte = used(net, "mrpc"), used(net, "rte")
    inject.use_adapters(net, "mrpc")
    inject.rename_adapter(net, "mrpc", "v2.0")
    assert inject.adapter_names(net) == ["rte", "v2.0"]
    assert torch.equal(logits(net), mrpc)
    refused(net, lambda: inject.rename_adapter(net, "v2.0", "rte"), "already")
    net = inject.remove_adapter(net, "v2.0")
    assert torch.equal(used(net, "rte"), rte)
    net = inject.remove_adapter(net, "rte")
    assert [type(module) for module in net.modules()] == [type(module) for module in base.modules()]
    assert torch.equal(logits(net), logits(base))


def test_adapters_train_and_freeze_one_by_one():
    net = stacked("mrpc", "rte")
    inject.requires_grad_(net, "mrpc", requires_grad=False)
    assert not any(parameter.requires_grad for parameter in inject.adapter_parameters(net, "mrpc"))
    assert all(parameter.requires_grad for parameter in inject.adapter_parameters(net, "rte"))
    trained = {id(parameter) for parameter in net.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for parameter in inject.adapter_parameters(net, "rte")}


# D1, D2, D3: what disabling and removing leave behind


def test_d1_d2_d3_disable_and_remove_leave_the_pretrained_weights():
    base = roberta(2)
    net = stacked("lora", "ortho", "loldu", base=copy.deepcopy(base))
    inject.use_adapters(net, "loldu")
    with inject.disabled(net):
        assert torch.equal(logits(net), logits(base))
    net = inject.remove(net)
    assert {name: value.tolist() for name, value in net.state_dict().items()} == {
        name: value.tolist() for name, value in base.state_dict().items()
    }


def test_t17_y6_merge_and_remove_merged_keep_the_adapter_and_its_head():
    net = stacked("mrpc", "rte")
    expected = used(net, "rte")
    inject.use_adapters(net, "rte")
    plain = inject.remove(net, merged=True)
    assert not list(inject.adapted_layers(plain))
    torch.testing.assert_close(logits(plain), expected, rtol=1e-4, atol=1e-5)


def test_d12_s9_merging_while_dropout_trains_is_refused():
    net = roberta(2)
    inject.add_adapter(net, "a", LoRA(rank=2, dropout=0.5), targets=QV)
    inject.use_adapters(net, "a")
    net.train()
    refused(net, lambda: inject.merge(net), "trains with dropout")
    inject.merge(net.eval())


def test_t14_a_model_can_be_copied_and_pickled():
    net = stacked("mrpc", "rte")
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(used(twin, "rte"), used(net, "rte"))
        perturb(inject.adapter_parameters(twin, "rte"))
        assert not torch.equal(used(twin, "rte"), used(net, "rte"))


def test_t7_root_layer_and_shared_modules():
    root = inject.add_adapter(nn.Linear(4, 3), "a", LoRA(rank=2), targets=Targets(modules=[""]))
    perturb(inject.adapter_parameters(root, "a"))
    x = torch.ones(2, 4)
    with inject.use_adapters(root, "a"):
        assert not torch.equal(root(x), root.base_layer(x))
    assert type(inject.remove_adapter(root, "a")) is nn.Linear
    shared = nn.Linear(4, 4)
    net = inject.add_adapter(nn.Sequential(shared, shared), "a", LoRA(rank=2), targets=Targets(modules=["0"]))
    assert net[0] is net[1]


# Heads


def test_heads_are_switched_and_may_differ_in_labels():
    net = roberta(2)
    inject.add_adapter(net, "mrpc", LoRA(rank=2), targets=QV)
    inject.add_adapter(net, "mnli", LoRA(rank=2), targets=QV, head=inject.new_head(net, num_labels=3, seed=1))
    inject.add_adapter(net, "style", LoRA(rank=2), targets=QV, head={})
    assert used(net, "mnli").shape == (6, 3)
    assert used(net, "mrpc").shape == (6, 2)
    assert used(net, "style", "mnli").shape == (6, 3)
    assert torch.equal(used(net, "mrpc"), logits(roberta(2)))  # a copy of the base's head, and a delta of zero
    again = inject.new_head(roberta(2), num_labels=3, seed=1)["classifier"]
    assert torch.equal(again.out_proj.weight, inject.heads(net, "mnli")["classifier"].out_proj.weight)


def test_d16_heads_train_with_their_adapter_alone():
    net = stacked("mrpc", "rte")
    with inject.use_adapters(net, "mrpc"):
        logits(net).square().sum().backward()
    assert all(parameter.grad is not None for parameter in inject.adapter_parameters(net, "mrpc"))
    with_gradient = {id(parameter) for parameter in net.parameters() if parameter.grad is not None}
    assert with_gradient == {id(parameter) for parameter in inject.adapter_parameters(net, "mrpc")}


# Routing

ROWS = ["mrpc", "rte", "mrpc", None, "rte", "rte"]


def select(batch, rows):
    return {key: value[rows] for key, value in batch.items()}


def gradients(net):
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}


def test_routed_rows_equal_each_adapter_alone_in_training_too():
    net, batch = stacked("mrpc", "rte").train(), sentences()
    with inject.route(net, ROWS):
        routed = logits(net, batch)
        routed.square().sum().backward()
    got = gradients(net)
    net.zero_grad()
    for name in ("mrpc", "rte", None):
        rows = [row for row, other in enumerate(ROWS) if other == name]
        with inject.use_adapters(net, [name] if name else []):
            alone = logits(net, select(batch, rows))
        torch.testing.assert_close(routed[rows], alone, rtol=1e-5, atol=1e-6)
        if name:
            alone.square().sum().backward()
    expected = gradients(net)
    assert set(got) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_routed_heads_of_different_widths_fill_up_with_impossible_classes():
    net = stacked("mrpc", base=bert(2))
    inject.add_adapter(net, "mnli", LoRA(rank=2), targets=QV, head=inject.new_head(net, num_labels=3, seed=1))
    labels = torch.tensor([0, 2, 1])
    batch = sentences(3)
    with inject.route(net, ["mrpc", "mnli", "mrpc"]):
        got = logits(net, batch)
        loss = nn.functional.cross_entropy(got, labels)
        loss.backward()
    assert got[0, 2] == got[2, 2] == float("-inf")
    with torch.no_grad(), inject.use_adapters(net, "mrpc"):
        torch.testing.assert_close(got[0, :2], logits(net, batch)[0])
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(net).values())


def test_routing_is_refused_where_rows_are_not_the_batch():
    net, batch = stacked("mrpc", "rte"), sentences()
    with inject.route(net, ["mrpc", "rte"]):
        with pytest.raises(ValueError, match="2 rows are routed, but an adapted module got an input of shape"):
            logits(net, batch)
        with pytest.raises(ValueError, match="packed batches hold several sentences"):
            forward(net, batch | {"segment_ids": torch.ones(6, 7), "first": torch.arange(6)})
        refused(net, lambda: inject.merge(net), "rows are routed")
    assert not inject.tree.is_routed(net)


def test_sums_and_switches_compile_to_one_graph():
    net = nn.Sequential(nn.Linear(6, 5))
    for name in ("v1.0", "b"):
        inject.add_adapter(net, name, LoRA(rank=2), targets=Targets(modules=["0"]))
        perturb(inject.adapter_parameters(net, name))
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for names in (["v1.0"], ["b", "v1.0"], []):
        with inject.use_adapters(net, names):
            assert torch.equal(compiled(torch.ones(2, 6)), net(torch.ones(2, 6)))


# State


def test_t8_twelve_siblings_reload(tmp_path):
    net = nn.Sequential(*(nn.Linear(5, 5) for _ in range(12)))
    base = copy.deepcopy(net)
    inject.add_adapter(net, "a", LoRA(rank=2), targets=Targets(modules="all-linear"))
    perturb(inject.adapter_parameters(net, "a"))
    inject.save_adapter(net, "a", tmp_path / "a.safetensors")
    fresh = inject.load_adapter(base, tmp_path / "a.safetensors")
    x = torch.ones(3, 5)
    with inject.use_adapters(fresh, "a"), inject.use_adapters(net, "a"):
        assert torch.equal(fresh(x), net(x))
    fresh.load_state_dict(net.state_dict())


def test_t9_strict_means_strict(tmp_path):
    net, path = stacked("mrpc"), tmp_path / "a.safetensors"
    inject.save_adapter(net, "mrpc", path)
    tensors, metadata = read(path)
    key = next(key for key in tensors if key.endswith("lora_A"))
    for damaged, message in (
        ({name: tensor for name, tensor in tensors.items() if name != key}, "missing"),
        (tensors | {"deltas/x/lora_A": torch.ones(2)}, "unexpected"),
        (tensors | {key: tensors[key][:, 1:].clone()}, "has shape"),
        (tensors | {"head/classifier/extra": torch.ones(1)}, "unexpected"),
    ):
        write(damaged, path, metadata)
        fresh = roberta(2)
        refused(fresh, lambda fresh=fresh: inject.load_adapter(fresh, path), message)
    state = inject.adapter_state_dict(net, "mrpc")
    state.popitem()
    refused(net, lambda: inject.load_adapter_state_dict(net, state, "mrpc"), "missing")


def read(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def write(tensors, path, metadata):
    from safetensors.torch import save_file

    save_file(tensors, path, metadata=metadata)


def test_damaged_foreign_and_misplaced_files_are_refused(tmp_path):
    net, path = stacked("mrpc"), tmp_path / "a.safetensors"
    inject.save_adapter(net, "mrpc", path)
    whole = path.read_bytes()
    small = nn.Sequential(nn.Linear(3, 3))
    refused(small, lambda: inject.load_adapter(small, path), "which this Sequential does not have")
    other = roberta(2, seed=9)
    refused(other, lambda: inject.load_adapter(other, path), "is not the one this adapter was trained on")
    inject.load_adapter(other, path, other_base=True)
    refused(net, lambda: inject.load_adapter(net, path), "already")
    path.write_bytes(whole[: len(whole) // 2])
    fresh = roberta(2)
    refused(fresh, lambda: inject.load_adapter(fresh, path), "cannot be read as an adapter file")
    write({"x": torch.ones(1)}, path, {"format": "pt"})
    refused(fresh, lambda: inject.load_adapter(fresh, path), "no adapter file of format 1")
    refused(fresh, lambda: inject.load_adapter(fresh, tmp_path / "nothing"), "cannot be read as an adapter file")


def test_t10_nested_in_a_lightning_module_nothing_is_lost():
    outer, other = lightning.LightningModule(), lightning.LightningModule()
    outer.model, other.model = stacked("mrpc", "v1.0"), stacked("mrpc", "v1.0")
    for name in ("mrpc", "v1.0"):
        perturb(inject.adapter_parameters(other.model, name), seed=50)
    other.load_state_dict(outer.state_dict())
    for name in ("mrpc", "v1.0"):
        assert torch.equal(used(other.model, name), used(outer.model, name))


def test_t11_t12_plain_checkpoints_load_after_wrapping():
    net, plain = stacked("mrpc", "rte"), roberta(2, seed=5)
    state = plain.state_dict()
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(".deltas." in key or ".heads." in key for key in missing)
    assert torch.equal(used(net), logits(plain))


def test_d4_y7_y8_files_hold_the_adapter_and_nothing_else(tmp_path):
    net = stacked("lora", "ortho", "loldu")
    for name in ("lora", "ortho", "loldu"):
        inject.save_adapter(net, name, tmp_path / name)
        tensors, _ = read(tmp_path / name)
        kept = {
            f"deltas/{path}/{key}": v
            for path, d in inject.deltas(net, name).items()
            for key, v in d.state_dict().items()
        }
        kept |= {
            f"head/{path}/{key}": v for path, h in inject.heads(net, name).items() for key, v in h.state_dict().items()
        }
        assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
            k: tuple(v.shape) for k, v in kept.items()
        }
    sizes = [tensor.numel() for key, tensor in read(tmp_path / "loldu")[0].items() if key.startswith("deltas/")]
    assert max(sizes) == 16  # pivots (out,), z (r,), scaled z0 (r,) and sigma: no triangular factor


@pytest.mark.parametrize("variant", VARIANTS)
def test_d10_every_variant_reloads_from_its_file_with_its_options(variant, tmp_path):
    adapter = part("adapter", variant, "adapter.rank=4", "adapter.alpha=12")
    net = inject.add_adapter(roberta(2), "a", adapter, targets=QV)
    perturb(inject.adapter_parameters(net, "a"))
    inject.save_adapter(net, "a", tmp_path / "a.safetensors")
    fresh = inject.load_adapter(roberta(2), tmp_path / "a.safetensors", name="b")
    assert torch.equal(used(fresh, "b"), used(net, "a"))
    origin = next(layer for _, layer in inject.adapted_layers(fresh)).origins["b"]
    assert origin.adapter == adapter
    assert origin.init_scheme == adapter.default_init()
    trained = sum(parameter.requires_grad for parameter in fresh.parameters())
    assert trained == sum(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("how", ["file", "state", "model"])
def test_d15_loldu_reloads_where_another_lapack_pivots_otherwise(how, tmp_path, monkeypatch):
    net = inject.add_adapter(roberta(2), "a", LoLDU(rank=5, train_sigma=True), targets=QV)
    perturb(inject.adapter_parameters(net, "a"))
    inject.save_adapter(net, "a", tmp_path / "a.safetensors")

    def other_lapack(weight):
        return ldu_along(weight, torch.arange(len(weight)).flip(0))

    monkeypatch.setattr("xlora_bench.adapters.loldu.ldu", other_lapack)
    fresh = roberta(2)
    if how == "file":
        inject.load_adapter(fresh, tmp_path / "a.safetensors")
    else:
        inject.add_adapter(fresh, "a", LoLDU(rank=5, train_sigma=True), targets=QV)
        assert not torch.allclose(used(fresh, "a"), used(net, "a"), atol=1e-3)
        if how == "state":
            inject.load_adapter_state_dict(fresh, inject.adapter_state_dict(net, "a"), "a")
            for place, head in inject.heads(net, "a").items():
                inject.heads(fresh, "a")[place].load_state_dict(head.state_dict())
        else:
            fresh.load_state_dict(net.state_dict())
    torch.testing.assert_close(used(fresh, "a"), used(net, "a"), rtol=1e-4, atol=1e-5)


def test_d9_parameters_exist_and_sit_on_the_base_as_soon_as_the_adapter_is_added():
    net = stacked("mrpc", "rte", "cola")
    before = {name for name, _ in net.named_parameters()}
    for name in ("mrpc", "rte", "cola"):
        used(net, name)
    assert {name for name, _ in net.named_parameters()} == before


def test_files_name_no_code(tmp_path):
    net, path = stacked("mrpc"), tmp_path / "a.safetensors"
    inject.save_adapter(net, "mrpc", path)
    tensors, metadata = read(path)
    metadata["xlora_bench"] = metadata["xlora_bench"].replace("xlora_bench.adapters.lora.LoRA", "os.system")
    write(tensors, path, metadata)
    fresh = roberta(2)
    refused(fresh, lambda: inject.load_adapter(fresh, path), "names the class 'os.system'; import its module first")
