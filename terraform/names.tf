# Every name in one place. With the default (empty) environment they are exactly those of the design.
locals {
  suffix = var.environment == "" ? "" : "-${var.environment}"

  names = {
    system       = "gpu-on-demand${local.suffix}"
    queue        = "gpu_tasks_queue${local.suffix}"
    dead_letters = "gpu_tasks_dlq${local.suffix}"
    table        = "task_store${local.suffix}"
    index        = "status-created_at-index"
    orchestrator = "gpu-orchestrator${local.suffix}"
    adapter      = "gpu-adapter${local.suffix}"
    shutdown     = "shutdown-gpu-lambda${local.suffix}"
    idle_alarm   = "QueueEmptyFor${var.idle_s / 60}Min${local.suffix}"
    alerts       = "gpu-alerts${local.suffix}"
  }

  tags = merge({ Project = local.names.system, ManagedBy = "terraform" }, var.tags)

  # Start and Stop are allowed on instances with this tag only.
  gpu_tag = { key = "Purpose", value = "GPU-ComfyUI" }

  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
}
