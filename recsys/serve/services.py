"""The services of the API: their handlers for one backend, by method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import grpc

from recsys.serve.answers import RankAnswer
from recsys.serve.backend import Backend
from recsys.serve.handlers import Handler, behaviour_of, make_handler
from recsys.serve.ingest import IngestServicer
from recsys.serve.memories import MemoryServicer
from recsys.serve.questions import read_question
from recsys.serve.servicer import AdminServicer, RankingServicer
from recsys.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from recsys.v1.ingest_service_pb2_grpc import add_IngestServiceServicer_to_server
from recsys.v1.memory_service_pb2_grpc import add_MemoryServiceServicer_to_server
from recsys.v1.ranking_service_pb2_grpc import add_RankingServiceServicer_to_server

RANKING = "recsys.v1.RankingService"
MEMORY = "recsys.v1.MemoryService"
INGEST = "recsys.v1.IngestService"
ADMIN = "recsys.v1.AdminService"
SERVICES = (RANKING, MEMORY, INGEST, ADMIN)
RANK_ITEMS = f"/{RANKING}/RankItems"


def handlers_of(backend: Backend) -> Mapping[str, Handler]:
    """Handlers by method, `/recsys.v1.RankingService/RankItems` for one; all they can reach is `backend`."""
    found = _Collector()
    server = cast(grpc.Server, found)  # of a server, generated code knows two methods
    add_RankingServiceServicer_to_server(RankingServicer(backend), server)
    add_MemoryServiceServicer_to_server(MemoryServicer(backend), server)
    add_IngestServiceServicer_to_server(IngestServicer(backend), server)
    add_AdminServiceServicer_to_server(AdminServicer(backend), server)
    ranks = found.handlers[RANK_ITEMS]
    # Its messages are read and written at once, not candidate by candidate.
    found.handlers[RANK_ITEMS] = make_handler(
        ranks, behaviour_of(ranks), decode=read_question, encode=RankAnswer.to_bytes
    )
    return found.handlers


def register(server: grpc.Server, handlers: Mapping[str, Handler]) -> None:
    """Makes `server` answer by `handlers`."""
    for service in dict.fromkeys(method.rpartition("/")[0] for method in handlers):
        own = {method.rpartition("/")[2]: made for method, made in handlers.items() if method.startswith(f"{service}/")}
        server.add_registered_method_handlers(service.removeprefix("/"), own)


class _Collector:
    """Takes what generated code adds to a server."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self.handlers.update({f"/{service}/{name}": each for name, each in handlers.items()})

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers once more, to be found by name."""
