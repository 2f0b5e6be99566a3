"""What every network here can do: the model-zoo contract that people know from timm.

A network is a list of named steps, each the modules of one row of the paper's table; a head; and a
classifier, the head's last layer.
"""

from __future__ import annotations

import abc
import copy
import inspect
import itertools
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.layers import check_at_least
from alexnet.models.hub import HubMixin

Step = tuple[str, tuple[nn.Module, ...]]
NetworkT = TypeVar("NetworkT", bound=nn.Module)


class Network(nn.Module, HubMixin, abc.ABC):
    """Base of the networks: how features, head and classifier are reached.

    A subclass says its rows in :meth:`steps` (feature extractor) and :meth:`head_steps` (all that
    follows, without the classifier) and names its classifier's attribute.

    Attributes:
        num_classes: outputs of the classifier.
        num_features: channels of what :meth:`forward_features` returns.
        head_hidden_size: length of the vector that the classifier reads.
        image_size: side of the input in pixels.
        in_chans: channels of the input.
        model_name: the name it is built by (see :func:`alexnet.models.create_model`).
        pretrained_cfg: what is known of the weights and their input, under timm's keys.
    """

    num_classes: int
    num_features: int
    head_hidden_size: int
    image_size: int
    in_chans: int
    classifier_name: str
    model_name: str
    pretrained_cfg: dict[str, Any]

    def __new__(cls, *arguments: Any, **keywords: Any) -> Self:
        """Keep the arguments, from which a saved network is built again."""
        network = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(network, *arguments, **keywords)
        bound.apply_defaults()
        _, *named = bound.arguments.items()
        network.__dict__.update(_arguments=dict(named), pretrained_cfg={})
        return network

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Every argument of the constructor, such that a fresh network has the same layers."""
        return {**self.__dict__["_arguments"], "num_classes": self.num_classes}

    @abc.abstractmethod
    def steps(self) -> list[Step]:
        """The rows of the feature extractor: feature name, modules."""

    @abc.abstractmethod
    def head_steps(self) -> list[Step]:
        """The rows of the head, from the flattened features to the classifier's input."""

    @abc.abstractmethod
    def new_classifier(self, num_classes: int) -> nn.Module:
        """A fresh classifier for ``num_classes``, initialized as the paper says."""

    @property
    def feature_names(self) -> list[str]:
        """The features that :meth:`forward_intermediates` can return, input to output."""
        return [name for name, _ in (*self.steps(), *self.head_steps())]

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """For each step of the extractor its name, channels and reduction of the input's side."""
        size = self.image_size
        x = torch.empty(1, self.in_chans, size, size, device="meta")
        info = []
        with torch.no_grad():
            for name, modules in on_meta(self).steps():
                x = _apply(modules, x)
                info.append(
                    {"module": name, "num_chs": x.shape[1], "reduction": round(size / x.shape[-1])}
                )
        return info

    def forward_features(self, x: Tensor) -> Tensor:
        """``[N, in_chans, image_size, image_size]`` to the last map ``[N, num_features, h, w]``."""
        for _, modules in self.steps():
            x = _apply(modules, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map to logits ``[N, num_classes]``, or to the classifier's input.

        Args:
            x: what :meth:`forward_features` returned.
            pre_logits: stop before the classifier and return ``[N, head_hidden_size]``.
        """
        x = x.flatten(1)
        for _, modules in self.head_steps():
            x = _apply(modules, x)
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_chans, image_size, image_size]`` to logits ``[N, num_classes]``."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | str | Sequence[int | str] | None = None,
        *,
        stop_early: bool = False,
        intermediates_only: bool = False,
    ) -> Any:
        """The last map and, by name or number, the features on the way to it and in the head.

        Args:
            x: ``[N, in_chans, image_size, image_size]``.
            indices: names (``"conv5"``) or numbers into ``feature_names``; an int n is the last n
                of the extractor; None is all of the extractor.
            stop_early: compute nothing after the last feature asked for.
            intermediates_only: return only the list.

        Returns:
            ``(last, [feature, ...])``, the features in the network's order.

        Raises:
            ValueError: a name or a number that the network does not have.
        """
        extractor = len(self.steps())
        wanted = self._resolve_indices(indices, extractor)
        found: list[Tensor] = []
        last = x
        for number, (_, modules) in enumerate((*self.steps(), *self.head_steps())):
            in_head = number >= extractor
            if (in_head or stop_early) and number > max(wanted, default=-1):
                break
            if number == extractor:
                x = x.flatten(1)
            x = _apply(modules, x)
            if not in_head:
                last = x
            if number in wanted:
                found.append(x)
        return found if intermediates_only else (last, found)

    def _resolve_indices(
        self, indices: int | str | Sequence[int | str] | None, extractor: int
    ) -> set[int]:
        if isinstance(indices, str):
            indices = [indices]
        if indices is None:
            return set(range(extractor))
        if isinstance(indices, int):
            return set(range(max(0, extractor - indices), extractor))
        names = self.feature_names
        wanted = set()
        for index in indices:
            if isinstance(index, str):
                if index not in names:
                    raise ValueError(f"no feature {index!r}: choose from {', '.join(names)}")
                wanted.add(names.index(index))
            elif not -len(names) <= index < len(names):
                raise ValueError(f"no feature number {index}: there are {len(names)}")
            else:
                wanted.add(index % len(names))
        return wanted

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return getattr(self, self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a fresh one for ``num_classes``.

        Args:
            num_classes: outputs; 0 takes the classifier away, so that the network returns what
                its classifier would read.
            global_pool: accepted for timm's sake; these networks have no global pooling.

        Raises:
            ValueError: a negative number, or a pooling asked for.
        """
        check_at_least(0, num_classes=num_classes)
        if global_pool:
            raise ValueError(f"global_pool={global_pool!r}: these networks flatten their last map")
        fresh = self.new_classifier(num_classes) if num_classes else nn.Identity()
        neighbor = next(itertools.chain(self.parameters(), self.buffers()))
        fresh = fresh.to(neighbor.device, neighbor.dtype).train(self.training)
        setattr(self, self.classifier_name, fresh)
        self.num_classes = num_classes

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The network's training criterion, averaged over the batch (cross-entropy).

        Args:
            logits: ``[N, num_classes]``.
            targets: class numbers ``[N]`` or probabilities ``[N, num_classes]``.
            label_smoothing: share of the target spread evenly over the classes.
        """
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def _apply(modules: tuple[nn.Module, ...], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x


def on_meta(network: NetworkT) -> NetworkT:
    """A copy of ``network`` that has shapes and no numbers, in evaluation mode."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(network, memo).eval()
