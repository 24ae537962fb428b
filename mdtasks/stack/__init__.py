"""The servers and processes that `mdtasks up` runs."""
