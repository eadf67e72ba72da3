"""What stands in for `postgres:17-bookworm`: Debian's PostgreSQL, with as much of that image's entry point as is used.

Its contract (docker-library/docs, "How to extend this image"): POSTGRES_USER and POSTGRES_PASSWORD make a superuser and
a database of that name when the volume is empty; who comes over the network is asked for the password.
"""

import tempfile
from functools import cache
from pathlib import Path

from tests.images import build, debian
from tests.images.build import Image

_BIN = "/usr/lib/postgresql/15/bin"
_ENTRY = """#!/bin/sh
set -eu
if [ "$(id -u)" = 0 ]; then
    chown postgres "$PGDATA" && chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses=''" start
    createdb --username="$POSTGRES_USER" "$POSTGRES_USER"
    pg_ctl --wait stop
fi
exec "$@"
"""
_DOCKERFILE = f"""FROM {{base}}
COPY --chmod=755 entry /usr/local/bin/docker-entrypoint.sh
RUN install --directory --owner=postgres --mode=3777 /var/run/postgresql /var/lib/postgresql/data
ENV PATH={_BIN}:/usr/local/bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres", "-c", "listen_addresses=*"]
"""


@cache
def image() -> Image:
    """Make it, once a machine."""
    base = debian.image(("postgresql",))
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        Path(folder, "entry").write_text(_ENTRY)
        Path(folder, "Dockerfile").write_text(_DOCKERFILE.format(base=base))
        return build.build(Path(folder, "Dockerfile"), "postgres:standin", context=Path(folder), kind="base")
