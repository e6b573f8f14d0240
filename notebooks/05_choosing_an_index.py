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
# # 5. Choosing an index
#
# The collective memory asks which of everybody's past moments are nearest to the present one. How they are found is a
# bargain between three things: what is *found* (recall against exact search), how *long* a query takes, and how many
# *bytes* lie in memory. This notebook measures the bargain on real moments, draws it, picks, and shows how an index is
# built in parts and kept through a change. On your own data: `indexer tune --snapshot DIR`; docs/index.md has the
# figures of a larger one.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from indexer.tuning import draw, tune
from recsys import _native
from recsys.config import vector_cache_folder
from recsys.data.demo import load_demo
from recsys.encode.text import TextEncoder
from recsys.evaluate.build import encode_items
from recsys.index.faiss import FaissIndex
from recsys.index.flat import FlatIndex
from recsys.index.parts import coded, codes_of, merged, train, trained_of
from recsys.index.recall import recall
from recsys.match.neighbours import NeighboursConfig, item_codes
from recsys.memory.keys import latest_items, next_items, recent_items, superpose

_native.limit_threads(1)
plt.rcParams.update(
    {
        "figure.figsize": (11, 4.2),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
)
pl.Config(tbl_rows=40, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, float_precision=4)

# %% [markdown]
# ## Vectors, and queries that are really asked
#
# A moment's key superposes the codes of the films just before it. The queries are the users' present moments: an index
# must be judged by what it will be asked, for queries from elsewhere find less.

# %%
dataset = load_demo()
items = encode_items(dataset, TextEncoder.load(cache=vector_cache_folder()))
config, histories = NeighboursConfig(), dataset.histories
codes = item_codes(items, config.dimensions, config.seed)
moments = superpose(recent_items(histories, config.window)[next_items(histories) >= 0], codes, config.decay)
present = superpose(latest_items(histories, config.window), codes, config.decay)
rng = np.random.default_rng(0)
vectors = moments[np.sort(rng.permutation(len(moments))[:20_000])]
queries = present[rng.permutation(len(present))[:200]]
print(f"{len(vectors):,} of {len(moments):,} moments, {vectors.shape[1]} dimensions; {len(queries)} queries")

# %% [markdown]
# ## How far is the hundredth?
#
# The products of each query with all vectors. Where the best stand clear of the crowd, an index that looks at few
# finds them; where they do not, it must look at many.

# %%
products = np.sort(queries @ vectors.T, axis=1)[:, ::-1]
places = np.unique(np.geomspace(1, len(vectors), 200).astype(int)) - 1
for low, high in ((5, 95), (25, 75)):
    band = np.percentile(products[:, places], [low, high], axis=0)
    plt.fill_between(places + 1, *band, alpha=0.25, color="tab:blue", label=f"{low} to {high} % of queries")
plt.plot(places + 1, np.median(products[:, places], axis=0), color="tab:blue", label="median query")
plt.axvline(100, color="black", linewidth=0.5)
plt.gca().set(xscale="log", xlabel="place", ylabel="inner product", title="Products of a query with all moments")
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The bargain
#
# Every kind at several efforts: lists probed, beams, second looks. Left the time of one query, right the bytes of a
# vector; bars are 95 % intervals. Ringed is what the rule takes: of those that surely find 95 % of the hundred, the
# fastest, and where the clock cannot tell, the smallest.

# %%
tuning = tune(vectors, queries, k=100, least_recall=0.95, device="cpu")
draw(tuning, plt.figure())
plt.show()
print(tuning.best.kind, tuning.best.effort, "-", tuning.why)
columns = ("kind", "effort", "recall", "recall_low", "query_us", "batch_ms", "size_bytes", "build_s")
pl.DataFrame([{name: getattr(each, name) for name in columns} for each in tuning.measured])

# %% [markdown]
# What is measured is what serves: the effort is kept in the index file.

# %%
chosen = FaissIndex.build(vectors, kind=tuning.best.kind, effort=tuning.best.effort, device="cpu")
exact = recall(FlatIndex.build(vectors), vectors.__getitem__, queries, 100)
found = recall(chosen, vectors.__getitem__, queries, 100)
assert exact.value == 1.0
assert found.value == tuning.best.recall
print(f"{chosen.kind} at {chosen.effort}: recall@{found.k} {found.value:.4f} ({found.low:.4f} to {found.high:.4f})")

# %% [markdown]
# ## Deeper answers are harder
#
# Recall of two kinds by how many answers are wanted. The engine asks for a thousand moments; so that even these are
# found, a search looks at 8 vectors at least for each answer, whatever its effort, and recall rises again at the end.

# %%
depths = (1, 3, 10, 30, 100, 300, 1_000)
for kind, efforts in (("ivf_sq8", (8, 32)), ("hnsw", (64, 256))):
    for effort in efforts:
        index = FaissIndex.build(vectors, kind=kind, effort=effort, device="cpu")
        deep = [recall(index, vectors.__getitem__, queries, k).value for k in depths]
        plt.plot(depths, deep, marker=".", label=f"{kind} at {effort}", linestyle="-" if kind == "hnsw" else "--")
plt.gca().set(xscale="log", xlabel="answers wanted", ylabel="recall", title="Recall by depth")
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# ## In parts, and kept
#
# An index is trained once, coded anywhere, and merged: of eight parts it is the same as of one, bit for bit. After
# a change of one vector in a hundred the codes of the others are copied.

# %%
trained = train(vectors, kind="ivf_sq8", size=len(vectors))
whole = merged(trained, [coded(trained, vectors)], device="cpu")
eight = merged(trained, [coded(trained, some) for some in np.array_split(vectors, 8)], device="cpu")
for mine, theirs in zip(whole.search(queries, 100), eight.search(queries, 100), strict=True):
    np.testing.assert_array_equal(mine, theirs)

changed, kept = vectors[::100] * 0.5, np.delete(np.arange(len(vectors)), np.arange(0, len(vectors), 100))
began = time.perf_counter()
newer = merged(trained_of(whole), [codes_of(whole, kept), coded(trained, changed)], device="cpu")
copied_s = time.perf_counter() - began
began = time.perf_counter()
anew = FaissIndex.build(np.concatenate([vectors[kept], changed]), kind="ivf_sq8", device="cpu")
anew_s = time.perf_counter() - began
print(f"copied {1e3 * copied_s:.0f} ms, trained and coded anew {1e3 * anew_s:.0f} ms")
