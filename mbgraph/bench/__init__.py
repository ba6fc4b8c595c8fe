"""Several runs side by side: collected into CSV files, rendered into pages."""
