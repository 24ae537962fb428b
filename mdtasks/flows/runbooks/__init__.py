"""Runbooks: the texts people read, and the looks at a live system that say which of their causes it is."""
