# What stops the GPU: an alarm, a schedule and an event, which all call one Lambda. It ignores who called and looks.

resource "aws_lambda_function" "shutdown" {
  # checkov:skip=CKV_AWS_116:An event it could not handle is worth nothing a minute later; the schedule looks again, and an alarm tells of errors

  function_name    = local.names.shutdown
  description      = "Stops the GPU instance when it is idle, stuck or broken (rules A, B, C)"
  role             = aws_iam_role.shutdown.arn
  runtime          = "python3.11"
  handler          = "services.shutdown.handler.handler"
  filename         = var.lambda_zip
  source_code_hash = filebase64sha256(var.lambda_zip)
  # A call a minute of about 0.3 s: 43,800 a month, inside the free tier; without it $0.01 + $0.03.
  architectures = ["arm64"]
  memory_size   = 128
  timeout       = 60

  environment {
    variables = {
      GPU_INSTANCE_ID    = local.gpu_instance_id
      DYNAMODB_TABLE     = aws_dynamodb_table.tasks.name
      SQS_QUEUE_URL      = aws_sqs_queue.tasks.url
      IDLE_S             = tostring(var.idle_s)
      WORKER_GRACE_S     = tostring(var.worker_grace_s)
      HOLD_S             = tostring(var.hold_s)
      HOLD_MAX_S         = tostring(var.hold_max_s)
      FORCE_STOP_AFTER_S = tostring(var.force_stop_after_s)
      ALERT_TOPIC_ARN    = aws_sns_topic.alerts.arn
      LOG_LEVEL          = var.log_level
      METRICS            = local.shutdown_metrics
      METRICS_NAMESPACE  = local.metrics_namespace
    }
  }

  # Its log group has Lambda's default name; made first, or Lambda would make one that keeps logs for ever.
  depends_on = [aws_iam_role_policy.shutdown, aws_cloudwatch_log_group.shutdown]
}

# Asynchronous invocations that raise are tried twice more. One that is minutes old is worth nothing: the schedule has
# looked since.
resource "aws_lambda_function_event_invoke_config" "shutdown" {
  function_name                = aws_lambda_function.shutdown.function_name
  maximum_event_age_in_seconds = 300
  maximum_retry_attempts       = 2
}

# $0.50 per GB taken in; a line a minute is 20 MB a month, one cent.
resource "aws_cloudwatch_log_group" "shutdown" {
  name              = "/aws/lambda/${local.names.shutdown}"
  retention_in_days = var.log_retention_days
}

# Rules A and B as the design has them, and what it could not see: a message that is taken at once is never counted as
# visible, but always as sent. NotVisible is left out on purpose: a stuck task must look empty (rule B).
# The CPU's only part is to exist: without it there is no point, so the alarm re-arms at each stop and does not count
# the time before a start. FILL would leave the alarm stuck. $0.10 per metric and month: $0.30.
resource "aws_cloudwatch_metric_alarm" "idle" {
  alarm_name          = local.names.idle_alarm
  alarm_description   = "No task was sent or waiting for ${var.idle_s / 60} minutes while the GPU instance ran. Calls the shutdown Lambda."
  comparison_operator = "LessThanOrEqualToThreshold"
  threshold           = 0
  evaluation_periods  = var.idle_s / local.idle_alarm_period_s
  datapoints_to_alarm = var.idle_s / local.idle_alarm_period_s
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_lambda_function.shutdown.arn]

  metric_query {
    id          = "work"
    label       = "Tasks waiting or sent"
    expression  = "IF(cpu >= 0, visible + sent, 1)"
    return_data = true
  }

  metric_query {
    id = "visible"

    metric {
      namespace   = "AWS/SQS"
      metric_name = "ApproximateNumberOfMessagesVisible"
      period      = local.idle_alarm_period_s
      stat        = "Average"
      dimensions  = { QueueName = aws_sqs_queue.tasks.name }
    }
  }

  metric_query {
    id = "sent"

    metric {
      namespace   = "AWS/SQS"
      metric_name = "NumberOfMessagesSent"
      period      = local.idle_alarm_period_s
      stat        = "Sum"
      dimensions  = { QueueName = aws_sqs_queue.tasks.name }
    }
  }

  metric_query {
    id = "cpu"

    metric {
      namespace   = "AWS/EC2"
      metric_name = "CPUUtilization"
      period      = local.idle_alarm_period_s
      stat        = "Average"
      dimensions  = { InstanceId = local.gpu_instance_id }
    }
  }

  # The action must be allowed before the first transition, which is the only one that would call it.
  depends_on = [aws_lambda_permission.idle_alarm]
}

locals {
  idle_alarm_period_s = 300

  idle_alarm_arn = "arn:${local.partition}:cloudwatch:${var.region}:${local.account_id}:alarm:${local.names.idle_alarm}"
}

resource "aws_lambda_permission" "idle_alarm" {
  statement_id   = "IdleAlarm"
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.shutdown.function_name
  principal      = "lambda.alarms.cloudwatch.amazonaws.com"
  source_arn     = local.idle_alarm_arn
  source_account = local.account_id
}

# The alarm acts on transitions only, and a lost event does not come back: so somebody looks every minute. Free.
resource "aws_cloudwatch_event_rule" "every_minute" {
  name                = "${local.names.shutdown}-every-minute"
  description         = "Looks whether the GPU instance should be stopped"
  schedule_expression = "rate(1 minute)"
}

resource "aws_cloudwatch_event_rule" "stopped" {
  name        = "${local.names.shutdown}-stopped"
  description = "The GPU instance is stopped, whoever stopped it"
  event_pattern = jsonencode({
    source      = ["aws.ec2"]
    detail-type = ["EC2 Instance State-change Notification"]
    detail      = { instance-id = [local.gpu_instance_id], state = ["stopped"] }
  })
}

resource "aws_cloudwatch_event_target" "every_minute" {
  rule = aws_cloudwatch_event_rule.every_minute.name
  arn  = aws_lambda_function.shutdown.arn
}

resource "aws_cloudwatch_event_target" "stopped" {
  rule = aws_cloudwatch_event_rule.stopped.name
  arn  = aws_lambda_function.shutdown.arn
}

resource "aws_lambda_permission" "every_minute" {
  statement_id  = "EveryMinute"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.shutdown.function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.every_minute.arn
}

resource "aws_lambda_permission" "stopped" {
  statement_id  = "Stopped"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.shutdown.function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.stopped.arn
}

resource "aws_iam_role" "shutdown" {
  name               = local.names.shutdown
  assume_role_policy = data.aws_iam_policy_document.shutdown_trust.json
}

resource "aws_iam_role_policy" "shutdown" {
  name   = "shutdown"
  role   = aws_iam_role.shutdown.id
  policy = data.aws_iam_policy_document.shutdown.json
}

data "aws_iam_policy_document" "shutdown_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "shutdown" {
  statement {
    sid       = "SeeInstances" # EC2 knows neither ARN nor tag for Describe
    actions   = ["ec2:DescribeInstances"]
    resources = ["*"]
  }

  statement {
    sid       = "StopTheGpu"
    actions   = ["ec2:StopInstances"]
    resources = [local.gpu_instance_arn]

    condition {
      test     = "StringEquals"
      variable = "ec2:ResourceTag/${local.gpu_tag.key}"
      values   = [local.gpu_tag.value]
    }
  }

  # Since when the table does not answer is noted there. No other tag, or it could make any instance its own.
  statement {
    sid       = "NoteAnOutage"
    actions   = ["ec2:CreateTags", "ec2:DeleteTags"]
    resources = [local.gpu_instance_arn]

    condition {
      test     = "StringEquals"
      variable = "ec2:ResourceTag/${local.gpu_tag.key}"
      values   = [local.gpu_tag.value]
    }

    condition {
      test     = "ForAllValues:StringEquals"
      variable = "aws:TagKeys"
      values   = ["gpu-on-demand:table-unreadable-since"]
    }
  }

  statement {
    sid       = "KeepTheBooks"
    actions   = ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"]
    resources = [aws_dynamodb_table.tasks.arn]
  }

  statement {
    sid       = "ReadTheIndex"
    actions   = ["dynamodb:Query"]
    resources = ["${aws_dynamodb_table.tasks.arn}/index/${local.names.index}"]
  }

  statement {
    sid       = "CountMessages"
    actions   = ["sqs:GetQueueAttributes"]
    resources = [aws_sqs_queue.tasks.arn]
  }

  statement {
    sid       = "Alert"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alerts.arn]
  }

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.shutdown.arn}:*"]
  }
}
