"""The HTTP edge: thin endpoints over flows and store."""
