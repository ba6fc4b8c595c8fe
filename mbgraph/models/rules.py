"""How the terms of a step become an update of the parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mbgraph.models.options import TrainingOptions

__all__ = ["GradientBalance", "UpdateRule"]


class UpdateRule:
    """Derives the sum of the terms and takes one step of one optimizer.

    Parameters
    ----------
    model : Module
    training : TrainingOptions
        ``optimizer``, ``lr``, ``weight_decay``, ``lr_decay`` and ``lr_decay_steps``.
    """

    def __init__(self, model: nn.Module, training: TrainingOptions) -> None:
        self.parameters = {name: entry for name, entry in model.named_parameters() if entry.requires_grad}
        values = list(self.parameters.values())
        common: dict[str, Any] = {"lr": training.lr, "weight_decay": training.weight_decay}
        if training.optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(values, **common)
        else:
            # fused: one pass over each table instead of a dozen
            kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
            self.optimizer = kind(values, fused=True, **common)
        if training.record_steps and values and all(entry.is_cuda for entry in values):
            self._set_capturable(True)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, training.lr_decay_steps, training.lr_decay)

    def step(self, terms: Mapping[str, Tensor]) -> None:
        """Take one step. Terms without a gradient are constants; where all are, nothing is updated.

        Parameters
        ----------
        terms : mapping of str to Tensor ()
            Weighted, by name.
        """
        self.update(terms)
        self.schedule.step()

    def update(self, terms: Mapping[str, Tensor]) -> None:
        """Do what `step` does on the device: all of it but the schedule of the step size."""
        learned = {name: term for name, term in terms.items() if term.requires_grad}
        if learned:
            self.optimizer.zero_grad(set_to_none=True)
            self.derive(learned)
            self.optimizer.step()

    def _set_capturable(self, value: bool) -> None:
        """Say whether Adam can be recorded, with its number of steps on the device."""
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = value

    def derive(self, terms: Mapping[str, Tensor]) -> None:
        """Write the gradient of the update to the parameters' ``grad``."""
        torch.stack(list(terms.values())).sum().backward()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state, which may be of another device."""
        capturable = any(group.get("capturable") for group in self.optimizer.param_groups)
        self.optimizer.load_state_dict(state["optimizer"])
        self._set_capturable(capturable)
        self.schedule.load_state_dict(state["schedule"])


class GradientBalance(UpdateRule):
    r"""Keep auxiliary gradients from outgrowing the main one, per parameter (MBSSL's hybrid manipulation of gradients).

    With :math:`n_m \leftarrow \beta n_m + (1 - \beta) \lVert g_m \rVert` for every term m and term 0 the main one, a
    term with :math:`n_m > n_0` loses its component along :math:`g_0` where the two point apart, and becomes :math:`r\,
    \tfrac{n_0}{n_m} g_m + (1 - r)\, g_m`; then all are added. The first parameter that the first auxiliary term does
    not reach is left as it is: its gradients are only added.

    Parameters
    ----------
    model, training
        See `UpdateRule`.
    main : str
        Name of the term that the others must not outgrow.
    beta, relax : float
        :math:`\beta` and :math:`r`.
    unbalanced : tuple of str
        Terms that are added as they are, after the balance (a norm).

    References
    ----------
    Xu et al., SIGIR 2023 (arXiv 2305.18238); published code at commit 34b7011.
    """

    def __init__(
        self,
        model: nn.Module,
        training: TrainingOptions,
        *,
        main: str,
        beta: float = 0.9,
        relax: float = 0.7,
        unbalanced: tuple[str, ...] = (),
    ) -> None:
        super().__init__(model, training)
        self.main, self.beta, self.relax, self.unbalanced = main, beta, relax, unbalanced
        self.norms: dict[str, dict[str, float]] = {}
        self.exempt: str | None = None

    def derive(self, terms: Mapping[str, Tensor]) -> None:
        """See `UpdateRule.derive`."""
        parameters = list(self.parameters.values())
        gradients = {
            name: torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            for name, term in terms.items()
        }
        self.exempt = self.exempt or self._unreached(gradients)
        for number, (name, parameter) in enumerate(self.parameters.items()):
            own = {
                term: torch.zeros_like(parameter) if found[number] is None else found[number]
                for term, found in gradients.items()
            }
            plain = [own.pop(term) for term in self.unbalanced if term in own]
            made = self.balanced(name, own)
            for gradient in plain:
                made = made + gradient
            parameter.grad = made

    def _unreached(self, gradients: Mapping[str, tuple[Tensor | None, ...]]) -> str | None:
        """Return the first parameter without a gradient of the first auxiliary term, None if that has none at all."""
        auxiliary = [found for term, found in gradients.items() if term not in (self.main, *self.unbalanced)]
        reached = [found is not None and bool(found.any()) for found in auxiliary[0]] if auxiliary else []
        if not any(reached) or all(reached):
            return None  # in a batch without rows nothing is reached, which says nothing about the parameters
        return list(self.parameters)[reached.index(False)]

    def balanced(self, parameter: str, gradients: Mapping[str, Tensor]) -> Tensor:
        """Return the balanced sum of one parameter's gradients by term, and remember their norms."""
        if self.main not in gradients:
            return torch.stack(list(gradients.values())).sum(0)
        reference = gradients[self.main]
        others = {term: gradient for term, gradient in gradients.items() if term != self.main}
        norms = self.norms.setdefault(parameter, {})
        for term, gradient in gradients.items():
            size = float(torch.linalg.vector_norm(gradient))
            norms[term] = self.beta * norms.get(term, 0.0) + (1 - self.beta) * size
        total = reference.clone()
        for term, gradient in others.items():
            changed = gradient
            if parameter != self.exempt and norms[term] > norms[self.main]:
                along = torch.sum(gradient * reference)
                if along < 0:
                    changed = gradient - along / reference.square().sum() * reference
                changed = self.relax * norms[self.main] / norms[term] * changed + (1 - self.relax) * changed
            total = total + changed
        return total

    def state_dict(self) -> dict[str, Any]:
        """See `UpdateRule.state_dict`."""
        return {**super().state_dict(), "norms": self.norms, "exempt": self.exempt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `UpdateRule.load_state_dict`."""
        super().load_state_dict(state)
        self.norms, self.exempt = copy.deepcopy(state["norms"]), state["exempt"]
