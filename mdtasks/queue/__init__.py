"""The only door to the broker: app, transport, enqueue, dead letters."""
