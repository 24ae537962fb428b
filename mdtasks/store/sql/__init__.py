"""Named SQL statements, one file per module of store."""
