"""Event logs in Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mbgraph.data.formats.log_file import BLOCK, CHUNK_ROWS, LogFile, exact_tables, reading

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["PARQUET", "ParquetLog"]

PARQUET = b"PAR1"


class ParquetLog(LogFile):
    """A Parquet file of events."""

    kind = "Parquet"

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as parquet

        super().__init__(path)
        with reading(path), parquet.ParquetFile(path) as file:
            self.names = list(file.schema_arrow.names)
            self.size = file.metadata.num_rows

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[tuple[pa.Table, int, int]]:
        """Yield tables."""
        yield from exact_tables(self._batches(list(wanted), rows), wanted, rows)

    def _batches(self, wanted: list[str], rows: int) -> Iterator[tuple[pa.RecordBatch, int]]:
        import pyarrow.parquet as parquet

        # a buffer instead of whole row groups ahead: a writer may have put everything into one
        with parquet.ParquetFile(self.path, buffer_size=BLOCK, pre_buffer=False) as file:
            done = 0
            for batch in file.iter_batches(batch_size=min(rows, CHUNK_ROWS), columns=wanted):
                done += batch.num_rows
                yield batch, done

    def frame(self, pieces: Sequence[pa.Table]) -> pd.DataFrame:
        """Return the columns in their own types; those of several files in one that holds all."""
        import pyarrow as pa

        table = pa.concat_tables(pieces, promote_options="permissive")
        # pandas' own notes in a Parquet file would hide a column that was an index
        return table.to_pandas(ignore_metadata=True)
