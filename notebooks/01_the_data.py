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
# # 1. The data
#
# A data set here is two tables: **events** (who met what, when, how) and **items** (what the things are, in words).
# This notebook loads one, looks at what the loader says of it, and at the shapes that decide how hard it is: how long
# lives are, how unequal items are, how events lie in time.
#
# The data: MovieLens latest-small of 2016, real films and real people (Harper and Konstan 2015).

# %%
import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from recsys.data.dataset import load_dataset
from recsys.data.demo import load_demo
from recsys.data.export import event_frame
from recsys.errors import InvalidData

plt.rcParams.update(
    {
        "figure.figsize": (10, 3.6),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
)

DAY_S = 86_400.0
dataset = load_demo()
histories, films = dataset.histories, dataset.catalogue.items
print(dataset.report)
print(f"{len(histories):,} users, {len(films):,} films, {histories.num_events:,} events: {histories.event_types}")
event_frame(dataset).head(5)

# %% [markdown]
# ## What the loader refuses
#
# Every row is checked. By default one bad row refuses the whole data set, with its place, value and reason; with
# `strict=False` bad rows are dropped and counted. Here is a small table with four things wrong.

# %%
damaged = pl.DataFrame(
    {
        "user_id": ["ann", "ann", "ben", "", "ben", "cem"],
        "item_id": ["alien", "brazil", "alien", "alien", "casablanca", "brazil"],
        "timestamp": [1.5e9, 1.5e9 + 60, None, 1.5e9, 1.5e9, 1.5e9],
        "value": [5.0, 4.0, 3.0, 4.0, 4.0, float("inf")],
    }
)
known = pl.DataFrame({"item_id": ["alien", "brazil"], "title": ["Alien (1979)", "Brazil (1985)"]})
try:
    load_dataset((damaged, known))
except InvalidData as error:
    for violation in error.violations:
        print(f"{violation.field} = {violation.value}: {violation.reason}")
print()
print(load_dataset((damaged, known), strict=False).report)

# %% [markdown]
# ## What it becomes
#
# String ids stop at the door. Inside, users and items are row numbers, and `Histories` holds all events as flat
# columns: the events of user `u` are `indptr[u]` to `indptr[u + 1]`, oldest first.

# %%
first = histories.slice(0)
print("indptr of the first users:", histories.indptr[:5])
for row, time, value in zip(histories.items[first][:5], histories.times[first], histories.values[first], strict=False):
    print(f"row {row:5d}  {np.datetime64(int(time), 's')}  {value:.1f}  {films[row].text}")

# %% [markdown]
# ## How long lives are, and how unequal films
#
# Lengths span two powers of ten: a model that sees the last 100 events sees all of most people and a small part of a
# few. Popularity has a long tail: few films have most of the events, and most films have hardly any, so that for them
# words say more than events do.

# %%
lengths = histories.lengths
counts = np.sort(np.bincount(histories.items, minlength=len(films)))[::-1]
share = np.cumsum(counts) / counts.sum()
figure, (left, right) = plt.subplots(1, 2)
left.hist(lengths, bins=np.geomspace(lengths.min(), lengths.max() + 1, 30), color="tab:blue")
left.axvline(np.median(lengths), color="black", linestyle=":", label=f"median {np.median(lengths):.0f}")
left.set(xscale="log", xlabel="events in a life", ylabel="users", title="Length of lives")
left.legend(frameon=False)
right.plot(np.arange(1, len(counts) + 1), counts, color="tab:orange")
right.set(xscale="log", yscale="log", xlabel="film, by popularity", ylabel="events", title="The long tail")
tenth = len(counts) // 10
right.axvline(tenth, color="black", linestyle=":", label=f"the first tenth has {share[tenth]:.0%} of all events")
right.legend(frameon=False, loc="lower left")
plt.show()
print(f"{(counts < 5).mean():.0%} of films have fewer than 5 events")

# %% [markdown]
# ## When things happen
#
# Left: events by month, and the users who came for the first time in it. Right: the time from one event to the next of
# the same user. Many people rate what they saw long ago in one sitting, seconds apart; a split by time, and a model
# that reads gaps, has to live with that. (On the far left: equal times, whose order nobody knows.)

# %%
dates = histories.times.astype("datetime64[s]")
month = lambda times: times.astype("datetime64[M]")  # noqa: E731
months = np.arange(month(dates.min()), month(dates.max()) + 1)
born = dates[histories.indptr[:-1]]
gaps = np.diff(histories.times)[np.diff(histories.users) == 0]
figure, (left, right) = plt.subplots(1, 2)
left.fill_between(months, np.histogram(month(dates).astype(int), bins=np.append(months, months[-1] + 1).astype(int))[0])
left.set(xlabel="month", ylabel="events", title="Events, and new users (red)")
new = left.twinx()
new.plot(
    months,
    np.histogram(month(born).astype(int), bins=np.append(months, months[-1] + 1).astype(int))[0],
    color="tab:red",
    linewidth=0.7,
)
new.set_ylabel("new users")
right.hist(gaps + 1, bins=np.geomspace(1, gaps.max() + 1, 50), color="tab:green")
right.set(xscale="log", xlabel="seconds to the next event, + 1", ylabel="events", title="Gaps")
for seconds, name in ((60, "minute"), (3_600, "hour"), (DAY_S, "day"), (365 * DAY_S, "year")):
    right.axvline(seconds, color="black", linewidth=0.5)
    right.text(seconds, right.get_ylim()[1] * 0.97, f" {name}", rotation=90, va="top", fontsize=8)
plt.show()
print(f"{(gaps == 0).mean():.0%} of events have the time of the event before")
print(f"{(gaps < 60).mean():.0%} come within a minute of it")

# %% [markdown]
# ## One life
#
# The user with events on the most different days, as a time line: each dot is a film, in the row of each of its genres,
# dark where it was liked. What a memory has to keep is this picture, for everyone, in bounded space.

# %%
num_days = [len(np.unique(histories.times[histories.slice(user)] // DAY_S)) for user in range(len(histories))]
user = int(np.argmax(num_days))
life = histories.slice(user)
met = [
    (date, value, genre)
    for date, value, row in zip(dates[life], histories.values[life], histories.items[life], strict=True)
    for genre in films[row].categories
]
when, liked, genres = map(np.array, zip(*met, strict=True))
names, place, often = np.unique(genres, return_inverse=True, return_counts=True)
height = np.empty(len(names))
height[np.argsort(often)] = np.arange(len(names))
jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(when))
plt.figure(figsize=(11, 5))
plt.scatter(when, height[place] + jitter, c=liked, s=9, cmap="viridis_r")
plt.colorbar(label="rating")
plt.yticks(height, [f"{name} ({count})" for name, count in zip(names, often, strict=True)])
plt.title(f"User {dataset.users.ids[user]}: {life.stop - life.start:,} films on {num_days[user]} days")
plt.show()

# %% [markdown]
# ## What items say of themselves
#
# The text encoder reads title, categories and description. These films have a title with a year, and genres; an item
# that comes tomorrow has these words before anyone has met it.

# %%
for film in films[:5]:
    print(film.text)
in_catalogue = [genre for film in films for genre in film.categories]
names, num_films = np.unique(in_catalogue, return_counts=True)
popularity = np.bincount(histories.items, minlength=len(films))
num_events = [sum(popularity[row] for row, film in enumerate(films) if name in film.categories) for name in names]
order = np.argsort(num_events)[::-1]
plt.bar(np.arange(len(names)) - 0.2, num_films[order] / len(films), 0.4, label="share of films")
plt.bar(np.arange(len(names)) + 0.2, np.array(num_events)[order] / histories.num_events, 0.4, label="share of events")
plt.xticks(np.arange(len(names)), names[order], rotation=60, ha="right")
plt.title("Genres: what there is, and what is watched (a film may have several)")
plt.legend(frameon=False)
plt.show()
