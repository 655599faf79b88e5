"""Each setting of arq's works on a pool or is refused by its name with the reason (docs/arq.md)."""

from __future__ import annotations

import inspect
from dataclasses import fields

import arq.connections
import pytest
from arq.connections import RedisSettings
from arq.cron import cron
from arq.worker import Worker

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.server.urls import parse_url
from forebay.workers.arq.pool import create_pool
from forebay.workers.arq.settings import (
    ELSEWHERE,
    REFUSED,
    REFUSED_OF_CREATE_POOL,
    WORKING,
    check_settings,
    named_functions,
    pool_of,
    settings_of,
    url_of,
)


async def job(ctx):
    """Do nothing."""


class WorkerSettings:
    """An application's settings, with an attribute of its own."""

    functions = (job,)
    max_jobs = 7
    own_attribute = "the program's"


# -- every one of arq's is known


def test_every_setting_of_arqs_worker_is_decided_upon():
    assert {*WORKING, *REFUSED, *ELSEWHERE} == {*inspect.signature(Worker).parameters}
    assert len(WORKING) + len(REFUSED) + len(ELSEWHERE) == len(inspect.signature(Worker).parameters)


def test_every_argument_of_arqs_create_pool_is_decided_upon():
    theirs = {*inspect.signature(arq.connections.create_pool).parameters}
    ours = {*inspect.signature(create_pool).parameters} - {"arqs"}
    assert theirs == {*REFUSED_OF_CREATE_POOL} | (theirs & ours)
    assert theirs & ours == {"expires_extra_ms"}


def test_every_field_of_arqs_redis_settings_is_in_the_url_or_refused():
    other = {
        "host": "there",
        "port": 7000,
        "database": 3,
        "username": "me",
        "password": "p@ss",
        "ssl_cert_reqs": "none",
        "conn_timeout": 9,
        "conn_retries": 9,
        "conn_retry_delay": 9,
        "sentinel_master": "other",
        "ssl": True,
        "ssl_check_hostname": True,
        "sentinel": True,
        "retry_on_timeout": True,
        "max_connections": 9,
        "retry_on_error": [OSError],
        "retry": object(),
    }
    works, refused = set(), set()
    for field in fields(RedisSettings):
        settings = RedisSettings(**{field.name: other.get(field.name, "/some/file")})
        try:
            parse_url(url_of(settings))
            works.add(field.name)
        except ConfigurationError as error:
            assert field.name in str(error)  # noqa: PT017 - of each of many
            refused.add(field.name)
    assert works == {
        *("host", "port", "database", "username", "password", "unix_socket_path", "ssl"),
        *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_check_hostname"),
    }
    assert works | refused == {field.name for field in fields(RedisSettings)}


# -- what a settings class says


def test_a_settings_class_says_what_arq_knows_of_and_its_own_attributes_are_left_out():
    assert settings_of(WorkerSettings) == {"functions": (job,), "max_jobs": 7}


def test_what_a_settings_class_inherits_counts():
    class Production(WorkerSettings):
        max_jobs = 50

    assert settings_of(Production) == {"functions": (job,), "max_jobs": 50}


def test_settings_may_be_a_dict_as_in_arq():
    assert settings_of({"functions": [job], "burst": True}) == {"functions": [job], "burst": True}
    with pytest.raises(ConfigurationError, match="the settings sets job_serializer"):
        settings_of({"functions": [job], "job_serializer": print}) and None


@pytest.mark.parametrize("settings", [{}, {"functions": []}, {"functions": None, "cron_jobs": []}])
def test_settings_that_name_no_function_are_refused(settings):
    with pytest.raises(ConfigurationError, match="names no functions and no cron_jobs"):
        settings_of(type("Empty", (), settings))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_setting_that_a_pool_does_not_take_is_refused_by_its_name(name):
    class Refused(WorkerSettings):
        pass

    setattr(Refused, name, True)
    with pytest.raises(ConfigurationError, match=f"^Refused sets {name}, which a pool does not"):
        check_settings(settings_of(Refused), "Refused")
    with pytest.raises(ConfigurationError, match=f"^a worker sets {name}, which a pool does not"):
        check_settings({name: True})


@pytest.mark.parametrize("name", sorted({*REFUSED} - {"log_results"}))
def test_a_setting_that_asks_for_nothing_is_taken(name):
    check_settings({name: None})
    check_settings({"log_results": False})


def test_an_unknown_setting_is_refused_by_its_name():
    with pytest.raises(ConfigurationError, match="a worker sets 'max_job', expected a setting of"):
        check_settings({"max_job": 3})


# -- where its jobs are


@pytest.mark.parametrize("queue", [None, "arq:queue"])
def test_a_pool_that_is_not_said_is_default(queue):
    assert pool_of(None, {"queue_name": queue}) == "default"
    assert pool_of("app", {"queue_name": queue}) == "app"


def test_a_queue_of_arqs_is_refused_until_a_pool_is_said():
    with pytest.raises(ConfigurationError, match=r"queue_name 'mails'.*pool=.*--pool"):
        pool_of(None, {"queue_name": "mails"})
    assert pool_of("app", {"queue_name": "mails"}) == "app"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (RedisSettings(), "redis://localhost:6379/0"),
        (
            RedisSettings(host="h", port=7, database=2, username="u:1", password="a/b@c"),
            "redis://u%3A1:a%2Fb%40c@h:7/2",
        ),
        (RedisSettings(password="p"), "redis://:p@localhost:6379/0"),
        (RedisSettings(host="::1"), "redis://[::1]:6379/0"),
        (RedisSettings(host="h", ssl=True), "rediss://h:6379/0"),
        (
            RedisSettings(host="h", ssl=True, ssl_ca_certs="/a b.pem"),
            "rediss://h:6379/0?ssl_ca_certs=%2Fa+b.pem",
        ),
        (
            RedisSettings(unix_socket_path="/run/a b.sock", database=1),
            "unix:///run/a%20b.sock?db=1",
        ),
        (RedisSettings.from_dsn("redis://me:secret@h:1/5"), "redis://me:secret@h:1/5"),
    ],
)
def test_arqs_own_address_is_a_url_that_says_the_same(settings, url):
    assert url_of(settings) == url
    parsed = parse_url(url)
    assert (parsed.username, parsed.password) == (settings.username, settings.password)
    assert parsed.database == settings.database
    if settings.unix_socket_path:
        assert parsed.path == settings.unix_socket_path
    else:
        assert (parsed.host, parsed.port) == (settings.host, settings.port)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (RedisSettings(host=[("a", 1), ("b", 2)], sentinel=True), "sentinel"),
        (RedisSettings(host=[("a", 1)]), "several hosts"),
        ("redis://localhost", "of type str"),
    ],
)
def test_an_address_that_no_url_can_say_is_refused(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        url_of(settings)


# -- functions and cron jobs


def test_functions_are_named_as_arq_names_them():
    named, crons = named_functions([job, "asyncio.sleep"], [cron(job, hour=3)])
    assert [one.name for one in named] == ["job", "asyncio.sleep"]
    assert [one.name for one in crons] == ["cron:job"]
    assert named_functions(None, None) == ([], [])


@pytest.mark.parametrize("function", [print, "nowhere.job", "asyncio.no_such", 3])
def test_what_is_no_function_of_arqs_is_refused(function):
    with pytest.raises(ConfigurationError, match="a function of the worker cannot be used"):
        named_functions([function], None)


def test_a_function_that_is_no_cron_job_is_refused_among_them():
    with pytest.raises(ConfigurationError, match=r"cron_jobs holds .*wrap it: cron"):
        named_functions([], [job])


# -- create_pool


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [
        ({"retry": 3}, "settings="),
        ({"job_serializer": print}, "serializer='msgpack'"),
        ({"job_deserializer": print}, "serializer='msgpack'"),
        ({"default_queue_name": "arq:queue"}, "pool="),
        ({"settings_": RedisSettings()}, "url"),
        ({"piol": "app"}, "expected one of url, pool, serializer, settings, expires_extra_ms"),
    ],
    ids=str,
)
async def test_an_argument_of_arqs_create_pool_is_refused_by_its_name(argument, remedy):
    (name,) = argument
    with pytest.raises(ConfigurationError, match=f"create_pool got {name}, which.*{remedy}"):
        await create_pool("redis://127.0.0.1:1", **argument)
