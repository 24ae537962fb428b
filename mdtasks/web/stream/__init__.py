"""The live stream: bars as they are committed, to WebSockets and over plain HTTP, with positions to come back to."""
