"""Parquet files with a fixed layout: the same rows always give the same bytes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from segloop import integrity
from segloop.errors import SegloopError
from segloop.files import atomic_file
from segloop.parquet import check_version, marked


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table, whole or not at all, with a checksum beside it."""
    table = table.replace_schema_metadata(marked(table.schema).metadata)
    with atomic_file(path, sealed=True) as temporary:
        # Everything that could change the bytes is said here, so that no default of a later version does.
        pq.write_table(
            table,
            temporary,
            row_group_size=1 << 20,
            version="2.6",
            compression="zstd",
            compression_level=3,
            use_dictionary=True,
            write_statistics=True,
            data_page_version="1.0",
        )


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table and check its columns.

    Parameters
    ----------
    schema
        Columns that the file must have, in this order; its metadata is not compared.

    Raises
    ------
    SegloopError
        If the file is missing, damaged, or of another layout or schema version.
    """
    integrity.check(path)
    try:
        table = pq.read_table(path, memory_map=False)
    except FileNotFoundError:
        raise SegloopError(f"{path} does not exist. Run the rule that makes it, or check the path.") from None
    except (pa.ArrowException, OSError) as error:
        raise SegloopError(f"{path} is not a readable Parquet file ({error}). Remove it and make it again.") from None
    check_version(path, table.schema)
    if not table.schema.equals(schema, check_metadata=False):
        wrong = [name for name in schema.names if name not in table.schema.names] or "other types or order"
        raise SegloopError(
            f"{path} was written by another version of segloop (columns missing or changed: {wrong}). Make it again."
        )
    return table
