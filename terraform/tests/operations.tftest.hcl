# What an operator hears and sees.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  gpu_instance_id = "i-0123456789abcdef0"
  certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
  domain_name     = "gpu.example.com"
  api_key_hashes  = { frontend = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" }
}

run "every_alarm_reaches_the_topic" {
  variables {
    alert_emails       = ["operator@example.com"]
    monthly_budget_usd = 500
  }
  assert {
    condition = alltrue([
      for alarm in concat([
        aws_cloudwatch_metric_alarm.shutdown_errors,
        aws_cloudwatch_metric_alarm.shutdown_silent,
        aws_cloudwatch_metric_alarm.dead_letters,
        aws_cloudwatch_metric_alarm.oldest_message,
        aws_cloudwatch_metric_alarm.gpu_running,
      ], aws_cloudwatch_metric_alarm.server_errors, aws_cloudwatch_metric_alarm.no_healthy_task, aws_cloudwatch_metric_alarm.failures) :
      alarm.alarm_actions == toset([aws_sns_topic.alerts.arn])
    ])
    error_message = "alarms"
  }
  assert {
    condition     = aws_sns_topic_subscription.alerts["operator@example.com"].topic_arn == aws_sns_topic.alerts.arn
    error_message = "and the topic a person"
  }
  assert {
    condition     = aws_budgets_budget.monthly[0].limit_amount == "500.0"
    error_message = "budget"
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets) == 14
    error_message = "dashboard"
  }
}

run "silence_of_what_should_speak_is_an_alarm" {
  command = plan
  assert {
    condition     = aws_cloudwatch_metric_alarm.shutdown_silent.treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.no_healthy_task[0].treat_missing_data == "breaching"
    error_message = "no data means that nothing runs"
  }
}

run "hours_without_a_break_are_counted_in_the_periods_of_ec2" {
  command = plan
  variables {
    alert_gpu_hours = 24
  }
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.gpu_running.period == 300 && aws_cloudwatch_metric_alarm.gpu_running.treat_missing_data == "notBreaching" &&
      aws_cloudwatch_metric_alarm.gpu_running.period * aws_cloudwatch_metric_alarm.gpu_running.evaluation_periods == 86400
    )
    error_message = "a stop in between is a period without a sample; and a day is all that CloudWatch looks at"
  }
}
