"""The environment's proxies are gone through as a client without leases would."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.transports.proxies import proxy_mounts


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({"HTTPS_PROXY": "http://p:1"}, {"https://": "http://p:1"}),
        ({"ALL_PROXY": "p:1"}, {"all://": "http://p:1"}),
        (
            {"HTTP_PROXY": "http://p:1", "NO_PROXY": "a.example, 10.0.0.1,localhost, ::1"},
            {
                "http://": "http://p:1",
                "all://*a.example": None,
                "all://10.0.0.1": None,
                "all://localhost": None,
                "all://[::1]": None,
            },
        ),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, {}),
    ],
)
def test_the_proxies_of_the_environment_are_used(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: dict[str, Any]
) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert proxy_mounts(lambda url: url) == expected
