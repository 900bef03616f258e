# What the services measure themselves, and what the CloudWatch agent measures of the GPU. A metric costs $0.30 a month if it
# is published in every hour; of an hour without a job, or with the GPU stopped, nothing is published and nothing is paid.

locals {
  # A namespace for each system: so its metrics need no dimension to tell them apart, and its roles can publish no other's.
  metrics_namespace = local.names.system

  # Fargate's log goes to CloudWatch, which reads metrics from its lines; a journal nobody reads, so machines call.
  orchestrator_metrics = !var.metrics ? "off" : local.is_fargate ? "log" : "cloudwatch"
  adapter_metrics      = var.metrics ? "cloudwatch" : "off"
  shutdown_metrics     = var.metrics ? "log" : "off"

  # Those of the services with every cause of failure, and the Lambda's stops with every rule and by force.
  service_metric_count = 20 + 5

  # It is installed where the adapter is.
  gpu_agents = var.metrics && var.gpu_metrics ? local.releases : 0
}

resource "aws_iam_role_policy" "adapter_metrics" {
  count = var.metrics ? 1 : 0

  name   = "${local.names.adapter}-metrics"
  role   = local.adapter_role_name
  policy = data.aws_iam_policy_document.publish_metrics.json
}

resource "aws_iam_role_policy" "orchestrator_metrics" {
  count = local.orchestrator_metrics == "cloudwatch" ? 1 : 0

  name   = "metrics"
  role   = aws_iam_role.orchestrator.id
  policy = data.aws_iam_policy_document.publish_metrics.json
}

data "aws_iam_policy_document" "publish_metrics" {
  statement {
    sid       = "PublishOwnMetrics" # CloudWatch knows no ARN for a metric
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [local.metrics_namespace]
    }
  }
}

# The agent. Two metrics while the GPU runs: at most $0.60 a month, $0.04 for two hours a day.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Agent-NVIDIA-GPU.html
locals {
  gpu_namespace = "CWAgent" # its default: an agent that is there already keeps the one it has
  gpu_measured  = { utilization = "utilization_gpu", memory = "memory_used" }

  # Without an "agent" section, since it is appended to the configuration of an agent that is there already. By itself each
  # metric would have GPU index, type and (newer agents) architecture as dimensions; rolled up to the instance, and the
  # originals dropped, it is one that can be named. Share of memory in use, not of the time in which it was read, which is
  # what utilization_memory tells.
  gpu_agent = {
    metrics = {
      append_dimensions      = { InstanceId = "$${aws:InstanceId}" }
      aggregation_dimensions = [["InstanceId"]]
      metrics_collected = {
        nvidia_gpu = {
          measurement                 = values(local.gpu_measured)
          drop_original_metrics       = values(local.gpu_measured)
          metrics_collection_interval = 60
        }
      }
    }
  }
}

resource "aws_iam_role_policy" "gpu_agent" {
  count = local.gpu_agents

  name   = "${local.names.adapter}-gpu-agent"
  role   = local.adapter_role_name
  policy = data.aws_iam_policy_document.gpu_agent.json
}

data "aws_iam_policy_document" "gpu_agent" {
  statement {
    sid       = "PublishGpuMetrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [local.gpu_namespace]
    }
  }
}

resource "aws_ssm_document" "gpu_agent" {
  count = local.gpu_agents

  name            = "${local.names.adapter}-gpu-agent"
  document_type   = "Command"
  document_format = "JSON"

  content = jsonencode({
    schemaVersion = "2.2"
    description   = "Installs the CloudWatch agent and has it measure the GPU"
    mainSteps = [
      {
        action = "aws:configurePackage"
        name   = "install"
        inputs = { name = "AmazonCloudWatchAgent", action = "Install" }
      },
      {
        action = "aws:runShellScript"
        name   = "configure"
        inputs = {
          timeoutSeconds = "300"
          runCommand = split("\n", templatefile("${path.module}/templates/configure_gpu_agent.sh.tftpl", {
            configuration = jsonencode(local.gpu_agent)
          }))
        }
      },
    ]
  })
}

# Of its own, so that an agent which cannot be installed keeps no adapter from being updated. On a schedule, as the adapter's.
resource "aws_ssm_association" "gpu_agent" {
  count = local.gpu_agents

  association_name = "${local.names.adapter}-gpu-agent"
  name             = aws_ssm_document.gpu_agent[0].name
  document_version = aws_ssm_document.gpu_agent[0].latest_version

  schedule_expression = local.install_schedule

  targets {
    key    = "InstanceIds"
    values = [local.gpu_instance_id]
  }

  depends_on = [aws_iam_role_policy.gpu_agent, aws_iam_role_policy.adapter_ssm]
}
