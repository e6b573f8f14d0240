"""The asyncio client: the methods of `recsys.client.sync`, awaited; their docstrings hold here, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from recsys.client import calls, channel, results
from recsys.client.channel import TlsConfig, Token
from recsys.errors import DeadlineExceeded, Unavailable
from recsys.types import Candidate, Event, Explanation, Item, User
from recsys.v1 import ingest_service_pb2 as ingest_pb
from recsys.v1 import memory_service_pb2 as memory_pb

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

T = TypeVar("T")

POLL_S = 0.05

Batch = Iterable[Event] | results.EventBatch
Batches = Iterable[Batch] | AsyncIterable[Batch]


class AsyncRecsysClient:
    """One channel for all calls of one event loop. Plain text without `tls`.

    `timeout_s` is the deadline of a call, where the method takes none of its own. `token` goes as a bearer token, to
    this machine or over TLS only; a function gives a new one at each call.
    """

    def __init__(
        self, target: str, *, token: Token = None, tls: TlsConfig | None = None, timeout_s: float = 0.25
    ) -> None:
        channel.check(target, timeout_s, token=token, tls=tls)
        self._target = target
        self._timeout_s = timeout_s
        self._token = token
        channel.metadata(token)  # a wrong one is told at once
        options = channel.channel_options()
        if tls:
            self._channel = grpc.aio.secure_channel(target, tls.credentials(), options)
        else:
            self._channel = grpc.aio.insecure_channel(target, options)
        self._methods: dict[str, Any] = {}
        self._stream_events: Any = self._channel.stream_stream(
            calls.STREAM_EVENTS,
            request_serializer=ingest_pb.StreamEventsRequest.SerializeToString,
            response_deserializer=ingest_pb.StreamEventsResponse.FromString,
        )
        self._export_user: Any = self._channel.unary_stream(
            calls.EXPORT_USER,
            request_serializer=memory_pb.ExportUserRequest.SerializeToString,
            response_deserializer=memory_pb.ExportUserResponse.FromString,
        )

    @classmethod
    def from_environment(cls, target: str, *, timeout_s: float = 0.25) -> Self:
        """With the token and the TLS files that `channel.credentials_from_environment` finds."""
        found = channel.credentials_from_environment()
        return cls(target, token=found.token, tls=found.tls, timeout_s=timeout_s)

    async def rank_items(
        self,
        user: User,
        candidates: Iterable[Candidate | str],
        *,
        top_k: int = 0,
        include_parts: bool = False,
        timeout_s: float | None = None,
    ) -> results.RankedPage:
        """Up to 1,000 candidates (a string is an item id) by falling score; `top_k` 0 returns all."""
        return await self._run(calls.rank_items(user, candidates, top_k, include_parts), timeout_s)

    async def recommend_items(
        self,
        user: User,
        *,
        page_size: int = 10,
        page_token: str = "",
        exclude: Iterable[str] = (),
        categories: Iterable[str] = (),
        include_seen: bool | None = None,
        include_parts: bool = False,
        timeout_s: float | None = None,
    ) -> results.RankedPage:
        """A page of items from the whole catalogue; `include_seen` None does as the data does."""
        call = calls.recommend_items(user, page_size, page_token, exclude, categories, include_seen, include_parts)
        return await self._run(call, timeout_s)

    async def recommend_pages(
        self,
        user: User,
        *,
        page_size: int = 10,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        include_seen: bool | None = None,
        include_parts: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncIterator[results.RankedPage]:
        """All pages of one ranking, fetched as they are asked for; no item comes twice."""
        token = ""
        while True:
            call = calls.recommend_items(user, page_size, token, exclude, categories, include_seen, include_parts)
            page = await self._run(call, timeout_s)
            yield page
            token = page.next_page_token
            if not token:
                return

    async def explain(
        self, of: str | User, item_ids: Iterable[str] = (), *, max_memories: int = 5, timeout_s: float | None = None
    ) -> tuple[Explanation, ...]:
        """Why items have their scores. `of` is a user, or a `ranking_id`; that alone asks for its first known items."""
        return await self._run(calls.explain(of, item_ids, max_memories), timeout_s)

    async def encode_texts(self, texts: Sequence[str], *, timeout_s: float | None = None) -> Float32[np.ndarray, "n D"]:
        """Unit vectors of up to 64 texts, read-only."""
        return await self._run(calls.encode_texts(texts), timeout_s)

    async def write_events(
        self, events: Iterable[Event], *, request_id: str = "", timeout_s: float | None = None
    ) -> results.Written:
        """Up to 1,000 events, all or none. Retries are safe: a request id is made where none is given."""
        return await self._run(calls.write_events(events, request_id), timeout_s)

    async def stream_events(
        self, batches: Batches, *, timeout_s: float | None = None
    ) -> AsyncIterator[results.Written]:
        """Sends batches of up to 1,000 events as they come; yields the acknowledgement of each, in order.

        The server reads on once it has acknowledged, so `batches` is asked for the next no faster than the disk takes
        them; it is iterated in the event loop. The stream ends at the first batch that is refused, with its error;
        what was not acknowledged by then is safe to send again in an `EventBatch` of the same request id. A stream on
        which nothing is sent for a minute is cancelled. Without `timeout_s` it may last an hour.
        """
        call = self._stream_events(
            _requests(batches),
            timeout=timeout_s or calls.STREAM_TIMEOUT_S,
            metadata=channel.metadata(self._token),
        )
        try:
            async for response in call:
                yield calls.acknowledged(response)
        except grpc.RpcError as error:
            raise calls.to_error(error, self._target) from error
        finally:
            call.cancel()

    async def write_items(
        self, items: Iterable[Item], *, request_id: str = "", timeout_s: float | None = None
    ) -> results.Written:
        """Up to 1,000 items, all or none; rankable at once. Request ids as in `write_events`."""
        return await self._run(calls.write_items(items, request_id), timeout_s)

    async def list_memories(
        self,
        user_id: str,
        *,
        query_text: str = "",
        page_size: int = 50,
        page_token: str = "",
        timeout_s: float | None = None,
    ) -> results.MemoryPage:
        """A user's events, newest first; with `query_text` those nearest to it in meaning."""
        return await self._run(calls.list_memories(user_id, query_text, page_size, page_token), timeout_s)

    async def delete_user(self, user_id: str, *, timeout_s: float | None = None) -> results.Erased:
        """Erases a user: gone from every later answer, and by the times of the receipt from every file."""
        return await self._run(calls.delete_user(user_id), timeout_s)

    async def export_user(self, user_id: str, *, timeout_s: float | None = None) -> results.UserExport:
        """All that is held of a user."""
        timeout_s = timeout_s or calls.EXPORT_TIMEOUT_S
        call = self._export_user(calls.export_user(user_id), timeout=timeout_s, metadata=channel.metadata(self._token))
        try:
            return calls.exported([part async for part in call])
        except grpc.RpcError as error:
            raise calls.to_error(error, self._target) from error

    async def serving_state(self, *, timeout_s: float | None = None) -> results.ServingState:
        """What serves; raises Unavailable until a snapshot is loaded and warmed."""
        return await self._run(calls.serving_state(), timeout_s)

    async def list_snapshots(
        self, *, page_size: int = 50, page_token: str = "", timeout_s: float | None = None
    ) -> results.SnapshotPage:
        """Snapshots that can be activated, newest first."""
        return await self._run(calls.list_snapshots(page_size, page_token), timeout_s)

    async def activate_snapshot(
        self, snapshot_id: str, *, force: bool = False, timeout_s: float | None = None
    ) -> results.Activated:
        """Changes over to a snapshot; `force`: whatever its answers are. Raises ReplayRefused where they are off."""
        return await self._run(calls.activate_snapshot(snapshot_id, force), timeout_s)

    async def rollback_snapshot(self, *, timeout_s: float | None = None) -> results.ServingInfo:
        """Serves at once from the snapshot before, which is kept for some minutes; raises NotFound where none is."""
        return await self._run(calls.rollback_snapshot(), timeout_s)

    async def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Returns once a snapshot serves; raises DeadlineExceeded where none does in time."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                await self.serving_state(timeout_s=max(min(1.0, end - time.monotonic()), POLL_S))
                return
            except (Unavailable, DeadlineExceeded) as error:
                if time.monotonic() >= end:
                    raise DeadlineExceeded(f"not ready after {timeout_s} s: {error}") from error
                await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: calls.Call[T], timeout_s: float | None) -> T:
        if call.path not in self._methods:
            self._methods[call.path] = self._channel.unary_unary(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response.FromString,
            )
        left_s = timeout_s or call.timeout_s or self._timeout_s
        try:
            return call.read(
                await self._methods[call.path](call.request, timeout=left_s, metadata=channel.metadata(self._token))
            )
        except grpc.RpcError as error:
            raise calls.to_error(error, self._target) from error


async def _requests(batches: Batches) -> AsyncIterator[ingest_pb.StreamEventsRequest]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield calls.stream_events(batch)
    else:
        for batch in batches:
            yield calls.stream_events(batch)
