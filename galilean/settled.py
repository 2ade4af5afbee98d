"""What a process began with is left alone by the search for garbage.

Python looks through all objects there are each time a quarter more have come, and everything stops meanwhile. After its
imports a process of ours holds several hundred thousand that live as long as it does: modules, tables, forms,
statements. One look at them takes some 50 ms, which is longer than any page may take. So they are set aside once,
and only what came since is looked at.

Young objects are looked at when there are some thousands of them, not at each seven hundred: a page of thousands of
lines makes that many, and hardly one of them is garbage.
"""

from __future__ import annotations

import gc

#: New objects before the young ones are looked at; then how many such looks before the older ones are.
THRESHOLDS = 20_000, 10, 10


def settle() -> None:
    """Set aside what there is now. Call once, when a process has imported what it needs and before it serves."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
