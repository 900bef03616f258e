# One page of everything. The first three dashboards of an account are free, then $3 a month.
resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = local.names.system

  dashboard_body = jsonencode({
    widgets = [
      for index, widget in local.widgets : {
        type   = "metric"
        width  = 12
        height = 6
        x      = index % 2 * 12
        y      = floor(index / 2) * 6
        properties = merge({
          region = var.region
          view   = "timeSeries"
          period = 300
          stat   = "Sum"
        }, widget)
      }
    ]
  })
}

locals {
  widgets = concat([
    {
      title = "Tasks in the queue"
      stat  = "Maximum"
      metrics = [
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.tasks.name, { label = "waiting" }],
        ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", aws_sqs_queue.tasks.name, { label = "in work" }],
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.dead_letters.name, { label = "dead letters" }],
      ]
    },
    {
      title = "Tasks sent and done"
      metrics = [
        ["AWS/SQS", "NumberOfMessagesSent", "QueueName", aws_sqs_queue.tasks.name, { label = "sent" }],
        ["AWS/SQS", "NumberOfMessagesDeleted", "QueueName", aws_sqs_queue.tasks.name, { label = "done" }],
      ]
    },
    {
      title   = "Age of the oldest task waiting, seconds"
      stat    = "Maximum"
      metrics = [["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", aws_sqs_queue.tasks.name, { label = "oldest" }]]
    },
    {
      # There is a point of the CPU for each period in which the instance ran, and none for the others.
      title = "GPU instance: hours, and dollars (right), since the left edge"
      metrics = [
        [{ expression = "RUNNING_SUM(IF(cpu >= 0, PERIOD(cpu) / 3600, 0))", id = "hours", label = "hours" }],
        [{ expression = "RUNNING_SUM(IF(cpu >= 0, ${local.gpu_hour_usd} * PERIOD(cpu) / 3600, 0))", id = "dollars", label = "$", yAxis = "right" }],
        ["AWS/EC2", "CPUUtilization", "InstanceId", local.gpu_instance_id, { id = "cpu", stat = "Average", visible = false }],
      ]
    },
    {
      title = "Shutdown Lambda"
      metrics = [
        ["AWS/Lambda", "Invocations", "FunctionName", aws_lambda_function.shutdown.function_name, { label = "looks" }],
        ["AWS/Lambda", "Errors", "FunctionName", aws_lambda_function.shutdown.function_name, { label = "errors" }],
      ]
    },
    ],
    [for widget in local.service_widgets : widget if var.metrics],
    [for widget in local.gpu_widgets : widget if local.gpu_agents > 0],
    [
      for balancer in aws_lb.main : {
        title = "Answers of the API"
        metrics = [
          for code in ["2XX", "4XX", "5XX"] :
          ["AWS/ApplicationELB", "HTTPCode_Target_${code}_Count", "LoadBalancer", balancer.arn_suffix, { label = code }]
        ]
      }
    ],
    [
      for balancer in aws_lb.main : {
        title   = "Time to answer, seconds (p99)"
        stat    = "p99"
        metrics = [["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", balancer.arn_suffix, { label = "p99" }]]
      }
    ],
  )
}

locals {
  service_widgets = [
    {
      title = "Jobs by outcome"
      metrics = [
        [local.metrics_namespace, "JobsAccepted", { label = "accepted" }],
        [local.metrics_namespace, "JobsCompleted", { label = "completed" }],
        [local.metrics_namespace, "JobsFailed", { label = "failed" }],
      ]
    },
    {
      title   = "Failed jobs by cause"
      metrics = [[{ expression = "SEARCH('{\"${local.metrics_namespace}\",Cause} MetricName=\"JobsFailed\"', 'Sum')", id = "causes", label = "" }]]
    },
    {
      title = "Latency to result, seconds"
      metrics = [
        [local.metrics_namespace, "ResultTime", { stat = "p50", label = "p50" }],
        [local.metrics_namespace, "ResultTime", { stat = "p99", label = "p99" }],
      ]
    },
    {
      title = "Where the time goes, seconds (p50)"
      stat  = "p50"
      metrics = [
        [local.metrics_namespace, "WaitTime", { label = "waiting for the first attempt" }],
        [local.metrics_namespace, "RunTime", { label = "running" }],
      ]
    },
    {
      title = "Time to 202, milliseconds"
      metrics = [
        [local.metrics_namespace, "TimeTo202", { stat = "p50", label = "p50" }],
        [local.metrics_namespace, "TimeTo202", { stat = "p99", label = "p99" }],
      ]
    },
    {
      title = "Waking the GPU, seconds"
      stat  = "Maximum"
      metrics = [
        [local.metrics_namespace, "WakeTime", { label = "from the order to a running instance" }],
        [local.metrics_namespace, "BootTime", { label = "from the adapter's start to a healthy API" }],
      ]
    },
    {
      title = "GPU instance: running or blocked while there is demand, and stops by rule"
      metrics = [
        [local.metrics_namespace, "GpuState", { stat = "Maximum", label = "running" }],
        [local.metrics_namespace, "GpuBlocked", { stat = "Maximum", label = "cannot be started" }],
        [{ expression = "SEARCH('{\"${local.metrics_namespace}\",Rule} MetricName=\"GpuStopped\"', 'Sum')", id = "stops", label = "stopped by rule" }],
      ]
    },
  ]

  gpu_widgets = [
    {
      title = "GPU utilisation, percent, and memory in use, MiB (right)"
      stat  = "Average"
      metrics = [
        [local.gpu_namespace, "nvidia_smi_${local.gpu_measured.utilization}", "InstanceId", local.gpu_instance_id, { label = "utilisation" }],
        [local.gpu_namespace, "nvidia_smi_${local.gpu_measured.memory}", "InstanceId", local.gpu_instance_id, { label = "memory", yAxis = "right" }],
      ]
    },
  ]
}
