from __future__ import annotations

from pathlib import Path

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.server.address import (
    ClusterAddress,
    EmbeddedAddress,
    SentinelAddress,
    TcpAddress,
    TlsFiles,
    UnixAddress,
)
from forebay.coordinator.server.urls import mask_url, parse_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://example.org", TcpAddress(host="example.org")),
        ("redis://example.org:7000/3", TcpAddress(host="example.org", port=7000, database=3)),
        (" redis://example.org/\n", TcpAddress(host="example.org")),
        ("REDIS://[::1]:7000/0", TcpAddress(host="::1", port=7000)),
        (
            "redis://ann:p%40ss%2Fw@example.org",
            TcpAddress(host="example.org", username="ann", password="p@ss/w"),
        ),
        ("redis://:hunter2@example.org", TcpAddress(host="example.org", password=SECRET)),
        ("rediss://example.org", TcpAddress(host="example.org", tls=TlsFiles())),
        (
            "rediss://example.org?ssl_ca_certs=/ca.pem&ssl_certfile=/me.pem&ssl_keyfile=/me.key",
            TcpAddress(
                host="example.org",
                tls=TlsFiles(ca_file="/ca.pem", cert_file="/me.pem", key_file="/me.key"),
            ),
        ),
        ("redis://example.org?db=3", TcpAddress(host="example.org", database=3)),
        ("redis://example.org/3?db=3", TcpAddress(host="example.org", database=3)),
        ("redis://example.org:7000/3/", TcpAddress(host="example.org", port=7000, database=3)),
        ("redis://example.org/%33", TcpAddress(host="example.org", database=3)),
        ("valkey://example.org/3", TcpAddress(host="example.org", database=3)),
        ("valkeys://example.org/3", TcpAddress(host="example.org", database=3, tls=TlsFiles())),
        (
            "rediss://:hunter2@example.org:7000?ssl_cert_reqs=none",
            TcpAddress(
                host="example.org", port=7000, password=SECRET, tls=TlsFiles(verifies="nothing")
            ),
        ),
        (
            "rediss://example.org?ssl_cert_reqs=CERT_REQUIRED&ssl_check_hostname=False",
            TcpAddress(host="example.org", tls=TlsFiles(verifies="certificate")),
        ),
        (
            "rediss://example.org?ssl_cert_reqs=required&ssl_check_hostname=true",
            TcpAddress(host="example.org", tls=TlsFiles()),
        ),
        ("redis+cluster://a,b:7000/", ClusterAddress(nodes=(("a", 6379), ("b", 7000)))),
        (
            "valkeys+cluster://ann:hunter2@[::1]?ssl_ca_certs=/ca.pem",
            ClusterAddress(
                nodes=(("::1", 6379),),
                username="ann",
                password=SECRET,
                tls=TlsFiles(ca_file="/ca.pem"),
            ),
        ),
        (
            "redis+sentinel://a/main",
            SentinelAddress(sentinels=(("a", 26379),), service="main"),
        ),
        (
            "valkey+sentinel://ann:hunter2@a:1,[::1]:2/a%20b/3?sentinel_username=s&sentinel_password=hunter2",
            SentinelAddress(
                sentinels=(("a", 1), ("::1", 2)),
                service="a b",
                database=3,
                username="ann",
                password=SECRET,
                sentinel_username="s",
                sentinel_password=SECRET,
            ),
        ),
        ("unix:///run/redis.sock", UnixAddress(path="/run/redis.sock")),
        ("unix:///a%20b/s?db=2", UnixAddress(path="/a b/s", database=2)),
        (
            "unix://ann:hunter2@/run/s",
            UnixAddress(path="/run/s", username="ann", password=SECRET),
        ),
    ],
)
def test_a_server_url_says_where_and_as_whom(url, address):
    assert parse_url(url) == address


def test_embedded_names_are_folders_under_the_users_data(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert parse_url("embedded://") == EmbeddedAddress(data_dir=Path("/data/forebay/default"))
    assert parse_url("embedded://My.run-1") == EmbeddedAddress(
        data_dir=Path("/data/forebay/My.run-1")
    )


@pytest.mark.parametrize("data_home", ["", "relative/folder"])
def test_without_a_usable_xdg_folder_data_go_to_the_home_folder(monkeypatch, data_home):
    monkeypatch.setenv("XDG_DATA_HOME", data_home)
    monkeypatch.setenv("HOME", "/home/ann")
    assert parse_url("embedded://x") == EmbeddedAddress(
        data_dir=Path("/home/ann/.local/share/forebay/x")
    )


def test_embedded_takes_an_absolute_folder():
    assert parse_url("embedded:///srv/a%20b/../c/") == EmbeddedAddress(data_dir=Path("/srv/c"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://example.org",
        "redis:example.org",
        "redis://",
        "redis://:6379",
        "redis://example.org:port",
        "redis://example.org:70000",
        "redis://example.org:0",
        "redis://[::1",
        "redis://example.org/one",
        "redis://example.org/-1",
        "redis://example.org/0?ssl_ca_certs=/ca.pem",
        "redis://example.org?ssl_cert_reqs=none",
        "rediss://example.org?ssl_cert_reqs=optional",
        "rediss://example.org?ssl_check_hostname=perhaps",
        "redis://example.org?db=1&db=1",
        "redis://example.org/0?db=1",
        "redis://example.org/?db=one",
        "redis://example.org/0/1",
        "redis://example.org#0",
        "unix://",
        "unix:///",
        "unix://relative/path",
        "redis+sentinel://a:26379",
        "redis+sentinel://a:26379,/main",
        "redis+sentinel://a:x/main",
        "redis+sentinel://a/main/one",
        "redis+sentinel://a/main/0?db=1",
        "redis+sentinel:///main",
        "unix:///run/s?db=one",
        "unix:///run/s?database=1",
        "embedded:///",
        "embedded://name/more",
        "embedded://..",
        "embedded://na%20me",
        "embedded://name?db=1",
    ],
)
def test_any_other_url_is_refused_with_its_name_and_a_remedy(url):
    with pytest.raises(ConfigurationError) as refusal:
        parse_url(url)
    message = str(refusal.value)
    assert repr(mask_url(url)) in message
    assert "expected embedded://" in message
    assert "correct the URL" in message


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("redis://h?health_check_interval=30", "write the URL without health_check_interval"),
        (
            "rediss://h?ssl_cert_reqs=none&socket_timeout=5&protocol=3",
            "write the URL without socket_timeout and protocol",
        ),
        ("redis://h?max_connections=20", "write the URL without max_connections"),
        ("redis://h?username=ann&password=hunter2", "write user:password@host"),
        ("unix:///run/s?password=hunter2", "write unix://user:password@/path"),
        ("redis://h?ssl=true", "write rediss://"),
        ("redis://h?ssl_ca_certs=/ca.pem", "write rediss://"),
        ("redis://h/0?db=1", "write one of them"),
        ("redis+socket:///run/s?virtual_host=1", "write unix:///absolute/path"),
        ("unix:///run/s?virtual_host=1", "write db"),
        ("tcp://h:6379", "write redis://"),
        ("sentinel://h:26379;sentinel://i:26379", "write redis+sentinel://"),
        ("redis+sentinel://a:26379", "write each Sentinel and the service"),
        ("redis+tls://h:6379", "write rediss://"),
        ("https://name.upstash.example", "write the server's redis:// or rediss:// URL"),
        ("localhost:6379", "write redis://host:port"),
        ("redis://a:6379,b:6379/0", "write one server, redis+cluster://"),
        ("cluster://a:6379", "write redis+cluster://"),
        ("redis+cluster://a:6379/1", "leave the path out"),
        ("redis+cluster://a:6379?db=1", "leave db out"),
        ("valkey+cluster://a:6379?ssl_ca_certs=/ca.pem", "write rediss+cluster://"),
        ("redis+cluster://a:6379,", "a host is missing"),
    ],
)
def test_a_form_of_another_library_is_answered_with_the_form_to_write(url, form):
    with pytest.raises(ConfigurationError) as refusal:
        parse_url(url)
    assert form in str(refusal.value)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("scheme", ["rediss+sentinel", "valkeys+sentinel"])
def test_topologies_of_later_versions_are_refused_by_name(scheme):
    with pytest.raises(ConfigurationError, match="not supported by this version yet"):
        parse_url(f"{scheme}://a:1,b:2/main")


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:hunter2@example.org:6379/0",
        "rediss://:hunter2@[::1]/0",
        "unix://:hunter2@/run/s?db=1",
        "redis+sentinel://:hunter2@a:1/main?sentinel_password=hunter2",
        "rediss+cluster://ann:hunter2@a:1,[::1]:2",
    ],
)
def test_no_text_of_an_address_shows_its_password(url):
    address = parse_url(url)
    assert not isinstance(address, EmbeddedAddress)
    assert address.password == SECRET
    for text in (str(address), repr(address), f"{address}", repr([address])):
        assert SECRET not in text
    assert "***" in str(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://ann:hunter2@example.org",
        "redis://ann:hunter2@example.org:port/0",
        "redis://ann:a/hunter2@example.org",
        "redis://ann:a#hunter2@example.org",
        "redis://ann:a?b=hunter2@example.org",
        "redis://ann:a@hunter2@example.org/x",
        "redis://ann:[hunter2@example.org",
        "redis://:hunter2",
        "redis://:1,hunter2",
        "redis://ann:1,hunter2",
        "redis://[::1]:hunter2",
        "redis+sentinel://:hunter2,b:2/main",
        "redis+cluster://:hunter2,b:2",
        "redis://ann:hunter2/0",
        "redis:hunter2@example.org",
        "ann:hunter2@example.org",
        "redis://example.org/0?password=hunter2",
        "redis+sentinel://:hunter2@a:1,b:2",
        "redis+sentinel://a:1,b:2/main?sentinel_password=hunter2&sentinel_user=x",
        "embedded://ann:hunter2@name",
    ],
)
def test_no_refusal_shows_a_password(url):
    with pytest.raises(ConfigurationError) as refusal:
        parse_url(url)
    error: BaseException | None = refusal.value
    assert SECRET not in str(error)
    # what a traceback would print as the cause
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        "redis://example.org:6379/0",
        "redis://[::1]:7000/2",
        "rediss://example.org:6380/1",
        "rediss://example.org:6380/1?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none",
        "rediss://example.org:6380/1?ssl_check_hostname=false",
        "unix:///a%20b/s?db=2",
        "redis+sentinel://a:1,[::1]:2/main/3",
        "embedded:///srv/a%20b",
    ],
)
def test_an_address_without_a_password_is_written_as_its_url(url):
    assert str(parse_url(url)) == url


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:26379,b:26380",
        "redis+sentinel://***@a:26379,[::1]:26380,c/main?db=x",
        "rediss+sentinel://a:26379,b/main",
        "redis://a:6379,b:6380/0",
        "redis://[::1]:6379/x",
    ],
)
def test_a_refusal_shows_every_host_and_port(url):
    with pytest.raises(ConfigurationError) as refusal:
        parse_url(url)
    assert repr(url) in str(refusal.value)
