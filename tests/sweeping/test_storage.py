from __future__ import annotations

import importlib.util
import os

import pytest

from tidepool.sweeping import storage
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.ledger import Ledger


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "--storage: not a URL; expected postgresql://user@host/database or sqlite:///file"),
        ("postgresql://host:port/x", "--storage: not a URL"),
        ("mysql://host/x", "--storage: mysql: expected postgresql:// or sqlite:///"),
        ("sqlite://", "--storage: names no SQLite file; expected sqlite:///file"),
    ],
)
def test_urls_that_cannot_be_a_storage_are_refused(url, message):
    with pytest.raises(SweepError) as caught:
        storage.check_url(url)
    assert str(caught.value).startswith(message)


def test_a_missing_postgresql_driver_is_named(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SweepError, match=r"pip install 'psycopg\[binary\]'"):
        storage.check_url("postgresql://user@host/x")


def test_the_installed_postgresql_driver_is_used(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: name == "psycopg")
    assert storage.check_url("postgresql://user@host/x").drivername == "postgresql+psycopg"
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: name == "psycopg2")
    assert storage.check_url("postgresql://user@host/x").drivername == "postgresql"


def test_a_storage_that_does_not_open_is_one_line(tmp_path):
    (tmp_path / "broken.db").write_text("this is no database, but long enough to look like one" * 40)
    for name, reason in (("absent/x.db", "unable to open"), ("broken.db", "not a database")):
        with pytest.raises(SweepError, match=reason) as caught:
            storage.open_study(storage.check_url(f"sqlite:///{tmp_path / name}"), "x", maximize=(False,))
        assert str(caught.value).startswith("--storage: sqlite:///")
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not importlib.util.find_spec("psycopg"), reason="psycopg is not installed")
def test_a_server_that_is_not_there_is_one_line_without_the_password(monkeypatch):
    monkeypatch.setattr(storage, "OPEN_WAITS_S", (0.0,))
    with pytest.raises(SweepError, match="does not open") as caught:
        storage.open_study(storage.check_url("postgresql://me:secret@127.0.0.1:9/x"), "x", maximize=(False,))
    assert "secret" not in str(caught.value)


@pytest.mark.postgres
def test_two_processes_share_a_sweep_on_postgresql(read, tmp_path, postgres):
    url = postgres.url
    sweep = read(name=f"test-{os.getpid()}-{tmp_path.name}", description="margin=1 points")
    one, two = (Ledger(url, sweep, tmp_path / place) for place in ("one", "two"))
    one.store_sweep()
    for ledger in (one, two):
        ledger.plan(sweep.points())
    assert two.stored_sweep() == sweep.content
    taken = [ledger.claim() for ledger in (one, two, one, two)]
    assert [claim and claim.point.params["seed"] for claim in taken] == [0, 1, 2, None]
    one.finish(taken[0], "finished", values=(0.5,))
    two.put_back(taken[1], "interrupted", attempt=1)
    two.recover()
    assert [result.outcome for result in two.results()] == ["finished", "waiting", "running"]
    one.begin_anew()
    one.close()
    two.close()


def test_an_address_is_shown_as_people_write_it():
    url = storage.sqlalchemy.make_url("postgresql+psycopg://me:secret@host/x")
    assert storage.shown_url(url) == "postgresql://me:***@host/x"


def test_a_damaged_ledger_says_that_deleting_it_is_safe(tmp_path):
    (tmp_path / "sweep.db").write_text("this is no database, but long enough to look like one" * 40)
    with pytest.raises(SweepError, match=r"deleting .*sweep.db is safe: the same command makes it again from the fol"):
        storage.open_study(storage.check_url(f"sqlite:///{tmp_path / 'sweep.db'}"), "x", maximize=(False,))


@pytest.mark.postgres
def test_a_lock_on_postgresql_is_one_processs_at_a_time(postgres):
    engine = storage.sqlalchemy.create_engine(storage.check_url(postgres.url))
    with storage.held_server(engine, "a sweep"), storage.held_server(engine, "another"):
        query = storage.sqlalchemy.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        with engine.connect() as connection:
            assert connection.execute(query).scalar() == 2
    engine.dispose()


@pytest.mark.postgres
def test_a_server_that_is_restarted_is_waited_for(read, tmp_path, postgres, monkeypatch):
    sweep = read(name=f"restart-{tmp_path.name}")
    ledger = Ledger(postgres.url, sweep, tmp_path)
    ledger.plan(sweep.points())
    assert ledger.claim().point.params["seed"] == 0
    postgres.stop()
    waits = []

    def restart(error, seconds):
        waits.append(seconds)
        if len(waits) == 2:
            postgres.start()

    ledger.on_trouble = restart
    claim = ledger.claim()
    assert claim.point.params["seed"] == 1
    assert waits == [0.5, 1]
    ledger.finish(claim, "finished", values=(1.0,))
    ledger.recover()
    assert [result.outcome for result in ledger.results()] == ["running", "finished", "waiting"]
    ledger.close()
