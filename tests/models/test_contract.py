"""The model-zoo contract, for every network of the registry."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from alexnet.errors import UsageError
from alexnet.models import Network, create_model, input_spec, list_models, load_run, model_entry

build: Callable[..., Any] = create_model  # networks have more attributes than nn.Module


def small(name: str) -> dict[str, Any]:
    """Arguments that make a network light without taking a layer away."""
    if "fc6" in FEATURES[name]:
        return {"image_size": 67, "hidden": 32}
    return {"image_size": 16} if name == "alexnet_cifar" else {}


ALEXNET = "conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 fc7"
PLAIN = ALEXNET.replace("norm1 ", "").replace("norm2 ", "")
FEATURES = {
    "lenet1989": "h1 h2 h3",
    "lenet5": "c1 s2 c3 s4 c5 f6",
    "lenet5_dense": "c1 s2 c3 s4 c5 f6",
    "alexnet": ALEXNET,
    "alexnet_ungrouped": ALEXNET,
    "alexnet_bn": PLAIN,
    "alexnet_cifar": "conv1 pool1 norm1 conv2 norm2 pool2 local3 local4 flat",
    "alexnet_owt": PLAIN,
}


@pytest.fixture(params=list_models())
def name(request):
    return request.param


@pytest.fixture
def network(name) -> Network:
    torch.manual_seed(0)
    made = build(name, num_classes=5, **small(name))
    assert isinstance(made, Network)
    return made.eval()


def batch(network: Network, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    side = network.image_size
    return torch.randn(count, network.in_chans, side, side, generator=generator)


def test_forward_is_features_then_head(network):
    x = batch(network)
    features = network.forward_features(x)
    assert features.shape[:2] == (2, network.num_features)
    assert features.dim() == 4
    hidden = network.forward_head(features, pre_logits=True)
    assert hidden.shape == (2, network.head_hidden_size)
    logits = network(x)
    assert logits.shape == (2, 5)
    assert torch.equal(logits, network.forward_head(features))
    assert torch.equal(logits, network.get_classifier()(hidden))


def test_intermediates_by_name_and_number(name, network):
    x = batch(network)
    assert network.feature_names == FEATURES[name].split()
    last, features = network.forward_intermediates(x)
    assert torch.equal(last, network.forward_features(x))
    assert torch.equal(features[-1], last)
    assert len(features) == len(network.feature_info)
    for info, feature in zip(network.feature_info, features, strict=True):
        assert info["num_chs"] == feature.shape[1]
        assert info["reduction"] == round(network.image_size / feature.shape[-1])
    first, final = network.feature_names[0], network.feature_names[-1]
    both = network.forward_intermediates(x, [final, 0], intermediates_only=True)
    assert torch.equal(both[0], features[0])
    assert torch.equal(both[1], network.forward_head(last, pre_logits=True))
    (alone,) = network.forward_intermediates(x, first, intermediates_only=True, stop_early=True)
    assert torch.equal(alone, features[0])
    early, _ = network.forward_intermediates(x, [first], stop_early=True)
    assert torch.equal(early, features[0])
    two_last = network.forward_intermediates(x, 2, intermediates_only=True)
    assert [t.shape for t in two_last] == [t.shape for t in features[-2:]]
    with pytest.raises(ValueError, match=r"no feature 'conv9': choose from"):
        network.forward_intermediates(x, ["conv9"])
    with pytest.raises(ValueError, match=r"no feature number 99"):
        network.forward_intermediates(x, [99])


def test_reset_classifier(network):
    x = batch(network)
    hidden = network.forward_head(network.forward_features(x), pre_logits=True)
    network.reset_classifier(7)
    assert network.num_classes == 7
    assert network.model_arguments["num_classes"] == 7
    assert network(x).shape == (2, 7)
    network.reset_classifier(0)
    assert torch.equal(network(x), hidden)
    network.reset_classifier(10)
    assert network(x).shape == (2, 10)
    with pytest.raises(ValueError, match=r"num_classes=-1"):
        network.reset_classifier(-1)
    with pytest.raises(ValueError, match=r"global_pool='avg'"):
        network.reset_classifier(5, "avg")


def test_reset_classifier_keeps_device_and_dtype(network):
    network.bfloat16()
    network.reset_classifier(3)
    assert {t.dtype for t in network.get_classifier().state_dict().values()} == {torch.bfloat16}
    network.to("meta")
    network.reset_classifier(4)
    assert all(t.is_meta for t in network.get_classifier().state_dict().values())


@pytest.mark.parametrize("in_chans", [1, 3])
def test_channels_and_size(name, in_chans):
    size = 80 if "hidden" in small(name) else 40
    arguments = {**small(name), "image_size": size}
    network = build(name, num_classes=4, in_chans=in_chans, **arguments).eval()
    assert network(torch.randn(1, in_chans, size, size)).shape == (1, 4)
    spec = input_spec(name, size, in_chans)
    assert (spec.size, spec.channels) == (size, in_chans)
    assert network.pretrained_cfg["input_size"] == (in_chans, size, size)


def test_published_input(name):
    spec = model_entry(name).spec
    with torch.device("meta"):
        network = build(name)
    assert (network.image_size, network.in_chans) == (spec.size, spec.channels)


def test_bf16_autocast(network):
    x = batch(network)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
        network.loss(logits, torch.tensor([0, 1])).backward()
    wanted = network(x)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(
        logits.float(), wanted, rtol=0.05, atol=0.05 * wanted.abs().max().item()
    )
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in network.parameters())


def test_training_lowers_the_loss(network):
    network.train()
    torch.manual_seed(0)
    x, labels = batch(network, 8), torch.arange(8) % 5
    for module in network.modules():  # the same loss each time
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = network.loss(network(x), labels)
        loss.backward()
        assert all(p.grad is not None for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_loss_takes_numbers_and_probabilities(network):
    logits, labels = network(batch(network)), torch.tensor([1, 4])
    one_hot = torch.eye(5)[labels]
    torch.testing.assert_close(network.loss(logits, labels), network.loss(logits, one_hot))
    smooth = network.loss(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(smooth, network.loss(logits, one_hot, label_smoothing=0.2))
    spread = one_hot * 0.8 + 0.2 / 5
    torch.testing.assert_close(smooth, network.loss(logits, spread))


def test_evaluation_mode_is_deterministic_and_dropout_is_not(network):
    x = batch(network)
    assert torch.equal(network(x), network(x))
    drops = [m for m in network.modules() if isinstance(m, torch.nn.Dropout) and m.p > 0]
    if drops:
        network.train()
        assert not torch.equal(network(x), network(x))


def test_save_and_load(name, network, tmp_path):
    x = batch(network)
    network.save_pretrained(tmp_path)
    for again in (
        load_run(tmp_path).network,
        Network.from_pretrained(tmp_path),
        type(network).from_pretrained(tmp_path),
    ):
        assert type(again) is type(network)
        assert again.model_name == name
        assert not again.training
        assert torch.equal(again(x), network(x))
        assert all(p.requires_grad for p in again.parameters())
    fresh = build(name, **network.model_arguments).eval()
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(x), network(x))
    json.dumps(network.model_arguments)


def test_deepcopy(network):
    x = batch(network)
    twin = copy.deepcopy(network)
    wanted = network(x)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(network(x), wanted)
    assert twin.model_arguments == network.model_arguments


def test_no_classifier(name):
    network = build(name, num_classes=0, **small(name)).eval()
    assert network(batch(network)).shape == (2, network.head_hidden_size)


def test_meta_device(name):
    with torch.device("meta"):
        network = build(name)
        logits = network(torch.empty(1, network.in_chans, network.image_size, network.image_size))
    assert logits.shape == (1, network.num_classes)


def test_too_small_a_picture_is_one_line_with_the_least_size(name):
    with pytest.raises(UsageError, match=r"image_size=3 is too small.*at least \d+") as caught:
        build(name, image_size=3)
    assert "\n" not in str(caught.value)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    build(name, **{**small(name), "image_size": least})
    with pytest.raises(UsageError, match=r"is too small"):
        build(name, **{**small(name), "image_size": least - 1})


@pytest.mark.parametrize(
    "arguments", [{"num_classes": -2}, {"in_chans": 0}, {"activation": "rleu"}, {"image_size": "x"}]
)
def test_wrong_values_are_one_line(name, arguments):
    with pytest.raises(UsageError, match=next(iter(arguments))) as caught:
        build(name, **arguments)
    assert "\n" not in str(caught.value)


def test_unknown_argument_suggests(name):
    with pytest.raises(UsageError, match=r"unknown argument .*'activaton'.*'activation'"):
        build(name, activaton="relu")
