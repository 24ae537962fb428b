"""PostgreSQL at rest."""
