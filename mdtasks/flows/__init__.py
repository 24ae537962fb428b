"""Use cases, where adapters meet."""
