"""The schema version in the metadata of Parquet files."""

from pathlib import Path
from typing import Final

import pyarrow as pa

from segloop.errors import SegloopError
from segloop.files import other_version

TABLE_SCHEMA: Final = 1
_VERSION: Final = b"segloop_schema"


def marked(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose file says of which version it is."""
    return schema.with_metadata({**(schema.metadata or {}), _VERSION: str(TABLE_SCHEMA).encode()})


def check_version(path: Path, schema: pa.Schema) -> None:
    """Refuse a file of another version; one that says nothing is of the first.

    Raises
    ------
    SegloopError
        With the file and what to do.
    """
    found = (schema.metadata or {}).get(_VERSION, str(TABLE_SCHEMA).encode()).decode("ascii", "replace")
    if found != str(TABLE_SCHEMA):
        raise SegloopError(other_version(path, found, TABLE_SCHEMA))
