# The promise that the GPU never runs for nothing, as far as it is configuration.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  gpu_instance_id = "i-0123456789abcdef0"
  certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
  domain_name     = "gpu.example.com"
  api_key_hashes  = { frontend = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" }
}

run "the_alarm_is_the_designs" {
  assert {
    condition     = aws_cloudwatch_metric_alarm.idle.alarm_name == "QueueEmptyFor30Min"
    error_message = "name"
  }
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.idle.evaluation_periods == 6 &&
      aws_cloudwatch_metric_alarm.idle.datapoints_to_alarm == 6 &&
      aws_cloudwatch_metric_alarm.idle.threshold == 0 &&
      aws_cloudwatch_metric_alarm.idle.comparison_operator == "LessThanOrEqualToThreshold" &&
      aws_cloudwatch_metric_alarm.idle.treat_missing_data == "notBreaching"
    )
    error_message = "six of six, at most 0, missing is not breaching"
  }
  assert {
    condition = {
      for query in aws_cloudwatch_metric_alarm.idle.metric_query : query.id =>
      [for metric in query.metric : [metric.namespace, metric.metric_name, metric.stat, metric.period]]
      } == {
      work    = []
      visible = [["AWS/SQS", "ApproximateNumberOfMessagesVisible", "Average", 300]]
      sent    = [["AWS/SQS", "NumberOfMessagesSent", "Sum", 300]]
      cpu     = [["AWS/EC2", "CPUUtilization", "Average", 300]]
    }
    error_message = "metrics"
  }
  assert {
    condition     = one([for query in aws_cloudwatch_metric_alarm.idle.metric_query : query.expression if query.return_data == true]) == "IF(cpu >= 0, visible + sent, 1)"
    error_message = "one result: tasks waiting and tasks sent, only while the instance runs, and never NotVisible"
  }
}

run "alarm_schedule_and_event_may_all_call_the_lambda" {
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.idle.alarm_actions == toset([aws_lambda_function.shutdown.arn]) &&
      aws_lambda_permission.idle_alarm.principal == "lambda.alarms.cloudwatch.amazonaws.com" &&
      aws_lambda_permission.idle_alarm.source_arn == "arn:aws:cloudwatch:us-east-1:123456789012:alarm:QueueEmptyFor30Min"
    )
    error_message = "alarm"
  }
  assert {
    condition = (
      aws_cloudwatch_event_rule.every_minute.schedule_expression == "rate(1 minute)" &&
      aws_cloudwatch_event_rule.every_minute.state != "DISABLED" &&
      aws_cloudwatch_event_target.every_minute.arn == aws_lambda_function.shutdown.arn &&
      aws_lambda_permission.every_minute.source_arn == aws_cloudwatch_event_rule.every_minute.arn
    )
    error_message = "schedule"
  }
  assert {
    condition = (
      jsondecode(aws_cloudwatch_event_rule.stopped.event_pattern).detail == { instance-id = ["i-0123456789abcdef0"], state = ["stopped"] } &&
      aws_cloudwatch_event_target.stopped.arn == aws_lambda_function.shutdown.arn &&
      aws_lambda_permission.stopped.source_arn == aws_cloudwatch_event_rule.stopped.arn
    )
    error_message = "event"
  }
}

run "the_lambda_is_told_everything" {
  assert {
    condition = aws_lambda_function.shutdown.environment[0].variables == tomap({
      GPU_INSTANCE_ID    = "i-0123456789abcdef0"
      DYNAMODB_TABLE     = "task_store"
      SQS_QUEUE_URL      = aws_sqs_queue.tasks.url
      IDLE_S             = "1800"
      WORKER_GRACE_S     = "900"
      HOLD_S             = "900"
      HOLD_MAX_S         = "14400"
      FORCE_STOP_AFTER_S = "600"
      ALERT_TOPIC_ARN    = aws_sns_topic.alerts.arn
      LOG_LEVEL          = "INFO"
      METRICS            = "log"
      METRICS_NAMESPACE  = "gpu-on-demand"
    })
    error_message = "environment"
  }
  assert {
    condition     = aws_lambda_function.shutdown.runtime == "python3.11" && aws_lambda_function.shutdown.function_name == "shutdown-gpu-lambda"
    error_message = "runtime and name"
  }
  assert {
    condition     = aws_lambda_function.shutdown.source_code_hash == filebase64sha256(var.lambda_zip)
    error_message = "changed code must show in a plan"
  }
}

run "another_idle_time_is_another_alarm" {
  variables {
    idle_s = 3600
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.idle.alarm_name == "QueueEmptyFor60Min" && aws_cloudwatch_metric_alarm.idle.evaluation_periods == 12
    error_message = "alarm and Lambda follow one number"
  }
}
