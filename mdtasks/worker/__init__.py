"""Celery side: tasks, schedule, hooks, consumer."""
