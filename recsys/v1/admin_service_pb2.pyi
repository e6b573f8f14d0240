import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from recsys.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Snapshot(_message.Message):
    __slots__ = ("serving", "create_time", "metrics", "active")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SERVING_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    serving: _types_pb2.ServingInfo
    create_time: _timestamp_pb2.Timestamp
    metrics: _containers.ScalarMap[str, float]
    active: bool
    def __init__(self, serving: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., active: bool = ...) -> None: ...

class GetServingStateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServingStateResponse(_message.Message):
    __slots__ = ("serving", "user_count", "memory_count", "item_count", "create_time", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SERVING_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    serving: _types_pb2.ServingInfo
    user_count: int
    memory_count: int
    item_count: int
    create_time: _timestamp_pb2.Timestamp
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, serving: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ..., user_count: _Optional[int] = ..., memory_count: _Optional[int] = ..., item_count: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ListSnapshotsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSnapshotsResponse(_message.Message):
    __slots__ = ("snapshots", "next_page_token")
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[Snapshot]
    next_page_token: str
    def __init__(self, snapshots: _Optional[_Iterable[_Union[Snapshot, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ActivateSnapshotRequest(_message.Message):
    __slots__ = ("snapshot_id", "force")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: str
    force: bool
    def __init__(self, snapshot_id: _Optional[str] = ..., force: bool = ...) -> None: ...

class Replay(_message.Message):
    __slots__ = ("request_count", "error_count", "mean_overlap", "mean_rank_correlation", "old_latency_ms", "new_latency_ms")
    REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    MEAN_RANK_CORRELATION_FIELD_NUMBER: _ClassVar[int]
    OLD_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    NEW_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    request_count: int
    error_count: int
    mean_overlap: float
    mean_rank_correlation: float
    old_latency_ms: float
    new_latency_ms: float
    def __init__(self, request_count: _Optional[int] = ..., error_count: _Optional[int] = ..., mean_overlap: _Optional[float] = ..., mean_rank_correlation: _Optional[float] = ..., old_latency_ms: _Optional[float] = ..., new_latency_ms: _Optional[float] = ...) -> None: ...

class ActivateSnapshotResponse(_message.Message):
    __slots__ = ("previous", "serving", "replay")
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    previous: _types_pb2.ServingInfo
    serving: _types_pb2.ServingInfo
    replay: Replay
    def __init__(self, previous: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ..., serving: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ..., replay: _Optional[_Union[Replay, _Mapping]] = ...) -> None: ...

class RollbackSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollbackSnapshotResponse(_message.Message):
    __slots__ = ("previous", "serving")
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    previous: _types_pb2.ServingInfo
    serving: _types_pb2.ServingInfo
    def __init__(self, previous: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ..., serving: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ...) -> None: ...
