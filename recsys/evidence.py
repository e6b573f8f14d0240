"""Which of the user's own past events speak for an item, by each matcher that can tell.

Letters: L events of one user, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from recsys.match import Matcher, States, Witness


def evidence(matchers: Sequence[Matcher], states: States, row: int) -> tuple[Float32[np.ndarray, " L"], list[str]]:
    """Each event's weight for item `row`, its shares summed over the matchers, and the matcher that weighs it most.

    A matcher's weights are scaled to sum to 1, so that a matcher of large numbers does not drown the others; it takes
    part only while it found something.
    """
    names, shares = [], []
    for matcher in matchers:
        if isinstance(matcher, Witness):
            weights = np.maximum(matcher.witness(states, row), 0.0)
            if (total := float(weights.sum())) > 0:
                names.append(matcher.name)
                shares.append(weights / total)
    if not shares:
        length = states.histories.num_events
        return np.zeros(length, np.float32), [""] * length
    table = np.stack(shares)
    return table.mean(axis=0).astype(np.float32), [names[best] for best in table.argmax(axis=0)]
