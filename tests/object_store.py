"""A real S3 server, SeaweedFS's, with a bucket that takes one key alone."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.background import background
from tests.conftest import free_ports, wait_for

BUCKET = "store"
KEY: Mapping[str, str] = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "a key of this test"}


@dataclass(frozen=True)
class ObjectStore:
    """A server that is up."""

    address: str

    def listed(self) -> list[str]:
        """What is in the bucket."""
        return [found["Key"] for found in self._client().list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    def make_bucket(self) -> bool:
        """Make the bucket, unless the server is not ready yet."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client().create_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True

    def _client(self):  # type: ignore[no-untyped-def]  # boto3 has no types
        import boto3

        secret = {"aws_access_key_id": KEY["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": KEY["AWS_SECRET_ACCESS_KEY"]}
        return boto3.client("s3", endpoint_url=self.address, region_name="us-east-1", **secret)


@contextmanager
def running(folder: Path) -> Iterator[ObjectStore]:
    """Start the server over a folder of its own, with an empty bucket."""
    (folder / "weed").mkdir(parents=True)
    credentials = [{"accessKey": KEY["AWS_ACCESS_KEY_ID"], "secretKey": KEY["AWS_SECRET_ACCESS_KEY"]}]
    identities = [{"name": "somebody", "credentials": credentials, "actions": ["Admin", "Read", "List", "Write"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    names = ("s3.port", "master.port", "volume.port", "filer.port")
    ports = free_ports(8)
    flags = [f"-{name}={port}" for name, port in zip((*names, *(f"{n}.grpc" for n in names)), ports, strict=True)]
    command = [
        *(Path(sys.executable).with_name("weed"), "server", "-ip=127.0.0.1", f"-dir={folder / 'weed'}", "-s3"),
        *(f"-s3.config={folder / 's3.json'}", "-volume.max=8", "-master.volumeSizeLimitMB=1024", *flags),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),  # at ports of their own it would be one server a machine
    ]
    store = ObjectStore(f"http://127.0.0.1:{ports[0]}")
    with background(command, folder / "weed.log"):
        wait_for(store.make_bucket, 60)
        yield store
