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
# # 4. Train, evaluate, explain
#
# The whole way in one process: a history encoder and a ranker learn from the past, are asked about a future they have
# not seen, beside baselines; then the model says why it recommends what it does. To stay within a minute: only films
# that ten people rated, few questions, few epochs, few trees. `./run recsys train` does the same in full.

# %%
import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from recsys import _native
from recsys.cli.learn import METHODS
from recsys.config import vector_cache_folder
from recsys.data.dataset import load_dataset
from recsys.data.demo import load_demo
from recsys.data.export import event_frame
from recsys.encode.text import TextEncoder
from recsys.evaluate import EvaluateConfig
from recsys.evaluate.build import build
from recsys.rank import RankerConfig
from recsys.recommend import Recommender
from recsys.train.fit import TrainConfig
from recsys.train.settle import SequenceConfig
from recsys.train.stages import StageConfig
from recsys.types import User

_native.limit_threads(1)
plt.rcParams.update(
    {
        "figure.figsize": (10, 3.8),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
)
pl.Config(tbl_rows=40, fmt_str_lengths=60, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True)

LEAST = 10
demo = load_demo()
popularity = np.bincount(demo.histories.items, minlength=len(demo.catalogue))
kept = [demo.catalogue.ids.ids[row] for row in np.flatnonzero(popularity >= LEAST)]
often_met = pl.col("item_id").is_in(kept)
dataset = load_dataset((event_frame(demo).filter(often_met), demo.catalogue.to_frame().filter(often_met)))
print(dataset.report)

# %% [markdown]
# ## Train and evaluate
#
# Time is cut into three stages, each with a memory that ends before anything it is asked. The ranker learns on the
# first, stops on the second; the test is the last year and is looked at once. Every item is ranked, and what nobody
# proposed counts as missed.

# %%
config = EvaluateConfig(
    protocol="gts",
    train=TrainConfig(
        stages=StageConfig(
            train_queries=500, validation_queries=250, test_queries=500, test_days=365.0, validation_days=365.0
        ),
        sequence=SequenceConfig(enabled=True, epochs=4, width=32, codes=64, window=64, negatives=256),
        ranker=RankerConfig(max_trees=80, learning_rate=0.1, min_data_in_leaf=50, num_threads=1),
    ),
)
encoder = TextEncoder.load(cache=vector_cache_folder())
built = build(dataset, encoder, config)
report = built.report
print(f"{report['test']['queries']} questions, {report['num_trees']} trees, {report['seconds']:.0f} s")

# %%
methods = {"LongRec": report["test"]} | {METHODS.get(name, name): row for name, row in report["baselines"].items()}
ordered = sorted(methods, key=lambda name: -methods[name]["ndcg@10"])
pl.DataFrame(
    [(name, *(round(methods[name][metric], 4) for metric in ("ndcg@10", "hr@10", "mrr"))) for name in ordered],
    schema=["method", "NDCG@10", "HR@10", "MRR"],
    orient="row",
)

# %% [markdown]
# The bars are 95 % intervals over users. From 500 questions they are wide: what lies inside another's bar is no
# difference.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2))
for place, name in enumerate(ordered[::-1]):
    low, high = methods[name]["ndcg@10_interval"]
    colour = "tab:red" if name == "LongRec" else "tab:blue"
    left.plot((low, high), (place, place), color=colour)
    left.plot(methods[name]["ndcg@10"], place, "o", color=colour)
left.set(yticks=range(len(ordered)), yticklabels=ordered[::-1], xlabel="NDCG@10", title="Beside the baselines")
slices = {name: row for name, row in report["slices"].items() if row["queries"]}
right.barh([f"{name} ({row['queries']})" for name, row in slices.items()], [row["ndcg@10"] for row in slices.values()])
right.axvline(report["test"]["ndcg@10"], color="black", linestyle=":")
right.invert_yaxis()
right.set(xlabel="NDCG@10 (dotted: all)", title="Where it comes from (questions)")
plt.show()

# %% [markdown]
# What accuracy does not say: how much of the catalogue is shown, how popular, alike and new the lists are.

# %%
beyond = report["beyond_accuracy"]
pl.DataFrame(
    [(name, value, beyond["popularity"][name]) for name, value in beyond["ours"].items()],
    schema=["first ten", "LongRec", "most popular ever"],
    orient="row",
)

# %% [markdown]
# ## What the ranker looks at
#
# Each matcher's signals become features; the ranker's trees weigh them. Gain: how much a feature's splits helped.

# %%
gains = dict(list(report["importance"].items())[:15])
plt.figure(figsize=(9, 4))
plt.barh(list(gains), np.array(list(gains.values())) / sum(report["importance"].values()))
plt.gca().invert_yaxis()
plt.xlabel("share of the gain of the first 20")
plt.show()

# %% [markdown]
# ## One recommendation, explained
#
# The model that is served remembers everything. Somebody with a long life asks:

# %%
recommender = Recommender.of(built.model, encoder)
histories = dataset.histories
active = np.argsort(-histories.last_times, kind="stable")[:40]
row = int(active[np.argmin(np.abs(histories.lengths[active] - 200))])
user = User(user_id=dataset.users.ids[row])
past = recommender.history(user)
ranking = recommender.recommend(user, k=8)
title_of = lambda item_id: dataset.catalogue.get(item_id).title  # noqa: E731
print(f"user {user.user_id}: {len(past)} films, lately {', '.join(title_of(event.item_id) for event in past[-4:])}")
pl.DataFrame(
    [(item.rank, title_of(item.item_id), round(item.score, 3)) for item in ranking.items],
    schema=["rank", "film", "score"],
    orient="row",
)

# %% [markdown]
# A score is a base and the sum of its features' contributions (Shapley values; they add up exactly). And it comes from
# somewhere: the user's own events that speak for the film, with the matcher that weighs each most.

# %%
explained = recommender.explain(user, [ranking.items[0].item_id], max_memories=8)[0]
shares = sorted(explained.contributions.items(), key=lambda pair: -abs(pair[1]))
largest, rest = shares[:12], sum(value for _, value in shares[12:])
parts = [("base", explained.base), *largest, (f"{len(shares) - 12} others", rest)]
assert abs(sum(value for _, value in parts) - explained.score) < 1e-3

figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5))
ends = np.cumsum([value for _, value in parts])
colours = ["grey", *("tab:green" if value > 0 else "tab:red" for _, value in parts[1:])]
left.barh(
    [name for name, _ in parts], [value for _, value in parts], left=ends - [value for _, value in parts], color=colours
)
left.axvline(explained.score, color="black", linestyle=":")
left.invert_yaxis()
left.set(title=f"Why {title_of(explained.item_id)} has {explained.score:.2f}", xlabel="score")
dates = np.array([memory.event.timestamp for memory in explained.memories]).astype("datetime64[s]")
told = [
    f"{memory.title[:34]}, {date.astype('datetime64[D]')}, {memory.event.value:.1f}"
    for memory, date in zip(explained.memories, dates, strict=True)
]
right.barh(np.arange(len(told)), [memory.weight for memory in explained.memories], color="tab:blue")
right.set(yticks=np.arange(len(told)), title="Remembered events that speak for it (date, rating)", xlabel="share")
right.set_yticklabels(told, fontsize=8)
for place, memory in enumerate(explained.memories):
    right.text(memory.weight, place, f" {memory.source}", va="center", fontsize=8)
right.invert_yaxis()
right.margins(x=0.25)
plt.show()
