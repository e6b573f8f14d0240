"""LongRec: a retrieval-augmented, long-context recommendation engine.

Data flows one way, and imports with it:

    events, items -> data -> encode -> index -> memory -> match -> features -> rank -> recommend -> serve
"""

__version__ = "0.1.0"
