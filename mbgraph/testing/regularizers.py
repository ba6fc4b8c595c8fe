"""What every regularizer must do, on a small step that lays everything open."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mbgraph.errors import UsageError
from mbgraph.regularizers import REGULARIZERS, Regularizer, StepOutputs, make_regularizer

__all__ = ["RegularizerCases", "regularizer_cases", "toy_leaves", "toy_step"]

_USERS, _ITEMS, _ROWS, _WIDTH = 6, 5, 4, 4
_BEHAVIORS = ("view", "cart", "buy")
_STEP = 1e-5  # of finite differences, in float64


def toy_leaves(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return what a toy model learns: user table (6, 4), item table (5, 4), a gate (4,)."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"users": (_USERS, _WIDTH), "items": (_ITEMS, _WIDTH), "gate": (_WIDTH,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def toy_step(leaves: Mapping[str, Tensor], is_empty: bool = False, **changes: Any) -> StepOutputs:
    """Return a step that gives every entry, made of `toy_leaves` by products with fixed matrices, one per behavior.

    Parameters
    ----------
    leaves : mapping of str to Tensor
    is_empty : bool
        A batch without triples and nodes: what is left is what does not come from a batch.
    **changes
        Entries of `StepOutputs` to give instead.
    """
    return StepOutputs("buy", **{**_entries(leaves, is_empty), **changes})


def _entries(leaves: Mapping[str, Tensor], is_empty: bool = False) -> dict[str, Any]:
    users, items, gate = leaves["users"], leaves["items"], leaves["gate"]
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(users)

    mix = {name: drawn(_WIDTH, _WIDTH) for name in (*_BEHAVIORS, "one", "two")}
    count = 0 if is_empty else _ROWS
    rows = (
        torch.arange(_ROWS)[:count],
        torch.tensor([0, 1, 2, 3])[:count],
        torch.tensor([[4, 1], [4, 0], [0, 3], [1, 4]])[:count],
    )
    whole = {
        side: {name: gate * (table @ mix[name]) for name in _BEHAVIORS}
        for side, table in (("user", users), ("item", items))
    }
    triples = {
        name: (whole["user"][name][rows[0]], whole["item"][name][rows[1]], whole["item"][name][rows[2]])
        for name in _BEHAVIORS
    }
    margins = {name: (u.unsqueeze(1) * (p.unsqueeze(1) - n)).sum(2) for name, (u, p, n) in triples.items()}  # (B, 2)
    present = {} if is_empty else margins
    anchors = {side: {name: table[:0] if is_empty else table for name, table in own.items()}
               for side, own in whole.items()}  # fmt: skip
    views = {side: tuple((table @ mix[name])[: 0 if is_empty else len(table)] for name in ("one", "two"))
             for side, table in (("user", users), ("item", items))}  # fmt: skip
    similar = {
        "user": torch.tensor([[1, 5], [-1, -1], [0, -1], [-1, -1], [-1, -1], [3, -1]]),
        "item": torch.tensor([[-1, -1], [4, -1], [-1, -1], [0, 2], [-1, -1]]),
    }
    return {
        "losses": {"main": torch.nn.functional.softplus(-margins["buy"]).sum()},
        "risks": {name: torch.nn.functional.softplus(-margin).mean() for name, margin in present.items()},
        "margins": present,
        "row_weights": {"view": torch.tensor([1.0, 0.25, 0.0, 2.0]).to(users)[:count]},
        "anchors": anchors,
        "anchor_weights": {
            "user": {"view": torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0, 1.0]).to(users)[: len(anchors["user"]["view"])]}
        },
        "alignment": {side: _toy_alignment(own) for side, own in anchors.items()},
        "alignment_levels": {"view": 0.5, "cart": 0.1, "buy": 1.0},
        "views": views,
        "nodes": whole,
        "similar": {side: lists[: len(anchors[side]["buy"])] for side, lists in similar.items()},
        "triples": triples,
        "ego": {"buy": (users[rows[0]], items[rows[1]], items[rows[2]])},
        "tables": (users, items),
        "parameters": {"gate": gate},
    }


def _toy_alignment(anchors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of a side's anchors by behavior, of the target all 1: (N,) each."""
    weights = torch.tensor([0.5, 0.25, 0.0, 1.0, 0.75, 0.5])
    return {
        name: (torch.ones(len(own)) if name == "buy" else weights[: len(own)]).to(own) for name, own in anchors.items()
    }


class RegularizerCases:
    """Inherit, and set ``regularizer`` to a class or a registered name, ``variants`` to the options worth trying.

    Every case runs for every variant.
    """

    regularizer: ClassVar[type[Regularizer] | str]
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    @property
    def kind(self) -> type[Regularizer]:
        """The regularizer's class."""
        return REGULARIZERS.get(self.regularizer) if isinstance(self.regularizer, str) else self.regularizer

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Give every case that asks for a ``term`` each variant in turn."""
        if "term" in metafunc.fixturenames:
            made = [self.kind(**options) for options in self.variants]
            metafunc.parametrize(
                "term", made, ids=[" ".join(map(str, term.__repr_args__())) or "default" for term in made]
            )

    def gradients(self, term: Regularizer, leaves: Mapping[str, Tensor], **options: Any) -> dict[str, Tensor]:
        """Return the gradient by every leaf, zeros where it reaches none."""
        value = term(toy_step(leaves, **options))
        found = torch.autograd.grad(value, list(leaves.values()), create_graph=True, allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }

    def test_gives_a_finite_scalar_that_moves_the_model(self, term: Regularizer) -> None:
        """A 0-dimensional tensor with a gradient that is finite and not zero."""
        leaves = toy_leaves()
        value = term(toy_step(leaves))
        assert value.shape == ()
        assert torch.isfinite(value)
        gradients = self.gradients(term, leaves)
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())
        assert any(bool(gradient.abs().max() > 0) for gradient in gradients.values())

    def test_gradients_equal_finite_differences(self, term: Regularizer) -> None:
        """By single entries of every leaf."""
        gradients = self.gradients(term, toy_leaves())
        for name, gradient in gradients.items():
            for place in (0, gradient.numel() // 2, gradient.numel() - 1):
                values = [float(term(toy_step(_moved(name, place, sign * _STEP))).detach()) for sign in (1, -1)]
                slope = (values[0] - values[1]) / (2 * _STEP)
                assert float(gradient.flatten()[place].detach()) == pytest.approx(slope, rel=1e-5, abs=1e-7), name

    def test_can_be_derived_twice(self, term: Regularizer) -> None:
        """The derivative of a gradient equals finite differences of gradients."""
        leaves = toy_leaves()
        gradients = self.gradients(term, leaves)
        generator = torch.Generator().manual_seed(2)
        probes = {name: torch.randn(leaf.shape, generator=generator).to(leaf) for name, leaf in leaves.items()}

        def along(found: Mapping[str, Tensor]) -> Tensor:
            return torch.stack([(found[name] * probe).sum() for name, probe in probes.items()]).sum()

        wanted = along(gradients)
        made: tuple[Tensor | None, ...] = (None,) * len(leaves)
        if wanted.requires_grad:
            made = torch.autograd.grad(wanted, list(leaves.values()), allow_unused=True)
        for (name, leaf), second in zip(leaves.items(), made, strict=True):
            for place in (0, leaf.numel() - 1):
                values = [
                    float(along(self.gradients(term, _moved(name, place, sign * _STEP))).detach()) for sign in (1, -1)
                ]
                slope = (values[0] - values[1]) / (2 * _STEP)
                found = 0.0 if second is None else float(second.flatten()[place])
                assert found == pytest.approx(slope, rel=1e-4, abs=1e-6), name

    def test_holds_no_state(self, term: Regularizer) -> None:
        """No module, nothing remembered: the same step gives the same number, and the options stay."""
        assert not isinstance(term, torch.nn.Module)
        before = term.replace()
        first, second = (float(term(toy_step(toy_leaves())).detach()) for _ in range(2))
        assert first == second
        assert term == before == pickle.loads(pickle.dumps(term))

    def test_options_rebuild_it(self, term: Regularizer) -> None:
        """From plain values, as a configuration file holds them, and from text, as a command line does."""
        plain = term.plain()
        assert type(term)(**plain) == term
        assert type(term).from_text({name: _as_text(value) for name, value in plain.items()}) == term
        if term.name in REGULARIZERS:
            assert make_regularizer({"name": term.name, **plain}) == term
        assert all(fact.doc for fact in type(term).facts()), "an option without a docstring"

    def test_weight_warmup_and_schedule(self, term: Regularizer) -> None:
        """They multiply; a negative weight is refused."""
        warmed = term.replace(weight=0.5, warmup=4)
        assert [warmed.factor(epoch) for epoch in (1, 2, 4, 9)] == [0.125, 0.25, 0.5, 0.5]
        falling = warmed.replace(schedule=lambda epoch: 1 / epoch)
        assert [falling.factor(epoch) for epoch in (1, 2, 5)] == [0.125, 0.125, 0.1]
        assert term.replace(weight=3.0).factor(1) == 3.0
        with pytest.raises(UsageError, match=r"weight of regularizer .* must be a number from 0 to"):
            term.replace(weight=-1.0)

    def test_the_term_goes_by_its_label(self, term: Regularizer) -> None:
        """Two of one kind can be told apart."""
        assert term.replace(label="").term == term.name
        assert term.replace(label="mine").term == "mine"

    def test_an_empty_batch_contributes_nothing(self, term: Regularizer) -> None:
        """A term of a batch's rows is zero, one of tables or parameters is what it always is; neither is NaN."""
        leaves = toy_leaves()
        value, usual = term(toy_step(leaves, is_empty=True)), term(toy_step(leaves))
        assert value.shape == ()
        assert float(value.detach()) in (0.0, float(usual.detach()))
        if value.requires_grad:
            gradients = self.gradients(term, leaves, is_empty=True)
            assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())

    def test_what_a_model_does_not_give_is_an_error(self, term: Regularizer) -> None:
        """It names the regularizer and how to leave it out."""
        with pytest.raises(UsageError, match=rf"{term.name} needs '\w+', which this model does not give; .*:weight=0"):
            term(StepOutputs("buy", losses={"main": torch.zeros(())}))

    def test_entries_may_be_functions(self, term: Regularizer) -> None:
        """Each is called when it is first read, once."""
        leaves = toy_leaves()
        entries, calls = _entries(leaves), dict[str, int]()

        def counted(name: str) -> Any:
            def make() -> Any:
                calls[name] = calls.get(name, 0) + 1
                return entries[name]

            return make

        lazy = StepOutputs("buy", **{name: counted(name) for name in entries if name != "losses"})
        for _ in range(2):
            assert float(term(lazy).detach()) == float(term(toy_step(leaves)).detach())
        assert calls
        assert set(calls.values()) == {1}

    def test_float32_says_the_same(self, term: Regularizer) -> None:
        """The usual type of a model's numbers."""
        exact = float(term(toy_step(toy_leaves())).detach())
        assert float(term(toy_step(toy_leaves(torch.float32))).detach()) == pytest.approx(exact, rel=1e-4, abs=1e-6)


def _moved(name: str, place: int, step: float) -> dict[str, Tensor]:
    """Return the leaves with one number of one of them moved."""
    leaves = toy_leaves()
    with torch.no_grad():
        leaves[name].view(-1)[place] += step
    return leaves


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_VARIANTS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "infonce": (
        {},
        {"negatives": "intra", "include_positive": False, "direction": "other"},
        {"direction": "anchor", "reduction": "sum", "reduce_behaviors": "mean", "temperature": 0.5},
        {"supported_only": True},
        {"weighted": True, "supported_only": True},
        {"side": "item", "temperatures": [0.2, 0.5]},
        {"between": "views", "temperature": 0.2, "direction": "anchor"},
        {"between": "views", "side": "item"},
        {"candidates": "all", "temperature": 0.5, "block": 2},
        {"candidates": "all", "side": "item", "zero_similar": True, "reduction": "sum", "label": "items"},
        {"candidates": "all", "supported_only": True, "weighted": True},
        {"adaptive": True},
        {"adaptive": True, "supported_only": True, "reduction": "sum"},
        {"adaptive": True, "candidates": "all", "block": 2},
    ),
    "irmv1": ({}, {"scale_on": "loss"}, {"adaptive": True}),
    "irmv2": ({}, {"of": "parameters"}, {"adaptive": True}),
    "rex": ({}, {"unbiased": False}, {"adaptive": True}),
    "l2": (
        {},
        {"power": 1, "negatives": False},
        {"on": "ego"},
        {"on": "ego", "power": 1},
        {"on": "tables"},
        {"on": "tables", "power": 1, "divide_by": "items"},
        {"on": "tables", "divide_by": "rows"},
        {"on": "parameters"},
        {"on": "parameters", "power": 1},
        {"on": "parameters", "divide_by": "batch"},
    ),
}
"""Options of the project's own regularizers that are worth a round of cases each."""


def regularizer_cases() -> dict[str, type[RegularizerCases]]:
    """Return a test class for every registered regularizer: ``globals().update(regularizer_cases())``."""

    def entries() -> Iterator[tuple[str, type[RegularizerCases]]]:
        for name in REGULARIZERS:
            facts = {"regularizer": name, "variants": _VARIANTS.get(name, ({},)), "__doc__": f"Conformance of {name}."}
            yield f"TestRegularizer{name.capitalize()}", type(f"TestRegularizer{name}", (RegularizerCases,), facts)

    return dict(entries())
