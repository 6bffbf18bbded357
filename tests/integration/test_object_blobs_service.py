"""The whole application with its raw messages in an object store, or on a mount, or in a place that is not there."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from blockbuster import BlockBuster

from harness import stores
from mailmill.app.application import open_application
from mailmill.app.use_cases import UseCases
from mailmill.cli.diagnosis import raw_messages
from mailmill.errors import StorageRefusedError, StorageUnavailableError, StoreError
from mailmill.settings import Settings, load_settings
from servers.ports import free_ports
from servers.s3 import ACCESS_KEY_ID, S3, SECRET_ACCESS_KEY

Configure = Callable[..., Settings]


@pytest.fixture(autouse=True)
def processors_are_imported_at_the_start(blockbuster: BlockBuster) -> None:
    """Before anything runs, imports and their metadata may be read on the loop."""
    for function in blockbuster.functions.values():
        function.can_block_in("mailmill/app/wiring.py", {"processors"})


@pytest.fixture
def configured(tmp_path: Path, data_dir: Path) -> Configure:
    """``configured(blob_url=…, …)``: settings with these keys of the service."""
    config = tmp_path / "config.toml"
    config.touch(mode=0o600)

    def load(**service: Any) -> Settings:
        given = {f"MAILMILL_SERVICE__{name.upper()}": str(value) for name, value in service.items()}
        where = {"DATA_DIR": str(data_dir), "DATABASE_URL": stores.database_url(data_dir)}
        given = {f"MAILMILL_SERVICE__{name}": value for name, value in where.items()} | {"HOME": str(tmp_path)} | given
        return load_settings(config, given)

    return load


def on(s3: S3, bucket: str, port: int | None = None) -> dict[str, str]:
    return {
        "blob_url": f"s3://{bucket}/mail",
        "blob_endpoint": f"http://{s3.host}:{port or s3.port}",
        "blob_region": "us-east-1",
        "blob_access_key_id": ACCESS_KEY_ID,
        "blob_secret_access_key": SECRET_ACCESS_KEY,
    }


@pytest.mark.both_databases
async def test_an_application_keeps_its_mail_in_a_bucket(s3: S3, configured: Configure, tmp_path: Path) -> None:
    bucket = await s3.new_bucket()
    settings = await asyncio.to_thread(configured, **on(s3, bucket))
    async with open_application(settings) as application:
        [ref] = await application.blobs.put_batch([b"content"])
        metrics = (await UseCases(application).metrics()).decode()
        assert "mailmill_blobs_reachable 1.0" in metrics
        assert 'mailmill_blob_seconds_count{operation="put"} 1.0' in metrics
    assert await s3.keys(bucket) == ["mail/mailmill-store", f"mail/segments/{ref.segment}"]
    assert not await asyncio.to_thread((tmp_path / "data" / "blobs").exists)
    async with open_application(settings) as application:
        assert await application.blobs.get(ref) == b"content"
    [check] = await raw_messages.look(settings)
    assert (check.level, check.text) == ("ok", f"s3://{bucket}/mail, in use")


@pytest.mark.both_databases
async def test_it_starts_while_the_object_store_is_away(s3: S3, configured: Configure) -> None:
    bucket = await s3.new_bucket()
    [nobody] = free_ports(1)
    settings = await asyncio.to_thread(configured, **on(s3, bucket, nobody))
    with structlog.testing.capture_logs() as logs:
        async with open_application(settings) as application:
            assert type(application.blobs.trouble) is StorageUnavailableError
            assert "mailmill_blobs_reachable 0.0" in (await UseCases(application).metrics()).decode()
    [told] = [line for line in logs if line["event"] == "started while raw messages cannot be had"]
    assert f"s3://{bucket}/mail" in told["error"]
    assert told["hint"]
    assert SECRET_ACCESS_KEY not in str(logs)
    [check] = await raw_messages.look(settings)
    assert (check.level, check.code) == ("fail", "storageUnavailable")


async def test_it_does_not_start_without_its_bucket(s3: S3, configured: Configure) -> None:
    settings = await asyncio.to_thread(configured, **on(s3, "not-there"))
    with pytest.raises(StorageRefusedError, match="no bucket 'not-there'"):
        async with open_application(settings):
            pass
    [check] = await raw_messages.look(settings)
    assert (check.level, check.code) == ("fail", "storageRefused")


async def test_it_does_not_start_on_a_mount_that_lost_its_mail(configured: Configure, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    settings = await asyncio.to_thread(configured, blob_url=f"file://{mount}")
    [check] = await raw_messages.look(settings)
    assert check.level == "warn"
    assert "mount it first" in check.remedy
    async with open_application(settings) as application:
        assert application.blobs.segments_folder == mount / "segments"
    [check] = await raw_messages.look(settings)
    assert (check.level, check.text) == ("ok", str(mount))
    # Another store's mail, where ours was.
    await asyncio.to_thread((mount / "mailmill-store").write_text, "another\n")
    with pytest.raises(StoreError, match="another store"):
        async with open_application(settings):
            pass


@pytest.mark.parametrize("shared", [False, True])
async def test_a_node_of_a_fleet_says_that_its_folder_is_its_own(
    configured: Configure, postgres_url: str, tmp_path: Path, shared: bool
) -> None:
    given = {"database_url": postgres_url} | ({"blob_url": f"file://{tmp_path / 'shared'}"} if shared else {})
    settings = await asyncio.to_thread(configured, **given)
    with structlog.testing.capture_logs() as logs:
        async with open_application(settings):
            pass
    told = [line for line in logs if "other nodes cannot read" in line["event"]]
    assert len(told) == (0 if shared else 1)
    assert all("service.blob_url" in line["hint"] for line in told)
    [check] = await raw_messages.look(settings)
    assert check.level == ("ok" if shared else "warn")


async def test_one_process_on_sqlite_is_told_nothing(configured: Configure) -> None:
    settings = await asyncio.to_thread(configured)
    with structlog.testing.capture_logs() as logs:
        async with open_application(settings):
            pass
    assert [line for line in logs if "nodes" in line["event"]] == []
    assert await raw_messages.look(settings) == []


async def test_a_command_that_looks_makes_no_place_the_stores(
    configured: Configure, postgres_url: str, tmp_path: Path
) -> None:
    """Or the folder of whoever typed it would keep the nodes from their own."""
    await asyncio.to_thread((tmp_path / "key").write_text, base64.urlsafe_b64encode(bytes(32)).decode())
    given = {"database_url": postgres_url, "key_file": tmp_path / "key"}
    beside = await asyncio.to_thread(configured, data_dir=tmp_path / "beside", **given)
    async with open_application(beside, for_command=True) as application:
        await UseCases(application).status()
    assert not await asyncio.to_thread((tmp_path / "beside" / "blobs").exists)
    settings = await asyncio.to_thread(configured, **given)
    async with open_application(settings):
        pass
    with pytest.raises(StoreError, match="does not hold"):
        async with open_application(beside):
            pass
