"""What derivatives by hand share: how they are derived themselves, when a row has no direction or needs its maximum."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["COLDEST", "TINY", "derive_plainly"]

COLDEST = 0.025
"""Above this temperature ``exp(1 / temperature)``, a sum of many and their inverses are float32 numbers. As cosines are
at most 1, no row needs its maximum subtracted then."""

TINY = 1e-12
"""Rows shorter than this are divided by it instead of by their length, as in `torch.nn.functional.normalize`."""


def derive_plainly(
    plain: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor | None], gradients: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return gradients that can be derived again, by operations that autograd records.

    Parameters
    ----------
    plain : callable
        Makes of the inputs what the forward pass made of them.
    inputs : sequence of Tensor or None
    gradients : sequence of Tensor or None
        Of each output; None is zero.

    Returns
    -------
    tuple of (Tensor or None)
        For each input, None where none is asked for.
    """
    # views, as one input may be another or be made of it: the way through that is another's to derive
    given = [None if entry is None else entry.view_as(entry) for entry in inputs]
    wanted = [entry for entry in given if entry is not None and entry.requires_grad]
    chosen = [
        (output, gradient)
        for output, gradient in zip(plain(*given), gradients, strict=True)
        if gradient is not None and output.requires_grad
    ]
    if not chosen:
        return (None,) * len(given)
    outputs, sent = zip(*chosen, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, sent, create_graph=True, allow_unused=True))
    return tuple(next(found) if entry is not None and entry.requires_grad else None for entry in given)
