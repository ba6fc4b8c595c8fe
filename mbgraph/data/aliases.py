"""One name for each behavior: publishers call the same act pv, ipv, click or view."""

from __future__ import annotations

__all__ = ["ALIASES", "canonical_behavior"]

ALIASES: dict[str, tuple[str, ...]] = {
    "view": ("view", "click", "pv", "ipv", "page_view", "pageview", "browse", "detail"),
    "collect": ("collect", "fav", "favor", "favorite", "favourite", "tag", "wishlist"),
    "cart": ("cart", "addtocart", "add_to_cart", "add-to-cart", "basket"),
    "buy": ("buy", "purchase", "transaction", "order", "pay", "alipay"),
}
"""Canonical name of a behavior to the labels that publishers use for it."""

_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}


def canonical_behavior(label: str) -> str:
    """Return the common name of a behavior: view, collect, cart or buy; any other label comes back as it is.

    Upper and lower case and spaces around the label make no difference to what is found.

    Examples
    --------
    >>> canonical_behavior("ipv"), canonical_behavior("AddToCart"), canonical_behavior("share")
    ('view', 'cart', 'share')
    """
    return _CANONICAL.get(label.strip().lower(), label)
