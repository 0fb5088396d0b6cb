"""Has pytest rewrite the assertions of the checks, which are no test module, so that they say what failed."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.support.checks")
