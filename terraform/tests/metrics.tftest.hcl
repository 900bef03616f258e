# Who publishes which metrics, by what right, and what watches them.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  gpu_instance_id = "i-0123456789abcdef0"
  certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
  domain_name     = "gpu.example.com"
  api_key_hashes  = { frontend = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" }
  release_bundle  = "tests/empty.tar.gz"
}

run "fargate_and_lambda_write_lines_and_the_adapter_calls" {
  assert {
    condition     = local.orchestrator_environment["METRICS"] == "log" && local.adapter_environment["METRICS"] == "cloudwatch" && aws_lambda_function.shutdown.environment[0].variables["METRICS"] == "log"
    error_message = "each the way its log allows"
  }
  assert {
    condition = toset([
      local.orchestrator_environment["METRICS_NAMESPACE"],
      local.adapter_environment["METRICS_NAMESPACE"],
      aws_lambda_function.shutdown.environment[0].variables["METRICS_NAMESPACE"],
    ]) == toset(["gpu-on-demand"])
    error_message = "into one namespace, where failures add up"
  }
  assert {
    condition     = length(aws_iam_role_policy.adapter_metrics) == 1 && length(aws_iam_role_policy.orchestrator_metrics) == 0
    error_message = "only who calls may"
  }
  assert {
    condition     = one(one(data.aws_iam_policy_document.publish_metrics.statement).condition) == { test = "StringEquals", variable = "cloudwatch:namespace", values = tolist(["gpu-on-demand"]) }
    error_message = "and only into its own namespace"
  }
}

run "in_private_no_endpoint_is_paid_for_metrics" {
  command = plan
  variables {
    network_mode = "private"
  }
  assert {
    condition     = local.orchestrator_environment["METRICS"] == "log" && !contains(keys(aws_vpc_endpoint.interface), "monitoring")
    error_message = "lines go with the log"
  }
}

run "an_orchestrator_instance_calls_and_may" {
  variables {
    orchestrator_mode = "instance"
    certificate_arn   = null
  }
  assert {
    condition     = strcontains(aws_instance.orchestrator[0].user_data, "METRICS=cloudwatch\n") && aws_iam_role_policy.orchestrator_metrics[0].policy == data.aws_iam_policy_document.publish_metrics.json
    error_message = "its journal is read by nobody"
  }
}

run "the_failure_ratio_is_watched" {
  assert {
    condition = {
      for query in aws_cloudwatch_metric_alarm.failures[0].metric_query : query.id =>
      [for metric in query.metric : [metric.namespace, metric.metric_name, metric.stat, metric.period]]
      } == {
      ratio     = []
      failed    = [["gpu-on-demand", "JobsFailed", "Sum", 900]]
      completed = [["gpu-on-demand", "JobsCompleted", "Sum", 900]]
    }
    error_message = "of all failures, without their causes"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.failures[0].threshold == 25 && aws_cloudwatch_metric_alarm.failures[0].treat_missing_data == "notBreaching"
    error_message = "a quarter; silence is no failure"
  }
}

run "the_agent_measures_the_gpu_as_the_dashboard_shows_it" {
  assert {
    condition     = aws_ssm_association.gpu_agent[0].schedule_expression == "rate(30 minutes)"
    error_message = "tried again after a failure"
  }
  assert {
    condition     = [for step in jsondecode(aws_ssm_document.gpu_agent[0].content).mainSteps : step.action] == ["aws:configurePackage", "aws:runShellScript"] && aws_ssm_association.gpu_agent[0].targets[0].values == tolist(["i-0123456789abcdef0"])
    error_message = "installed and configured on the GPU instance"
  }
  assert {
    condition     = contains(jsondecode(aws_ssm_document.gpu_agent[0].content).mainSteps[1].inputs.runCommand, jsonencode(local.gpu_agent))
    error_message = "with this configuration"
  }
  assert {
    condition     = local.gpu_agent.metrics.append_dimensions.InstanceId == "$${aws:InstanceId}" && local.gpu_agent.metrics.aggregation_dimensions == [["InstanceId"]]
    error_message = "one metric for the instance"
  }
  assert {
    condition = toset(flatten([
      for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : [
        for metric in widget.properties.metrics : slice(metric, 0, 4) == ["CWAgent", metric[1], "InstanceId", "i-0123456789abcdef0"] ? metric[1] : "another"
      ] if strcontains(widget.properties.title, "GPU utilisation")
    ])) == toset(["nvidia_smi_utilization_gpu", "nvidia_smi_memory_used"])
    error_message = "under the names that the agent gives them"
  }
  assert {
    condition     = one(one(data.aws_iam_policy_document.gpu_agent.statement).condition).values == tolist(["CWAgent"]) && aws_iam_role_policy.gpu_agent[0].role == aws_iam_role_policy.adapter.role
    error_message = "and may publish them"
  }
  assert {
    condition     = output.metrics_usd_at_most == "8.10"
    error_message = "25 + 2 metrics"
  }
}

run "the_agent_can_be_left_out" {
  variables {
    gpu_metrics = false
  }
  assert {
    condition     = length(aws_ssm_document.gpu_agent) + length(aws_ssm_association.gpu_agent) + length(aws_iam_role_policy.gpu_agent) == 0 && length(aws_iam_role_policy.adapter_metrics) == 1
    error_message = "it alone"
  }
}

run "all_of_it_can_be_switched_off" {
  variables {
    metrics = false
  }
  assert {
    condition     = local.orchestrator_environment["METRICS"] == "off" && local.adapter_environment["METRICS"] == "off" && aws_lambda_function.shutdown.environment[0].variables["METRICS"] == "off"
    error_message = "nobody publishes"
  }
  assert {
    condition     = length(aws_iam_role_policy.adapter_metrics) + length(aws_iam_role_policy.gpu_agent) + length(aws_ssm_association.gpu_agent) + length(aws_cloudwatch_metric_alarm.failures) == 0
    error_message = "nobody may, and nothing waits for it"
  }
  assert {
    condition     = !strcontains(aws_cloudwatch_dashboard.main.dashboard_body, "JobsFailed") && !strcontains(aws_cloudwatch_dashboard.main.dashboard_body, "nvidia")
    error_message = "no empty widgets"
  }
  assert {
    condition     = output.metrics_usd_at_most == "0.00" && output.fixed_costs_usd["alarms"] == "1.50"
    error_message = "and nothing is paid"
  }
}

run "a_second_system_counts_for_itself" {
  variables {
    environment   = "staging"
    gpu_role_name = "comfyui-role"
  }
  assert {
    condition     = local.adapter_environment["METRICS_NAMESPACE"] == "gpu-on-demand-staging" && strcontains(aws_cloudwatch_dashboard.main.dashboard_body, "SEARCH('{\\\"gpu-on-demand-staging\\\",Cause} MetricName=\\\"JobsFailed\\\"', 'Sum')")
    error_message = "in a namespace of its own"
  }
}
