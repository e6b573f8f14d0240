"""Offline rebuilds: a snapshot from whole tables of events and items, in shards, alone or beside the one before.

source, spill    tables are read once, row by row, onto disk: a file a shard
plan, work       what a shard is made of names it, so what is done is not done again
shard            the only real work: one pure function, `build_shard`
base             what the current snapshot spares
merge, gate      finished shards -> a model, judged before anybody sees it
run              who calls `build_shard`: this process, or several
rebuild          the order of it all
remote           snapshots to and from object storage
"""
