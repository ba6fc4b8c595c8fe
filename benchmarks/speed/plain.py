"""RMBRec (variant official) done the usual way: the yardstick of `mbgraph bench speed`.

One sparse COO matrix per behavior over users and items together, propagation through autograd on the whole graph,
dictionaries and a DOK matrix to build it, one Python call per user to sample, and top-k lists user by user to evaluate.
It is the same mathematics as ``mbgraph.models.RMBRec(variant="official")``; tests/bench/test_plain.py compares the two.

Written to be honest, not slow: batches are matrices, scores are computed in blocks, nothing is done twice. It uses
numpy, scipy and torch only.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TEMPERATURE, GAMMA, WEIGHT_DECAY, LR = 0.07, 1e-10, 1e-3, 1e-3


class PlainData:
    """A folder of pair files as dictionaries and sparse matrices.

    The folder is laid out as the published one: ``count.txt`` (JSON), a file of ``user item`` lines per behavior,
    ``validation.txt`` and ``test.txt``. Ids start at 1; row 0 is the padding node.
    """

    def __init__(self, folder: Path, behaviors: list[str], target: str) -> None:
        count = json.loads((folder / "count.txt").read_text(encoding="utf-8"))
        self.users, self.items = count["user"], count["item"]
        self.behaviors, self.target = behaviors, target
        self.lists = {name: self._lists(folder / f"{name}.txt") for name in behaviors}
        self.held_out = {name: self._lists(folder / f"{name}.txt") for name in ("validation", "test")}
        self.history: dict[int, set[int]] = {}
        for lists in self.lists.values():
            for user, items in lists.items():
                self.history.setdefault(user, set()).update(items)

    @staticmethod
    def _lists(path: Path) -> dict[int, list[int]]:
        lists: dict[int, list[int]] = {}
        with path.open(encoding="utf-8") as file:
            for line in file:
                user, item = line.split()
                lists.setdefault(int(user), []).append(int(item))
        return lists

    def adjacency(self, behavior: str) -> Tensor:
        """Return the normalised adjacency of users and items together, COO, (U + I + 2, U + I + 2)."""
        size = self.users + self.items + 2
        matrix = sp.dok_matrix((size, size), dtype=np.float32)
        for user, items in self.lists[behavior].items():
            for item in items:
                matrix[user, self.users + 1 + item] = 1.0
                matrix[self.users + 1 + item, user] = 1.0
        matrix = matrix.tocsr()
        degree = np.asarray(matrix.sum(axis=1)).ravel()
        with np.errstate(divide="ignore"):
            scale = np.where(degree > 0, degree**-0.5, 0.0).astype(np.float32)
        matrix = (sp.diags(scale) @ matrix @ sp.diags(scale)).tocoo()
        places = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
        return torch.sparse_coo_tensor(
            places, torch.from_numpy(matrix.data), matrix.shape, check_invariants=False
        ).coalesce()

    def sample(self, user: int, rng: random.Random) -> list[tuple[int, int, int]]:
        """Return one (user, positive, negative) per behavior; (0, 0, 0) where the user lacks it."""
        triples = []
        for behavior in self.behaviors:
            items = self.lists[behavior].get(user)
            if not items:
                triples.append((0, 0, 0))
                continue
            negative = rng.randint(1, self.items)
            while negative in self.history[user]:
                negative = rng.randint(1, self.items)
            triples.append((user, rng.choice(items), negative))
        return triples

    def batches(self, size: int, rng: random.Random) -> Iterator[Tensor]:
        """Yield triples of all users in random order, (B, K, 3)."""
        order = list(range(1, self.users + 1))
        rng.shuffle(order)
        for start in range(0, len(order), size):
            yield torch.tensor([self.sample(user, rng) for user in order[start : start + size]])


class PlainRMBRec(nn.Module):
    """The published mathematics."""

    def __init__(self, data: PlainData, dim: int = 64, layers: int = 3, weight_contrast: float = 1.0) -> None:
        super().__init__()
        self.data, self.layers, self.weight_contrast = data, layers, weight_contrast
        self.users = nn.Parameter(torch.randn(data.users + 1, dim) * 0.1)
        self.items = nn.Parameter(torch.randn(data.items + 1, dim) * 0.1)
        self.adjacency = {name: data.adjacency(name) for name in data.behaviors}

    def encode(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return user and item embeddings per behavior."""
        start = torch.cat([self.users, self.items])  # (U + I + 2, D)
        encoded = {}
        for name, adjacency in self.adjacency.items():
            rows, total = start, start
            for _ in range(self.layers):
                rows = F.normalize(torch.sparse.mm(adjacency, rows))
                total = total + rows
            encoded[name] = torch.split(total, [len(self.users), len(self.items)])
        return encoded

    def terms(self, batch: Tensor) -> dict[str, Tensor]:
        """Return main loss, contrast, variance of risks and norms for triples (B, K, 3)."""
        encoded = self.encode()
        place = self.data.behaviors.index(self.data.target)
        chosen, positive, negative = batch[:, place].unbind(1)  # 3 x (B,)
        fused_users = torch.stack([users for users, _ in encoded.values()]).mean(0)
        fused_items = torch.stack([items for _, items in encoded.values()]).mean(0)
        main = bpr(fused_users[chosen], fused_items[positive], fused_items[negative]).mean()
        risks, norms = [], []
        for number, (users, items) in enumerate(encoded.values()):
            triple = users[batch[:, number, 0]], items[batch[:, number, 1]], items[batch[:, number, 2]]
            risks.append(bpr(*triple).mean())
            norms.append(sum(rows.square().sum() for rows in triple) / (2 * len(batch)))
        distinct = torch.unique(chosen)
        anchor = encoded[self.data.target][0][distinct]
        contrast = sum(
            info_nce(anchor, users[distinct]) for name, (users, _) in encoded.items() if name != self.data.target
        )
        return {
            "main": main,
            "infonce": self.weight_contrast * contrast,
            "rex": torch.stack(risks).var(),
            "l2": WEIGHT_DECAY * sum(norms),
        }


def bpr(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the pairwise loss of triples, (B,)."""
    return -torch.log(GAMMA + torch.sigmoid((users * positives).sum(1) - (users * negatives).sum(1)))


def info_nce(anchor: Tensor, other: Tensor) -> Tensor:
    """Return the symmetric contrast of two views of the same users."""
    similarity = F.normalize(anchor) @ F.normalize(other).T / TEMPERATURE  # (N, N)
    own = torch.arange(len(anchor))
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


def train_steps(model: PlainRMBRec, optimizer: torch.optim.Optimizer, size: int, rng: random.Random, steps: int) -> int:
    """Train the first ``steps`` batches of an epoch and return how many there were."""
    done = 0
    for batch in model.data.batches(size, rng):
        loss = torch.stack(list(model.terms(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done += 1
        if done == steps:
            break
    return done


@torch.no_grad()
def evaluate(
    model: PlainRMBRec, split: str, block: int = 1024, k: int = 20, cuts: tuple[int, ...] = (10, 20)
) -> dict[str, float]:
    """Return HR and NDCG: items bought in train are no candidates, users one by one."""
    encoded = model.encode()
    users = torch.stack([rows for rows, _ in encoded.values()]).mean(0)
    items = torch.stack([rows for _, rows in encoded.values()]).mean(0)
    bought = model.data.lists[model.data.target]
    sums = {f"{metric}@{cut}": 0.0 for cut in cuts for metric in ("HR", "NDCG")}
    truth = model.data.held_out[split]
    order = sorted(truth)
    for start in range(0, len(order), block):
        members = order[start : start + block]
        scores = users[members] @ items.T  # (B, I + 1)
        scores[:, 0] = -math.inf
        for row, user in enumerate(members):
            scores[row, bought.get(user, [])] = -math.inf
        lists = torch.topk(scores, k).indices.tolist()
        for ranked, user in zip(lists, members, strict=True):
            relevant = set(truth[user])
            gains = [1 / math.log2(place + 2) if item in relevant else 0.0 for place, item in enumerate(ranked)]
            for cut in cuts:
                ideal = sum(1 / math.log2(place + 2) for place in range(min(cut, len(relevant))))
                sums[f"HR@{cut}"] += float(any(gains[:cut]))
                sums[f"NDCG@{cut}"] += sum(gains[:cut]) / ideal
    return {name: value / len(order) for name, value in sums.items()}


def make_optimizer(model: PlainRMBRec) -> torch.optim.Optimizer:
    """Return Adam with the published settings."""
    return torch.optim.Adam(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
