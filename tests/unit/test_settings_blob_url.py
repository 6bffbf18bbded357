"""Settings: where raw messages lie, and what does not go together there."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_text import PASSWORD, load, refused

from mailmill.settings import load_settings
from mailmill.settings.blob_urls import BlobUrl


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://our-mail", BlobUrl("s3", bucket="our-mail")),
        ("s3://our-mail/", BlobUrl("s3", bucket="our-mail")),
        ("s3://our.mail/some/prefix/", BlobUrl("s3", bucket="our.mail", prefix="some/prefix")),
        ("gs://our_mail/x", BlobUrl("gs", bucket="our_mail", prefix="x")),
        ("az://mail/x", BlobUrl("az", bucket="mail", prefix="x")),
        ("file:///mnt/our%20mail", BlobUrl("file", folder=Path("/mnt/our mail"))),
        ("file://localhost/mnt/mail", BlobUrl("file", folder=Path("/mnt/mail"))),
    ],
)
def test_where_raw_messages_lie(config: Path, url: str, place: BlobUrl) -> None:
    assert load(config, MAILMILL_SERVICE__BLOB_URL=url).service.blob_place == place


def test_without_a_url_they_lie_in_the_data_folder(config: Path) -> None:
    assert load(config).service.blob_place is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("our-mail", "wants s3://BUCKET/PREFIX"),
        ("https://our-mail/x", "wants s3://BUCKET/PREFIX"),
        ("s3:///prefix", "names no bucket"),
        ("s3://a/prefix", "names no bucket"),
        ("s3://our-mail/a//b", "has a prefix of other characters"),
        ("s3://our-mail/../b", "has a prefix of other characters"),
        ("s3://our-mail/a b", "has a prefix of other characters"),
        ("s3://our-mail/a?region=x", "after '?' or '#'"),
        (f"s3://key:{PASSWORD}@our-mail/a", "carries credentials"),
        ("file://mail", "an absolute path after three slashes"),
        ("file:///", "an absolute path after three slashes"),
        ("file://host/mail", "an absolute path after three slashes"),
        ("s3://[x", "wants s3://BUCKET/PREFIX"),
    ],
)
def test_a_blob_url_that_cannot_be(config: Path, url: str, said: str) -> None:
    error = refused(config, f"[service]\nblob_url = {url!r}\n")
    assert "'service.blob_url'" in str(error)
    assert said in str(error)


@pytest.mark.parametrize(
    ("keys", "key", "said"),
    [
        ("blob_region = 'x'", "blob_region", "goes with a service.blob_url of s3:// only"),
        ("blob_url = 'gs://our-mail'\nblob_endpoint = 'https://h'", "blob_endpoint", "s3:// only"),
        (
            "blob_url = 's3://our-mail'\nblob_access_key_id = 'x'",
            "blob_secret_access_key",
            "is missing: the two halves of a key",
        ),
        (
            f"blob_url = 's3://our-mail'\nblob_secret_access_key = '{PASSWORD}'",
            "blob_access_key_id",
            "is missing: the two halves of a key",
        ),
        ("blob_url = 's3://our-mail'\nblob_endpoint = 'minio:9000'", "blob_endpoint", "wants https://HOST"),
        (
            f"blob_url = 's3://our-mail'\nblob_endpoint = 'https://u:{PASSWORD}@h'",
            "blob_endpoint",
            "wants https://HOST",
        ),
        ("blob_url = 's3://our-mail'\nblob_endpoint = 'https://h/path'", "blob_endpoint", "wants https://HOST"),
        ("blob_url = 's3://our-mail'\nblob_endpoint = 'http://minio:9000'", "blob_endpoint", "minio in the clear"),
    ],
)
def test_what_does_not_go_with_the_blob_url(config: Path, keys: str, key: str, said: str) -> None:
    error = refused(config, f"[service]\n{keys}\n")
    assert f"'service.{key}'" in str(error)
    assert said in str(error)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000/", "http://localhost:9000", "https://minio.example.org"])
def test_an_endpoint_that_can_be(config: Path, endpoint: str) -> None:
    text = f"[service]\nblob_url = 's3://our-mail'\nblob_endpoint = '{endpoint}'\n"
    assert load(config, text).service.blob_endpoint == endpoint.rstrip("/")
    insecure = "[service]\nblob_url='s3://our-mail'\nblob_endpoint='http://minio:1'\nblob_allow_insecure=true\n"
    assert load(config, insecure).service.blob_endpoint == "http://minio:1"


def test_the_secret_of_the_object_store_is_not_shown(config: Path) -> None:
    text = f"[service]\nblob_url='s3://our-mail'\nblob_access_key_id='x'\nblob_secret_access_key='{PASSWORD}'\n"
    assert PASSWORD not in repr(load(config, text))
    config.chmod(0o644)
    assert "service.blob_secret_access_key" in load_settings(config, {"HOME": str(config.parent)}).warnings[0]
