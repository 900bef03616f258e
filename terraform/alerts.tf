# One topic for what a person should know. Mail is free up to 1,000 a month.
# Not encrypted with aws/sns: CloudWatch may not publish to a topic under that key, and its messages hold no data.
resource "aws_sns_topic" "alerts" {
  name = local.names.alerts
}

resource "aws_sns_topic_policy" "alerts" {
  arn    = aws_sns_topic.alerts.arn
  policy = data.aws_iam_policy_document.alerts.json
}

data "aws_iam_policy_document" "alerts" {
  statement {
    sid       = "AlarmsAndBudgetsOfThisAccount"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alerts.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account_id]
    }
  }
}

resource "aws_sns_topic_subscription" "alerts" {
  for_each = toset(var.alert_emails)

  topic_arn = aws_sns_topic.alerts.arn
  protocol  = "email"
  endpoint  = each.value
}

# $0.10 per alarm and month.
resource "aws_cloudwatch_metric_alarm" "shutdown_errors" {
  alarm_name          = "${local.names.shutdown}-errors"
  alarm_description   = "The Lambda that stops the GPU raises: nobody may be stopping it. See its log group."
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = aws_lambda_function.shutdown.function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 3 # one or two a period are throttled calls, made good a minute later
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

# Who watches the watchman: no error is counted where nothing runs.
resource "aws_cloudwatch_metric_alarm" "shutdown_silent" {
  alarm_name          = "${local.names.shutdown}-silent"
  alarm_description   = "The Lambda that stops the GPU is not called: is the schedule disabled, or its permission gone?"
  namespace           = "AWS/Lambda"
  metric_name         = "Invocations"
  dimensions          = { FunctionName = aws_lambda_function.shutdown.function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 3
  threshold           = 1
  comparison_operator = "LessThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  alarm_name          = "${local.names.dead_letters}-not-empty"
  alarm_description   = "Messages nobody could process. The orchestrator fails their tasks and empties the queue within minutes: if this stays, it is not running."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead_letters.name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

resource "aws_cloudwatch_metric_alarm" "oldest_message" {
  alarm_name          = "${local.names.queue}-too-old"
  alarm_description   = "A task waits for more than ${var.alert_message_age_s / 60} minutes: the GPU does not start, or is not fast enough."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.tasks.name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  threshold           = var.alert_message_age_s
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

# EC2 publishes CPUUtilization only while the instance runs; the number of samples does not matter, that there are some does.
# In its own five minutes: an hour in which it was off for a while would have samples all the same. All periods together may
# be a day, so 24 hours at the most.
resource "aws_cloudwatch_metric_alarm" "gpu_running" {
  alarm_name          = "${local.names.system}-gpu-running-for-hours"
  alarm_description   = "The GPU instance has been running for ${var.alert_gpu_hours} hours without a break; its price is in output gpu_hour_usd."
  namespace           = "AWS/EC2"
  metric_name         = "CPUUtilization"
  dimensions          = { InstanceId = local.gpu_instance_id }
  statistic           = "SampleCount"
  period              = 300
  evaluation_periods  = 12 * var.alert_gpu_hours
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

# EC2 refuses what only a person can cure: a quota, a permission, an instance that is gone or does not finish stopping.
resource "aws_cloudwatch_metric_alarm" "gpu_blocked" {
  count = var.metrics ? 1 : 0

  alarm_name          = "${local.names.system}-gpu-cannot-start"
  alarm_description   = "Tasks wait, and the GPU cannot be started until somebody helps: a quota, a missing permission, an instance that is gone or hangs in stopping. /ready and the orchestrator's log name it."
  namespace           = local.metrics_namespace
  metric_name         = "GpuBlocked"
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

# 5xx of the service itself; the balancer's own (no healthy task) count as well. Two metrics, $0.20 a month.
resource "aws_cloudwatch_metric_alarm" "server_errors" {
  count = local.is_fargate ? 1 : 0

  alarm_name          = "${local.names.orchestrator}-5xx"
  alarm_description   = "Clients get 5xx: AWS does not answer the orchestrator within its second, or no task is healthy. See /ready and the log group."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 5
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]

  metric_query {
    id          = "errors"
    label       = "5xx answers"
    expression  = "SUM(METRICS())"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { service = "HTTPCode_Target_5XX_Count", balancer = "HTTPCode_ELB_5XX_Count" }

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value
        period      = 300
        stat        = "Sum"
        dimensions  = { LoadBalancer = aws_lb.main[0].arn_suffix }
      }
    }
  }
}

# $0.10 a month.
resource "aws_cloudwatch_metric_alarm" "no_healthy_task" {
  count = local.is_fargate ? 1 : 0

  alarm_name          = "${local.names.orchestrator}-down"
  alarm_description   = "No orchestrator answers /health. Before the first image is pushed, and after a broken one, that is why."
  namespace           = "AWS/ApplicationELB"
  metric_name         = "HealthyHostCount"
  dimensions          = { LoadBalancer = aws_lb.main[0].arn_suffix, TargetGroup = aws_lb_target_group.orchestrator[0].arn_suffix }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  threshold           = 1
  comparison_operator = "LessThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

# A job fails at its last attempt, or for a reason that no other attempt would cure: a few are clients' mistakes. SUM skips a
# metric without data, so neither term is needed for the other. Two metrics, $0.20 a month.
resource "aws_cloudwatch_metric_alarm" "failures" {
  count = var.metrics ? 1 : 0

  alarm_name          = "${local.names.system}-jobs-failing"
  alarm_description   = "Of the jobs that ended within 15 minutes, ${var.alert_failure_percent} % or more have failed. The dashboard shows their causes, the adapter's journal the jobs."
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = var.alert_failure_percent
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]

  metric_query {
    id          = "ratio"
    label       = "Failed jobs, percent"
    expression  = "IF(SUM([failed, completed]) >= 4, 100 * failed / SUM([failed, completed]), 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { failed = "JobsFailed", completed = "JobsCompleted" }

    content {
      id = metric_query.key

      metric {
        namespace   = local.metrics_namespace
        metric_name = metric_query.value
        period      = 900
        stat        = "Sum"
      }
    }
  }
}
