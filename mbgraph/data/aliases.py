"""One name for each behavior and each split: publishers call the same act pv, ipv, click or view."""

from __future__ import annotations

__all__ = ["ALIASES", "SPLIT_ALIASES", "canonical_behavior", "canonical_split", "is_known"]

ALIASES: dict[str, tuple[str, ...]] = {
    "view": ("view", "click", "pv", "ipv", "page_view", "pageview", "browse", "detail"),
    "collect": ("collect", "fav", "favor", "favorite", "favourite", "tag", "wishlist"),
    "cart": ("cart", "addtocart", "add_to_cart", "add-to-cart", "basket"),
    "buy": ("buy", "purchase", "transaction", "order", "pay", "alipay"),
}
"""Canonical name of a behavior to the labels that publishers use for it."""

SPLIT_ALIASES: dict[str, tuple[str, ...]] = {"valid": ("validation", "valid", "val"), "test": ("test",)}
"""Name of a split to what publishers call its files, in every format."""

_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
_SPLITS = {alias: split for split, aliases in SPLIT_ALIASES.items() for alias in aliases}


def canonical_behavior(label: str) -> str:
    """Return the common name of a behavior: view, collect, cart or buy; any other label comes back as it is.

    Upper and lower case and spaces around the label make no difference to what is found.

    Examples
    --------
    >>> canonical_behavior("ipv"), canonical_behavior("AddToCart"), canonical_behavior("share")
    ('view', 'cart', 'share')
    """
    return _CANONICAL.get(label.strip().lower(), label)


def is_known(label: str) -> bool:
    """Return whether a label is one that publishers use for a behavior."""
    return label.strip().lower() in _CANONICAL


def canonical_split(label: str) -> str | None:
    """Return the split that a label means, ``"valid"`` or ``"test"``; None if it means neither.

    Examples
    --------
    >>> canonical_split("validation"), canonical_split("Val"), canonical_split("train")
    ('valid', 'valid', None)
    """
    return _SPLITS.get(label.strip().lower())
