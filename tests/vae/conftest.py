"""Lets these tests import the helpers beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("checks")
sys.path.insert(0, str(Path(__file__).parent))
