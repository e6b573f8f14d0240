"""The engine over gRPC: decode, call, encode."""

from recsys.serve.config import LaneConfig, ServerConfig
from recsys.serve.engine import Engine, Shelf, SnapshotSummary, Store
from recsys.serve.server import Server
from recsys.serve.tenants import Home

__all__ = ["Engine", "Home", "LaneConfig", "Server", "ServerConfig", "Shelf", "SnapshotSummary", "Store"]
