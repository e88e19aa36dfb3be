"""The lake's catalog as a resource of dagster-duckdb. Imports duckdb: only steps that ask for the resource import this."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection

from egoworld_ops.lake.lake import Lake
from egoworld_ops.query.catalog import write_catalog


class Catalog(DuckDBResource):  # type: ignore[misc]
    """`egoworld.duckdb` of a lake, brought up to date whenever a connection is asked for.

    Not when it is made: Dagster makes all resources at the start of a job, when a new run has neither a folder nor views.
    """

    @contextmanager
    def get_connection(self) -> Iterator[DuckDBPyConnection]:
        """A connection, closed at the end.

        Raises:
            StorageUnavailable: as `write_catalog`.
        """
        write_catalog(Lake(Path(self.database).parent))
        with super().get_connection() as connection:
            yield connection
