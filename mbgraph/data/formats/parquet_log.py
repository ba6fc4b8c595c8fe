"""Event logs in Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mbgraph import limits
from mbgraph.data.formats.archive import check_unpacked
from mbgraph.data.formats.log_file import BLOCK, CHUNK_ROWS, LogFile, exact_tables, reading_log

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["PARQUET", "ParquetLog"]

PARQUET = b"PAR1"
_CELL = 8  # bytes of a number


class ParquetLog(LogFile):
    """A Parquet file of events."""

    kind = "Parquet"

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as parquet

        super().__init__(path)
        with reading_log(path), parquet.ParquetFile(path) as file:
            self.names = list(file.schema_arrow.names)
            self._types = dict(zip(self.names, file.schema_arrow.types, strict=True))
            self.size = file.metadata.num_rows
            limits.check("columns", len(self.names), path)
            # runs of one value take no room: a file says how many rows they stand for
            check_unpacked(path, path.stat().st_size, self.size * len(self.names) * _CELL)

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[tuple[pa.Table, int, int]]:
        """Yield tables."""
        yield from exact_tables(self._batches(list(wanted), rows), wanted, rows)

    def _batches(self, wanted: list[str], rows: int) -> Iterator[tuple[pa.RecordBatch, int]]:
        import pyarrow.parquet as parquet

        # texts that stand in a dictionary are left there until their length is known
        texts = [name for name, kind in self._types.items() if name in wanted and _is_text(kind)]
        # a buffer instead of whole row groups ahead: a writer may have put everything into one
        with parquet.ParquetFile(self.path, buffer_size=BLOCK, pre_buffer=False, read_dictionary=texts) as file:
            size = self.path.stat().st_size
            done = unpacked = 0
            for batch in file.iter_batches(batch_size=min(rows, CHUNK_ROWS), columns=wanted):
                for place, name in enumerate(batch.schema.names):
                    if name in texts:
                        unpacked += _length(batch.column(place))
                        check_unpacked(self.path, size, unpacked)
                        batch = batch.set_column(place, name, batch.column(place).dictionary_decode())
                done += batch.num_rows
                yield batch, done

    def frame(self, pieces: Sequence[pa.Table]) -> pd.DataFrame:
        """Return the columns in their own types; those of several files in one that holds all."""
        import pyarrow as pa

        table = pa.concat_tables(pieces, promote_options="permissive")
        # pandas' own notes in a Parquet file would hide a column that was an index
        return table.to_pandas(ignore_metadata=True)


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)


def _length(column: pa.DictionaryArray) -> int:
    """Return the bytes of all texts together, each as often as it stands there."""
    import pyarrow.compute as pc

    lengths = pc.binary_length(column.dictionary)
    return int(pc.sum(pc.take(lengths, column.indices).cast("int64")).as_py() or 0)
