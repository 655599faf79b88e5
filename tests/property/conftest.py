"""Failed comparisons tell both sides wherever they stand."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.property.request_comparison", "tests.property.request_steps")
