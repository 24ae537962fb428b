"""Static Celery options, each with its reason. URLs, caps and limits come from Settings in ``queue.app``.

It lives inside the package: a top-level module of this name would be taken by any other Celery app of the same
environment, and one in the user's folder would be taken for ours.
"""

# -- a message is acknowledged when its effect is committed, never before --------------------------
task_acks_late = True
#: What fails for good is rejected, and our transport buries what is rejected.
task_acks_on_failure = False
#: False would requeue a timed-out task for ever; our Request turns this ack into a burial.
task_acks_on_timeout = True
#: Both would run a job that kills its worker without end; the job row counts attempts instead.
task_reject_on_worker_lost = False
task_retry_on_worker_lost = False
#: Seconds that the result of a child that died may still be read: Celery's 10 s delays the next attempt most.
worker_lost_wait = 1.0

# -- one job per process at a time: a short one never waits behind a long one ----------------------
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
#: Delays live in PostgreSQL; a stray ETA task must not fill a worker's memory.
worker_eta_task_limit = 100

# -- results are rows in PostgreSQL ----------------------------------------------------------------
task_ignore_result = True
task_store_errors_even_if_ignored = False

# -- Redis may go away at any time -----------------------------------------------------------------
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_pool_acquire_timeout = 10
#: A broker blip must not kill work under way: every effect is fenced by its job row.
worker_cancel_long_running_tasks_on_connection_loss = False

# -- shutdown: finish what is held, within the 15 s that `mdtasks down` gives ----------------------
worker_soft_shutdown_timeout = 0.0
worker_proc_alive_timeout = 30.0

# -- wire ------------------------------------------------------------------------------------------
accept_content = ["json"]
task_serializer = "json"
enable_utc = True
timezone = "UTC"
task_create_missing_queues = False
task_default_queue = "control"
task_default_delivery_mode = "persistent"
#: Flower follows received, started, succeeded and failed; "sent" would cost an event per enqueued job.
worker_send_task_events = True
task_send_sent_event = False
worker_hijack_root_logger = False

imports = ("mdtasks.worker.tasks", "mdtasks.worker.hooks")
worker_consumer = "mdtasks.worker.consumer:Consumer"
beat_scheduler = "mdtasks.worker.schedule:Scheduler"
#: Beat looks at its schedule this often, seconds; its lock (a second beat stands by) outlives five looks.
beat_max_loop_interval = 1
redbeat_lock_timeout = 10
redbeat_key_prefix = "mdtasks:beat"
