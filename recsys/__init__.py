"""LongRec: a retrieval-augmented, long-context recommendation engine.

The listing of this package reads as data flows:

    events, items -> data -> encode -> memory -> index -> match -> features -> rank -> recommend -> serve
"""

__version__ = "0.1.0"
