import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FallbackReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FALLBACK_REASON_UNSPECIFIED: _ClassVar[FallbackReason]
    FALLBACK_REASON_UNKNOWN_USER: _ClassVar[FallbackReason]
    FALLBACK_REASON_UNKNOWN_ITEM: _ClassVar[FallbackReason]
    FALLBACK_REASON_COLD_ITEM: _ClassVar[FallbackReason]
    FALLBACK_REASON_DEADLINE: _ClassVar[FallbackReason]
    FALLBACK_REASON_RANKER_UNAVAILABLE: _ClassVar[FallbackReason]
    FALLBACK_REASON_ENCODER_UNAVAILABLE: _ClassVar[FallbackReason]
    FALLBACK_REASON_MATCHER_UNAVAILABLE: _ClassVar[FallbackReason]
FALLBACK_REASON_UNSPECIFIED: FallbackReason
FALLBACK_REASON_UNKNOWN_USER: FallbackReason
FALLBACK_REASON_UNKNOWN_ITEM: FallbackReason
FALLBACK_REASON_COLD_ITEM: FallbackReason
FALLBACK_REASON_DEADLINE: FallbackReason
FALLBACK_REASON_RANKER_UNAVAILABLE: FallbackReason
FALLBACK_REASON_ENCODER_UNAVAILABLE: FallbackReason
FALLBACK_REASON_MATCHER_UNAVAILABLE: FallbackReason

class Item(_message.Message):
    __slots__ = ("item_id", "title", "description", "categories", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    description: str
    categories: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., description: _Optional[str] = ..., categories: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("event_id", "user_id", "item_id", "event_type", "event_time", "value", "session_id")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    user_id: str
    item_id: str
    event_type: str
    event_time: _timestamp_pb2.Timestamp
    value: float
    session_id: str
    def __init__(self, event_id: _Optional[str] = ..., user_id: _Optional[str] = ..., item_id: _Optional[str] = ..., event_type: _Optional[str] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., value: _Optional[float] = ..., session_id: _Optional[str] = ...) -> None: ...

class Memory(_message.Message):
    __slots__ = ("event", "title", "weight", "source", "score_change")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    event: Event
    title: str
    weight: float
    source: str
    score_change: float
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ..., title: _Optional[str] = ..., weight: _Optional[float] = ..., source: _Optional[str] = ..., score_change: _Optional[float] = ...) -> None: ...

class FloatVectors(_message.Message):
    __slots__ = ("f32_le", "dimension")
    F32_LE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    f32_le: bytes
    dimension: int
    def __init__(self, f32_le: _Optional[bytes] = ..., dimension: _Optional[int] = ...) -> None: ...

class ServingInfo(_message.Message):
    __slots__ = ("snapshot_id", "encoder_fingerprint", "index_fingerprint", "ranker_fingerprint", "memory_watermark")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    RANKER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: str
    encoder_fingerprint: str
    index_fingerprint: str
    ranker_fingerprint: str
    memory_watermark: _timestamp_pb2.Timestamp
    def __init__(self, snapshot_id: _Optional[str] = ..., encoder_fingerprint: _Optional[str] = ..., index_fingerprint: _Optional[str] = ..., ranker_fingerprint: _Optional[str] = ..., memory_watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
