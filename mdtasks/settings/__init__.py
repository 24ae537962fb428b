"""What a process is started with: URLs, secrets, paths and limits, read once from the environment.

Order of truth for the URLs: the environment, then the file that ``mdtasks up`` leaves in its home
(``connection.json``), so that ``celery -A mdtasks worker`` typed by hand in the same folder finds the running stack.
Unknown ``MDTASKS_*`` names are refused with the nearest known one: a typo never passes in silence.
"""

from mdtasks.settings.fields import Settings
from mdtasks.settings.overriding import policy_variables, under
from mdtasks.settings.sources import CONNECTION_FILE, ENVIRONMENT, load_settings, published, refuse_unknown, sealed

__all__ = [
    "CONNECTION_FILE",
    "ENVIRONMENT",
    "Settings",
    "load_settings",
    "policy_variables",
    "published",
    "refuse_unknown",
    "sealed",
    "under",
]
