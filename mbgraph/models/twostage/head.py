r"""A small network that ranks the seen list, in place of the weights alone.

Its inputs are a pair's evidence, the same standardised within the user's list, and what the user is like. It is fitted
by the listwise softmax over the user's seen list, in folds: each network scores only users whose labels it has not
seen, for it could remember them. It has more to learn than the weights, and may be given more labels than they are:
other train purchases, each list measured without its own. How likely any seen item is stays with the weights:
:math:`s' = s_{net} - \mathrm{LSE}(s_{net}) + \mathrm{LSE}(s)` over the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mbgraph.models.twostage.folds import FOLDS, fold_of
from mbgraph.random import stream
from mbgraph.typing import FloatArray, IntArray

__all__ = ["Head", "SeenLists", "inputs", "rescaled", "score", "train"]

_HIDDEN, _DROPOUT = 32, 0.1
_EPOCHS, _RATE, _DECAY = 8, 3e-3, 1e-2
_LISTS, _STEPS = 512, 16  # lists per step at most, steps per epoch at least
_ROWS = 2**18  # scored at a time


Prepare = Callable[[IntArray, FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class SeenLists:
    """Seen lists of users and the labels on them.

    Attributes
    ----------
    users : int64 array (P,)
        The user of each pair, ascending.
    rows : float32 array (P, F)
        Evidence, standardised.
    level : float array (P, G)
        What the pair's user is like.
    chosen : float array (P,)
        How many labels each pair is.
    """

    users: IntArray
    rows: FloatArray
    level: FloatArray
    chosen: FloatArray

    def bounds(self) -> IntArray:
        """Return where the list of each user with one begins, and the end: (L + 1,)."""
        first = np.flatnonzero(np.r_[True, self.users[1:] != self.users[:-1]]) if len(self.users) else self.users
        return np.append(first, len(self.users))


class Head(nn.Module):
    """The networks of all folds, and what standardises their users.

    Parameters
    ----------
    width : int
        Columns of evidence of the seen list.
    user_width : int
        Columns of what a user is like.
    num_users : int
    seed : int
        Of the folds and of all that is drawn.
    """

    def __init__(self, width: int, user_width: int, num_users: int, seed: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * width + user_width, _HIDDEN), nn.SiLU(), nn.Dropout(_DROPOUT), nn.Linear(_HIDDEN, 1)
            )
            for _ in range(FOLDS)
        )
        for name in ("mean", "spread"):
            self.register_buffer(name, torch.ones(user_width, dtype=torch.float64))
        self.seed, self.fold = seed, fold_of(num_users, seed)

    def _inputs(self, users: IntArray, rows: FloatArray, user: FloatArray) -> FloatArray:
        mean, spread = (self.get_buffer(name).numpy(force=True) for name in ("mean", "spread"))
        return inputs(rows, users, (user - mean) / spread)

    def learn(self, lists: SeenLists, *more: SeenLists) -> None:
        """Fit the networks to the labels on some lists; ``more`` are lists of other labels, standardised by themselves.

        What a user is like is standardised by the first.
        """
        level = lists.level
        spread = level.std(0) if len(level) else np.zeros(level.shape[1])
        self.get_buffer("mean").copy_(torch.from_numpy(level.mean(0) if len(level) else spread))
        self.get_buffer("spread").copy_(torch.from_numpy(np.where(spread > 0, spread, np.inf)))
        train(self.networks, [lists, *more], self._inputs, self.fold, self.seed)

    def rerank(self, users: IntArray, rows: FloatArray, user: FloatArray, weighted: FloatArray) -> FloatArray:
        """Return the networks' scores of seen lists, scaled to the weighted ones: see `learn`, (P,) -> (P,)."""
        return rescaled(score(self.networks, self._inputs(users, rows, user), self.fold[users]), weighted, users)


def inputs(rows: FloatArray, owner: IntArray, user: FloatArray) -> FloatArray:
    """Return what the networks see of seen lists.

    Parameters
    ----------
    rows : float32 array (P, F)
        Standardised evidence.
    owner : int64 array (P,)
        The user of each pair, ascending.
    user : float array (P, G)
        What the pair's user is like, standardised.

    Returns
    -------
    float32 array (P, 2 F + G)
        A column that is the same over the whole list stands at 0 within it.
    """
    _, where, counts = np.unique(owner, return_inverse=True, return_counts=True)
    if not len(rows):
        return np.zeros((0, 2 * rows.shape[1] + user.shape[1]), np.float32)
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    mean = np.add.reduceat(rows, starts, axis=0, dtype=np.float64) / counts[:, None]
    away = rows - mean[where]
    spread = np.sqrt(np.add.reduceat(away**2, starts, axis=0) / counts[:, None])
    within = np.where(spread[where] > 1e-4, away / np.maximum(spread[where], 1e-4), 0.0)
    return np.concatenate([rows, within, user], 1).astype(np.float32)


def train(nets: nn.ModuleList, sets: Sequence[SeenLists], prepare: Prepare, fold: IntArray, seed: int) -> None:
    """Fit each network on the lists of the users of other folds, in place.

    Parameters
    ----------
    nets : ModuleList
        One per fold.
    sets : sequence of SeenLists
        Lists without a label are left out.
    prepare : callable
        From users, evidence and what the users are like to what the networks see: (p,), (p, F), (p, G) -> (p, N). It is
        asked a step at a time, as memory for all would be several times that of the evidence.
    fold : int64 array (U,)
    seed : int
    """
    bounds = [lists.bounds() for lists in sets]
    found = []
    for number, (lists, own) in enumerate(zip(sets, bounds, strict=True)):
        labels = np.add.reduceat(lists.chosen, own[:-1]) if len(own) > 1 else np.empty(0)
        known = np.flatnonzero(labels > 0)
        found.append(np.stack([np.full(len(known), number), known, fold[lists.users[own[known]]]], 1))
    every = np.concatenate(found)  # set, list, fold
    for number, net in enumerate(nets):
        picked = every[every[:, 2] != number, :2]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(seed, "head", number).integers(2**63)))
            for layer in net.modules():
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
            if len(picked):
                _train(net, sets, bounds, prepare, picked)
        net.eval()


def _train(
    net: nn.Module, sets: Sequence[SeenLists], bounds: Sequence[IntArray], prepare: Prepare, picked: IntArray
) -> None:
    size = max(1, min(_LISTS, len(picked) // _STEPS))
    steps = -(-len(picked) // size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_EPOCHS * steps)
    net.train()
    device = next(net.parameters()).device
    for _ in range(_EPOCHS):
        order = picked[torch.randperm(len(picked)).numpy()]
        for start in range(0, len(order), size):
            seen, owner, labels, count = _step(sets, bounds, prepare, order[start : start + size])
            scores = net(torch.from_numpy(seen).to(device))[:, 0].cpu()  # (P,)
            where, times = torch.from_numpy(owner), torch.from_numpy(labels).float()
            logs = scores - _log_sum(scores, where, count)[where]
            optimizer.zero_grad(set_to_none=True)
            (-(times * logs).sum() / times.sum()).backward()
            optimizer.step()
            schedule.step()


def _step(
    sets: Sequence[SeenLists], bounds: Sequence[IntArray], prepare: Prepare, batch: IntArray
) -> tuple[FloatArray, IntArray, FloatArray, int]:
    """Return what the network sees of the lists of a step, each pair's list and labels, and the number of lists."""
    seen, owner, labels = [], [], []
    count = 0
    for number, lists in enumerate(sets):
        own = batch[batch[:, 0] == number, 1]
        if not len(own):
            continue
        first, last = bounds[number][own], bounds[number][own + 1]
        places = np.concatenate([np.arange(*ends) for ends in zip(first, last, strict=True)])
        where = np.repeat(np.arange(len(own)), last - first)
        seen.append(prepare(where, lists.rows[places], lists.level[places]))
        owner.append(where + count)
        labels.append(lists.chosen[places])
        count += len(own)
    return np.concatenate(seen), np.concatenate(owner), np.concatenate(labels), count


def _log_sum(scores: Tensor, where: Tensor, count: int) -> Tensor:
    """Return the logarithm of the sum of exponentials by list: (P,), (P,) -> (count,)."""
    highest = scores.detach().new_full((count,), -torch.inf).scatter_reduce(0, where, scores.detach(), "amax")
    sums = scores.new_zeros(count).index_add(0, where, (scores - highest[where]).exp())
    return highest + sums.log()


@torch.no_grad()
def score(nets: nn.ModuleList, rows: FloatArray, fold: IntArray) -> FloatArray:
    """Return the scores of pairs by the network of their user's fold: (P, N), (P,) -> float64 (P,)."""
    found = np.zeros(len(rows))
    for number, net in enumerate(nets):
        places, device = np.flatnonzero(fold == number), next(net.parameters()).device
        for start in range(0, len(places), _ROWS):
            part = places[start : start + _ROWS]
            found[part] = net(torch.from_numpy(rows[part]).to(device))[:, 0].double().numpy(force=True)
    return found


def rescaled(scores: FloatArray, weighted: FloatArray, owner: IntArray) -> FloatArray:
    """Return a network's scores, each list with the weight that the weighted scores give it: three (P,) -> (P,).

    ``owner`` ascends.
    """
    if not len(scores):
        return scores
    where = np.unique(owner, return_inverse=True)[1]
    count = int(where[-1]) + 1
    sums = [_log_sum(torch.from_numpy(values), torch.from_numpy(where), count).numpy() for values in (scores, weighted)]
    return scores + (sums[1] - sums[0])[where]
