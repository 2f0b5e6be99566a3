"""Whether anything looks at what a module does, so that it cannot be left out."""

from __future__ import annotations

from torch import nn

_KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def watched(*modules: nn.Module) -> bool:
    """Whether something is called before or after a module's own work, which must then be done."""
    if nn.modules.module._has_any_global_hook():
        return True
    return any(getattr(module, kind) for module in modules for kind in _KINDS)
