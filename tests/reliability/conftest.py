from __future__ import annotations

import pytest

from recsys.model import Model
from tests.reliability.small import trained


@pytest.fixture(scope="session")
def model() -> Model:
    return trained()
