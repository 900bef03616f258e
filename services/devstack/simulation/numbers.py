"""Every number of the model, in seconds. A test ties those of ours to the defaults of the services' settings."""

from services.shutdown.decision import Policy

MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S

# The machine: 150 s from StartInstances to an adapter that receives; EC2 bills from `running` on.
PENDING_S = 30.0
BOOT_S = 120.0
STOP_S = 60.0

# The adapter.
LEASE_S = 300.0
HEARTBEAT_S = 100.0
DEADLINE_S = 1500.0
MAX_ATTEMPTS = 3
BEAT_S = 30.0
DRAIN_S = 60.0
MAX_RECEIVES = 10

# The orchestrator.
WAKER_INTERVAL_S = 30.0
WAKER_SPACING_S = 1.0
JANITOR_INTERVAL_S = 60.0
RESEND_AFTER_S = 600.0
TASK_MAX_AGE_S = DAY_S
MAX_UNFINISHED_PER_CLIENT = 1000

# The shutdown Lambda. EventBridge keeps the minute, not the second.
POLICY = Policy(idle_s=1800.0, worker_grace_s=900.0, hold_s=900.0, hold_max_s=14_400.0, force_stop_after_s=600.0)
SCHEDULE_PHASE_S = 17.0

# CloudWatch. A queue that nobody has touched for 6 h sends no metrics, and may need 15 min to send them again:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-monitoring-using-cloudwatch.html
PUBLISHING_LAG_S = 120.0
QUEUE_ACTIVE_S = 6 * HOUR_S
REACTIVATION_S = 900.0

# A task without an end by then is stranded: nothing that still happens will end it.
LAST_LOOK_S = DAY_S + TASK_MAX_AGE_S + 2 * HOUR_S
