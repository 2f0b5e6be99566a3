"""How exact the whole network is in bf16: as torch's own operations are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.layers import lrn, max_pool
from alexnet.models.alexnet import AlexNet
from alexnet.native import native

COUNT, SIDE = 32, 67


def gradients(network: AlexNet, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Of the mean loss, by every parameter, in float64."""
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        logits = network(x.to(memory_format=torch.channels_last))
    F.cross_entropy(logits.to(next(network.parameters()).dtype), labels).backward()
    return {name: p.grad.double() for name, p in network.named_parameters() if p.grad is not None}


def test_gradients_are_off_by_no_more_than_torchs_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    if native().library is None:
        pytest.skip("no compiled kernels here")
    torch.manual_seed(0)
    network = AlexNet(10, image_size=SIDE, hidden=64, init="default", dropout=0.0)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, labels = torch.randn(COUNT, 3, SIDE, SIDE), torch.arange(COUNT) % 10
    exact = gradients(copy.deepcopy(network).double(), x.double(), labels)
    ours = gradients(network, x.bfloat16(), labels)
    monkeypatch.setattr(lrn, "kernel_for", lambda _: None)
    monkeypatch.setattr(max_pool, "_suits", lambda *_: False)
    torchs = gradients(network, x.bfloat16(), labels)
    assert any(not torch.equal(ours[name], torchs[name]) for name in exact)
    for name, true in exact.items():
        off, torchs_off = ((found[name] - true).norm() / true.norm() for found in (ours, torchs))
        assert off < 1.03 * torchs_off, name
        assert torchs_off < 0.3, name
