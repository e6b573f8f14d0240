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

class ListMemoriesRequest(_message.Message):
    __slots__ = ("user_id", "page_size", "page_token", "query_text")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    QUERY_TEXT_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    page_size: int
    page_token: str
    query_text: str
    def __init__(self, user_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., query_text: _Optional[str] = ...) -> None: ...

class ListMemoriesResponse(_message.Message):
    __slots__ = ("memories", "next_page_token", "total_size")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[_types_pb2.Memory]
    next_page_token: str
    total_size: int
    def __init__(self, memories: _Optional[_Iterable[_Union[_types_pb2.Memory, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class DeleteUserRequest(_message.Message):
    __slots__ = ("user_id",)
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    def __init__(self, user_id: _Optional[str] = ...) -> None: ...

class DeleteUserResponse(_message.Message):
    __slots__ = ("event_count", "memory_count", "ranking_count", "delete_time", "live_files_clean_time", "snapshots_clean_time", "request_digests_expire_time")
    EVENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    RANKING_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    LIVE_FILES_CLEAN_TIME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOTS_CLEAN_TIME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGESTS_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    event_count: int
    memory_count: int
    ranking_count: int
    delete_time: _timestamp_pb2.Timestamp
    live_files_clean_time: _timestamp_pb2.Timestamp
    snapshots_clean_time: _timestamp_pb2.Timestamp
    request_digests_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, event_count: _Optional[int] = ..., memory_count: _Optional[int] = ..., ranking_count: _Optional[int] = ..., delete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., live_files_clean_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., snapshots_clean_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_digests_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ExportUserRequest(_message.Message):
    __slots__ = ("user_id",)
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    def __init__(self, user_id: _Optional[str] = ...) -> None: ...

class ExportUserResponse(_message.Message):
    __slots__ = ("events", "rankings", "delete_time")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    RANKINGS_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[ExportedEvent]
    rankings: _containers.RepeatedCompositeFieldContainer[ExportedRanking]
    delete_time: _timestamp_pb2.Timestamp
    def __init__(self, events: _Optional[_Iterable[_Union[ExportedEvent, _Mapping]]] = ..., rankings: _Optional[_Iterable[_Union[ExportedRanking, _Mapping]]] = ..., delete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ExportedEvent(_message.Message):
    __slots__ = ("event", "source")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    event: _types_pb2.Event
    source: str
    def __init__(self, event: _Optional[_Union[_types_pb2.Event, _Mapping]] = ..., source: _Optional[str] = ...) -> None: ...

class ExportedRanking(_message.Message):
    __slots__ = ("ranking_id", "item_ids")
    RANKING_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ranking_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ranking_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ...) -> None: ...
