# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Mechanisms compared
#
# Two questions in small. *Far*: does a memory still know a few events of an interest, thousands of events later, and at
# what price? *Near*: how should the latest events see each other? Both come from the benchmarks
# (`python -m benchmarks.needles`, `python -m benchmarks.mixers`), with sizes that fit into a minute; figures to be
# quoted are those of the full benchmarks.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import torch

from benchmarks import mixers, needles
from benchmarks._needles_world import MATCHES, PLANTED, RIVALS, load_world
from recsys import _native
from recsys.data.demo import load_demo
from recsys.encode.history import HistoryEncoder, HistoryEncoderConfig
from recsys.encode.mixers import MIXERS
from recsys.train.encoder import Corpus, EncoderTraining, begin, next_item_loss, train

_native.limit_threads(1)
plt.rcParams.update(
    {
        "figure.figsize": (10, 3.8),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
)
pl.Config(tbl_rows=40, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True)

# %% [markdown]
# ## Needles in a life
#
# A made-up life of real films: runs of a user's own interests, a quarter of noise, and deep in it 3 to 5 films each of
# a few planted interests. Asked is another film of a planted interest against films of interests that the life never
# held, about as popular. **Recall** is the share of such pairs that a memory gets right; knowing nothing gets .50.
# `last_50` and `last_200` are no memories: they see so many events and no more.

# %%
world = load_world()
print(f"{len(world.codes):,} films, {len(world.interests)} interests")
plan = needles.Plan(
    lives={100: 12, 1_000: 8, 10_000: 2}, noises={100: (0.25,), 1_000: (0.25,), 10_000: (0.25,)}, repeats=5
)
found = needles.compare(world, plan)["mechanisms"]
depths = list(plan.lives)
print("pairs a depth:", {depth: count * PLANTED * MATCHES * RIVALS for depth, count in plan.lives.items()})
rows = [
    (
        name,
        *(round(row["recall@depth"][str(depth)], 3) for depth in depths),
        row["bytes_per_user"],
        round(row["write_us"], 1),
        *(round(row["read_ms"][str(depth)], 2) for depth in depths),
    )
    for name, row in found.items()
]
columns = ["memory", *(f"recall {depth:,}" for depth in depths), "bytes", "write us"]
pl.DataFrame(rows, schema=[*columns, *(f"read ms {depth:,}" for depth in depths)], orient="row")

# %% [markdown]
# Left: recall against depth. Right: what a user costs, against what is still known at the deepest. Best is the upper
# left; what grows with the life moves right as it does.

# %%
figure, (left, right) = plt.subplots(1, 2)
for name, row in found.items():
    style = ":" if name.startswith("last") else "-"
    left.plot(
        depths, [row["recall@depth"][str(depth)] for depth in depths], style, marker="o", markersize=3, label=name
    )
    right.scatter(row["bytes_per_user"], row["recall@depth"][str(depths[-1])], s=25)
    right.annotate(
        name,
        (row["bytes_per_user"], row["recall@depth"][str(depths[-1])]),
        xytext=(5, 3),
        textcoords="offset points",
        fontsize=8,
    )
left.axhline(0.5, color="black", linewidth=0.5)
left.set(xscale="log", xlabel="events since", ylabel="recall (chance is .50)", title="What is still known")
left.legend(frameon=False, fontsize=8)
right.set(xscale="log", xlabel="bytes a user", ylabel=f"recall at {depths[-1]:,}", title="At what price")
right.margins(x=0.15)
plt.show()

# %% [markdown]
# What time it takes: a write of one event, and a read for 100 candidates as the life grows (CPU time of one thread;
# from a few repeats on a machine that may be busy, so a rough picture).

# %%
figure, (left, right) = plt.subplots(1, 2)
kept = [name for name in found if not name.startswith("last")]
left.barh(kept, [found[name]["write_us"] for name in kept])
left.invert_yaxis()
left.set(xlabel="us an event", title="Write")
for name in kept:
    right.plot(depths, [found[name]["read_ms"][str(depth)] for depth in depths], marker="o", markersize=3, label=name)
right.set(xscale="log", yscale="log", xlabel="length of the life", ylabel="ms for 100 candidates", title="Read")
right.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## Mixers
#
# Near events go through an encoder whose layers let them see each other: all before them (attention), the last few
# (sliding), by segments, through a gated cell, or by sessions. No far memory here: the mixer alone. First the price:
# forward and backward, by length of the window, on the same number of events.

# %%
costs = mixers.compare(mixers.Plan(lengths=(32, 128, 512), events=1_024, rounds=1, width=32))
for name, cost in costs.items():
    lengths = [int(length) for length in cost.us_per_event]
    plt.plot(lengths, list(cost.us_per_event.values()), marker="o", markersize=3, label=name)
plt.gca().set(xscale="log", yscale="log", xlabel="events of a window", ylabel="us an event", title="Cost of one layer")
plt.xticks(lengths, lengths)
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# Then what they learn: one narrow layer each, trained a few epochs on some of the demo's users, and judged after each
# epoch on users it does not know. The curve is the loss on those. So few users and epochs tell a broken mixer from a
# working one; they do not say which is best.

# %%
dataset = load_demo()
histories = dataset.histories
WINDOW, EPOCHS, NUM_USERS, NUM_HELD = 48, 5, 320, 60
shuffled = np.random.default_rng(0).permutation(len(histories))
learning = histories.take(shuffled[:NUM_USERS])
unknown = histories.take(shuffled[NUM_USERS : NUM_USERS + NUM_HELD])
settings = EncoderTraining(
    epochs=EPOCHS, tokens=1_024, negatives=128, warmup_steps=20, probe_every=1, learning_rate=4e-3
)
shape = HistoryEncoderConfig(num_items=len(dataset.catalogue), window=WINDOW, width=32, blocks=1, dropout=0.0)
no_texts = torch.zeros(len(dataset.catalogue), 0)
corpus = Corpus.of(learning, window=WINDOW, num_items=shape.num_items)
whole = replace(settings, tokens=NUM_HELD * WINDOW, latest=1.0)
[asked] = Corpus.of(unknown, window=WINDOW, num_items=shape.num_items).batches(whole, np.random.default_rng(1))
known = torch.from_numpy(np.unique(learning.items)).long()


@torch.no_grad()
def quality(encoder: HistoryEncoder) -> float:
    """Minus the loss on unknown users, against the same negatives every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return -float(next_item_loss(encoder, asked, no_texts, known, whole))


curves = {}
for name in MIXERS:
    torch.manual_seed(0)
    encoder = HistoryEncoder(replace(shape, mixer=name))
    before = -quality(encoder.eval())
    state = begin(encoder, settings)
    train(state, corpus, no_texts, settings, probe=quality)
    curves[name] = [before, *(-row["probe"] for row in state.curve)]
    print(f"{name:10s} loss on unknown users {before:.3f} -> {min(curves[name]):.3f}")

# %%
for name, losses in curves.items():
    plt.plot(np.arange(len(losses)), losses, marker="o", markersize=3, label=name)
plt.axhline(np.log(settings.negatives + 1), color="black", linewidth=0.5, linestyle=":")
plt.gca().set(xlabel="epochs", ylabel="loss on unknown users", title="What a mixer learns (dotted: guessing)")
plt.xticks(np.arange(EPOCHS + 1))
plt.legend(frameon=False)
plt.show()
