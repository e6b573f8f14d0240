"""The steps by which a database comes to have today's tables, in order; each runs once, on both dialects."""
