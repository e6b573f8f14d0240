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
# # 2. What a memory holds
#
# A far memory is written event by event and asked by content: *is there anything in this life that is like this?* All
# five kinds speak one protocol (`recsys.memory.far`); what differs is what they keep. This notebook writes one real,
# long life into each of them, looks inside one, compares what they bring back, and then asks the memory of everybody
# else: *who was ever where this user is now, and what came next?*

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from recsys.config import vector_cache_folder
from recsys.data.demo import load_demo
from recsys.encode.codes import ItemCodes
from recsys.encode.text import TextEncoder
from recsys.evaluate.build import encode_items
from recsys.flow import states_of
from recsys.match import Corpus
from recsys.match.neighbours import Neighbours
from recsys.memory.bank import Bank
from recsys.memory.far import span_of
from recsys.memory.holographic import Holographic
from recsys.memory.keys import recency_matrix
from recsys.memory.life import Life
from recsys.memory.places import Places
from recsys.memory.slots import Slots, SlotsConfig
from recsys.train.stages import DAY_S

plt.rcParams.update(
    {
        "figure.figsize": (10, 3.6),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
)
pl.Config(tbl_rows=40, fmt_str_lengths=60, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True)

# %% [markdown]
# ## Codes
#
# Memories are written in item codes: the texts' main directions, few dimensions, unit length. An item of tomorrow has
# its code from its words alone.

# %%
dataset = load_demo()
histories, films = dataset.histories, dataset.catalogue.items
encoder = TextEncoder.load(cache=vector_cache_folder())
items = encode_items(dataset, encoder)
directions = ItemCodes.fit(items.base, 32)
codes = directions.of(items.base)

num_days = [len(np.unique(histories.times[histories.slice(user)] // DAY_S)) for user in range(len(histories))]
user = int(np.argmax(num_days))
life, me = histories.of(user), np.array([0])
print(f"user {dataset.users.ids[user]}: {life.num_events:,} films on {num_days[user]} days; codes {codes.shape}")

# %% [markdown]
# ## Inside a memory: slots
#
# A slot is a prototype: an event that is close to one makes it stronger, an event that is like none takes a free one,
# and where none is free the two closest slots become one. By default there are more slots than this life needs; here
# are 24, so that they must share. What is kept of a user is a few arrays, and `save` writes them, so a memory can be
# watched while it is written.
#
# Above: the films by genre, in the order they came. Below: a row for each slot, named by the user's films that lie
# nearest to it at the end; the colour is how many events stand behind it at that time, a dot says that it was touched.
# Where a row falls dark, its slot was merged away and began anew as something else.

# %%
NUM_SLOTS, STEP = 24, 16
watched = Slots.empty(1, codes, SlotsConfig(slots=NUM_SLOTS, block=STEP))
starts = np.arange(0, life.num_events - STEP + 1, STEP)
strength, touched = np.zeros((2, len(starts), NUM_SLOTS))
with tempfile.TemporaryDirectory() as folder:
    for step, start in enumerate(starts):
        watched.write(me, span_of(life, me, int(start), STEP))
        watched.save(Path(folder))
        with np.load(Path(folder) / "slots.npz") as held:
            strength[step] = held["strength"][0]
            touched[step] = (held["last"][0] >= start) & (held["strength"][0] > 0)
            prototypes = held["directions"][0].astype(np.float32)


def nearest_films(vectors: np.ndarray, rows: np.ndarray, k: int = 1) -> list[str]:
    """The titles of the k films of `rows` whose codes are nearest to each vector."""
    order = np.argsort(-(vectors @ codes[rows].T), axis=1, kind="stable")[:, :k]
    return [" / ".join(films[rows[at]].title for at in best) for best in order]


mine = np.unique(life.items)
labels = nearest_films(prototypes, mine, 2)
order = np.argsort(strength[-1])
events = [(place, genre) for place, row in enumerate(life.items) for genre in films[row].categories]
where, genres = map(np.array, zip(*events, strict=True))
names, kind, often = np.unique(genres, return_inverse=True, return_counts=True)
height = np.empty(len(names))
height[np.argsort(often)] = np.arange(len(names))

figure, (above, below) = plt.subplots(2, 1, figsize=(12, 11), sharex=True, height_ratios=(2, 3))
above.scatter(where, height[kind] + np.random.default_rng(0).uniform(-0.3, 0.3, len(where)), s=3, c=kind, cmap="tab20")
above.set(yticks=height, yticklabels=names, title="A life by genre")
extent = (0, len(starts) * STEP, -0.5, NUM_SLOTS - 0.5)
image = below.imshow(np.log2(1 + strength[:, order].T), aspect="auto", origin="lower", cmap="magma", extent=extent)
at, slot = np.nonzero(touched[:, order])
below.scatter((at + 0.5) * STEP, slot, s=1.5, color="white")
below.set(
    yticks=np.arange(NUM_SLOTS), xlim=extent[:2], xlabel="events so far", title=f"What {NUM_SLOTS} slots hold of it"
)
below.set_yticklabels([labels[slot][:70] for slot in order], fontsize=7)
figure.colorbar(image, ax=below, label="log2(1 + events behind a slot)")
plt.show()

# %% [markdown]
# ## The same life in every memory
#
# `bank` keeps each distinct film and is exact: the judge of the others. `slots` keep prototypes, `holographic` adds
# events up in superposed traces, `places` keeps addresses that a hash finds, `life` keeps ever coarser means the older
# things are. Asked with words that no film has, and with a film that the user has not met: what comes back is a vector,
# named here by the user's nearest film.

# %%
memories = {kind.name: kind.empty(1, codes) for kind in (Bank, Slots, Holographic, Places, Life)}
for memory in memories.values():
    memory.write(me, life)

popularity = np.bincount(histories.items, minlength=len(films))
unmet = np.setdiff1d(np.arange(len(films)), mine)
strange = int(unmet[np.argmax(popularity[unmet])])
asked = {
    "a space adventure with robots": directions.of(encoder.encode(["a space adventure with robots"])),
    f"{films[strange].text} (not met)": codes[[strange]],
}
for text, query in asked.items():
    print(text)
    rows = []
    for name, memory in memories.items():
        found = memory.read(me, query[None], 3)
        for place, title in enumerate(nearest_films(found.vectors[0, 0], mine)):
            similar, weight, age = (float(part[0, 0, place]) for part in (found.similarity, found.weight, found.age))
            rows.append((name, title if age >= 0 else "nothing", round(similar, 2), round(weight, 2), round(age)))
    print(pl.DataFrame(rows, schema=["memory", "nearest film", "similarity", "weight", "age"], orient="row"))

# %% [markdown]
# Does a smaller memory still say what the whole life says? For 400 films that the user never met: how close the exact
# memory finds the nearest past event, and how close the others do. On the line nothing is lost; a point at 0 was not
# found at all.

# %%
some = np.random.default_rng(0).choice(unmet, 400, replace=False)
similarity = {name: memory.read(me, codes[some][None]).similarity[0, :, 0] for name, memory in memories.items()}
figure, panels = plt.subplots(1, 4, figsize=(13, 3.5), sharex=True, sharey=True)
for panel, name in zip(panels, ("slots", "holographic", "places", "life"), strict=True):
    panel.scatter(similarity["bank"], similarity[name], s=4, alpha=0.5)
    panel.axline((0.5, 0.5), slope=1, color="black", linewidth=0.5)
    correlation = np.corrcoef(similarity["bank"], similarity[name])[0, 1]
    panel.set(title=f"{name}: correlation {correlation:.2f}", xlabel="bank")
panels[0].set_ylabel("similarity of the best entry")
plt.show()

# %% [markdown]
# ## What it costs
#
# Bytes of a user as a life grows, for the longest life there is. `bank` and `places` grow by 20 bytes a distinct item,
# the others are as large for one event as for a million. At this length the exact memory is still smaller than the
# slots; bounded ones are for lives that do not end.

# %%
longest = histories.of(int(np.argmax(histories.lengths)))
growing = {kind.name: kind.empty(1, codes) for kind in (Bank, Slots, Holographic, Places, Life)}
PIECE = 128
sizes: dict[str, list[int]] = {name: [] for name in growing}
for start in range(0, longest.num_events, PIECE):
    for name, memory in growing.items():
        memory.write(me, span_of(longest, me, start, PIECE))
        sizes[name].append(int(memory.size_bytes()[0]))
for name, bytes_kept in sizes.items():
    plt.plot(
        PIECE * np.arange(1, len(bytes_kept) + 1),
        np.array(bytes_kept) / 1024,
        label=name,
        linestyle="--" if name == "places" else "-",
    )
plt.gca().set(
    xlabel="events so far", ylabel="KiB a user", ylim=(0, None), title="Size of each memory (places lies on bank)"
)
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The memory of everybody else
#
# The collective memory keys every past moment of every user by the films just before it. Here it holds all users but
# this one, whose last 20 films are hidden. (All of their lives, also what came after the user's present: this is a look
# inside, not an evaluation.) The moments nearest to the user's present, of each other user the nearest one, what they
# have in common with it, and what came next:

# %%
HIDDEN = 20
others = histories.take(np.delete(np.arange(len(histories)), user))
neighbours = Neighbours.fit(Corpus(histories=others, items=items))
state = states_of(life.drop_last(HIDDEN), items)
settings = neighbours.config
key = recency_matrix(
    state.histories, len(items), decay=settings.decay, window=settings.window, item_weights=neighbours.rarity
)
weight, owner = key.toarray()[0], others.users
place = np.arange(others.num_events) - others.indptr[owner]
overlap = np.zeros(others.num_events)
for age in range(settings.window):
    met = np.flatnonzero(place >= age)
    overlap[met] += settings.decay**age * weight[others.items[met - age]]
overlap[others.indptr[1:][others.lengths > 0] - 1] = 0.0  # nothing follows a last event
recent = set(state.histories.items[-settings.window :].tolist())
nearest: dict[int, int] = {}  # of each user the one moment that is nearest
for best in np.argsort(-overlap, kind="stable")[:5_000]:
    nearest.setdefault(int(owner[best]), int(best))
rows = []
for other, moment in list(nearest.items())[:8]:
    span = others.items[max(int(others.indptr[other]), moment - settings.window + 1) : moment + 1]
    common = [films[row].title for row in span if int(row) in recent]
    rows.append((f"{overlap[moment]:.2f}", " / ".join(common), films[others.items[moment + 1]].title))
pl.DataFrame(rows, schema=["overlap", "in common", "what came next"], orient="row")

# %% [markdown]
# All such moments vote, closer ones more, popular films less. By address (exact, films in common) and by search among
# dense keys (films alike): the films that get the most votes; the filled ones are among the 20 hidden ones.

# %%
reading = neighbours.read(state)
ahead = set(life.items[-HIDDEN:].tolist())
figure, panels = plt.subplots(1, 2, figsize=(13, 5))
for panel, signal, scores in zip(panels, reading.signals, reading.scores, strict=True):
    votes = scores[0].copy()
    votes[state.histories.items] = 0.0
    top = np.argsort(-votes, kind="stable")[:15][::-1]
    colours = ["tab:blue" if int(row) in ahead else "white" for row in top]
    panel.barh(np.arange(len(top)), votes[top], color=colours, edgecolor="tab:blue")
    panel.set(
        yticks=np.arange(len(top)), title=f"{signal.name}: {sum(int(row) in ahead for row in top)} of 15 came true"
    )
    panel.set_yticklabels([films[row].title[:38] for row in top], fontsize=8)
plt.show()
