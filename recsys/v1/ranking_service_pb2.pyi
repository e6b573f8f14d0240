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

class UserContext(_message.Message):
    __slots__ = ("user_id", "extra_history", "replace_history", "request_time")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EXTRA_HISTORY_FIELD_NUMBER: _ClassVar[int]
    REPLACE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    extra_history: _containers.RepeatedCompositeFieldContainer[_types_pb2.Event]
    replace_history: bool
    request_time: _timestamp_pb2.Timestamp
    def __init__(self, user_id: _Optional[str] = ..., extra_history: _Optional[_Iterable[_Union[_types_pb2.Event, _Mapping]]] = ..., replace_history: bool = ..., request_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("item_id", "text")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    text: str
    def __init__(self, item_id: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class RankItemsRequest(_message.Message):
    __slots__ = ("user", "candidates", "top_k", "include_parts")
    USER_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PARTS_FIELD_NUMBER: _ClassVar[int]
    user: UserContext
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    top_k: int
    include_parts: bool
    def __init__(self, user: _Optional[_Union[UserContext, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., top_k: _Optional[int] = ..., include_parts: bool = ...) -> None: ...

class RankedItem(_message.Message):
    __slots__ = ("item_id", "score", "rank", "parts", "fallbacks", "index")
    class PartsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    score: float
    rank: int
    parts: _containers.ScalarMap[str, float]
    fallbacks: _containers.RepeatedScalarFieldContainer[_types_pb2.FallbackReason]
    index: int
    def __init__(self, item_id: _Optional[str] = ..., score: _Optional[float] = ..., rank: _Optional[int] = ..., parts: _Optional[_Mapping[str, float]] = ..., fallbacks: _Optional[_Iterable[_Union[_types_pb2.FallbackReason, str]]] = ..., index: _Optional[int] = ...) -> None: ...

class RankItemsResponse(_message.Message):
    __slots__ = ("items", "ranking_id", "serving", "fallbacks")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    RANKING_ID_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[RankedItem]
    ranking_id: str
    serving: _types_pb2.ServingInfo
    fallbacks: _containers.RepeatedScalarFieldContainer[_types_pb2.FallbackReason]
    def __init__(self, items: _Optional[_Iterable[_Union[RankedItem, _Mapping]]] = ..., ranking_id: _Optional[str] = ..., serving: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ..., fallbacks: _Optional[_Iterable[_Union[_types_pb2.FallbackReason, str]]] = ...) -> None: ...

class RecommendItemsRequest(_message.Message):
    __slots__ = ("user", "page_size", "page_token", "exclude_item_ids", "categories", "include_seen", "include_parts")
    USER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PARTS_FIELD_NUMBER: _ClassVar[int]
    user: UserContext
    page_size: int
    page_token: str
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    categories: _containers.RepeatedScalarFieldContainer[str]
    include_seen: bool
    include_parts: bool
    def __init__(self, user: _Optional[_Union[UserContext, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., categories: _Optional[_Iterable[str]] = ..., include_seen: bool = ..., include_parts: bool = ...) -> None: ...

class RecommendItemsResponse(_message.Message):
    __slots__ = ("items", "next_page_token", "ranking_id", "serving", "fallbacks")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RANKING_ID_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[RankedItem]
    next_page_token: str
    ranking_id: str
    serving: _types_pb2.ServingInfo
    fallbacks: _containers.RepeatedScalarFieldContainer[_types_pb2.FallbackReason]
    def __init__(self, items: _Optional[_Iterable[_Union[RankedItem, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., ranking_id: _Optional[str] = ..., serving: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ..., fallbacks: _Optional[_Iterable[_Union[_types_pb2.FallbackReason, str]]] = ...) -> None: ...

class ExplainRankingRequest(_message.Message):
    __slots__ = ("ranking_id", "user", "item_ids", "max_memories")
    RANKING_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_MEMORIES_FIELD_NUMBER: _ClassVar[int]
    ranking_id: str
    user: UserContext
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    max_memories: int
    def __init__(self, ranking_id: _Optional[str] = ..., user: _Optional[_Union[UserContext, _Mapping]] = ..., item_ids: _Optional[_Iterable[str]] = ..., max_memories: _Optional[int] = ...) -> None: ...

class ItemExplanation(_message.Message):
    __slots__ = ("item_id", "score", "base", "feature_contributions", "memories")
    class FeatureContributionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    FEATURE_CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    score: float
    base: float
    feature_contributions: _containers.ScalarMap[str, float]
    memories: _containers.RepeatedCompositeFieldContainer[_types_pb2.Memory]
    def __init__(self, item_id: _Optional[str] = ..., score: _Optional[float] = ..., base: _Optional[float] = ..., feature_contributions: _Optional[_Mapping[str, float]] = ..., memories: _Optional[_Iterable[_Union[_types_pb2.Memory, _Mapping]]] = ...) -> None: ...

class ExplainRankingResponse(_message.Message):
    __slots__ = ("items", "serving")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ItemExplanation]
    serving: _types_pb2.ServingInfo
    def __init__(self, items: _Optional[_Iterable[_Union[ItemExplanation, _Mapping]]] = ..., serving: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ...) -> None: ...

class EncodeTextsRequest(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class EncodeTextsResponse(_message.Message):
    __slots__ = ("vectors", "serving")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    vectors: _types_pb2.FloatVectors
    serving: _types_pb2.ServingInfo
    def __init__(self, vectors: _Optional[_Union[_types_pb2.FloatVectors, _Mapping]] = ..., serving: _Optional[_Union[_types_pb2.ServingInfo, _Mapping]] = ...) -> None: ...
