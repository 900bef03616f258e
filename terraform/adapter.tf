# The adapter's identity on the GPU instance, its environment, and how it gets there without SSH.

locals {
  adapter_environment = {
    AWS_REGION           = var.region
    SQS_QUEUE_URL        = aws_sqs_queue.tasks.url
    DYNAMODB_TABLE       = aws_dynamodb_table.tasks.name
    GPU_INSTANCE_ID      = local.gpu_instance_id
    COMFYUI_API_URL      = var.comfyui_api_url
    COMFYUI_URL          = var.comfyui_url
    CONCURRENCY          = tostring(var.adapter_concurrency)
    VISIBILITY_TIMEOUT_S = tostring(var.visibility_timeout_s)
    HEARTBEAT_S          = tostring(var.heartbeat_s)
    JOB_DEADLINE_S       = tostring(var.job_deadline_s)
    LOG_LEVEL            = var.log_level
    METRICS              = local.adapter_metrics
    METRICS_NAMESPACE    = local.metrics_namespace
  }

  # An existing instance may have a role already, and can have only one.
  makes_adapter_role = var.gpu_role_name == null
  adapter_role_name  = local.makes_adapter_role ? aws_iam_role.adapter[0].name : var.gpu_role_name

  install_schedule = "rate(30 minutes)" # the shortest that SSM has
}

resource "aws_iam_role" "adapter" {
  count = local.makes_adapter_role ? 1 : 0

  name               = local.names.adapter
  assume_role_policy = data.aws_iam_policy_document.adapter_trust.json
}

resource "aws_iam_instance_profile" "adapter" {
  count = local.makes_adapter_role ? 1 : 0

  name = local.names.adapter
  role = aws_iam_role.adapter[0].name
}

resource "aws_iam_role_policy" "adapter" {
  name   = local.names.adapter
  role   = local.adapter_role_name
  policy = data.aws_iam_policy_document.adapter.json
}

# Session Manager and Run Command instead of an open port. Copied, not attached: an existing role may have the attachment
# already, and a destroy would take it away from whoever comes in by it.
resource "aws_iam_role_policy" "adapter_ssm" {
  name   = "${local.names.adapter}-ssm"
  role   = local.adapter_role_name
  policy = data.aws_iam_policy.ssm.policy
}

data "aws_iam_policy" "ssm" {
  arn = "arn:${local.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

data "aws_iam_policy_document" "adapter_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "adapter" {
  statement {
    sid       = "WorkOnTasks"
    actions   = ["dynamodb:UpdateItem"]
    resources = [aws_dynamodb_table.tasks.arn]
  }

  statement {
    sid       = "TakeMessages"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
    resources = [aws_sqs_queue.tasks.arn]
  }
}

# An instance without permissions says so only in its journal. The permissions go to the role that was named, else to the
# one made here, which then must be the instance's.
check "gpu_has_a_profile" {
  assert {
    condition = local.makes_gpu || (
      local.makes_adapter_role ?
      try(data.aws_instance.gpu[0].iam_instance_profile, "") == aws_iam_instance_profile.adapter[0].name :
      try(data.aws_instance.gpu[0].iam_instance_profile, "") != ""
    )
    error_message = "The GPU instance does not have the role with the adapter's permissions, so the adapter may do nothing. If it has an instance profile, set gpu_role_name to that profile's role; if it has none, run the command in output gpu_profile_command once."
  }
}

resource "aws_iam_role_policy" "adapter_release" {
  count = local.releases

  name   = "${local.names.adapter}-release"
  role   = local.adapter_role_name
  policy = data.aws_iam_policy_document.fetch_release[0].json
}

# Fetches the release, checks it, writes the environment, installs. Free for instances in EC2.
resource "aws_ssm_document" "adapter" {
  count = local.releases

  name            = "${local.names.adapter}-install"
  document_type   = "Command"
  document_format = "JSON"

  content = jsonencode({
    schemaVersion = "2.2"
    description   = "Installs or updates the adapter"
    mainSteps = [
      {
        action = "aws:downloadContent"
        name   = "fetch"
        inputs = {
          sourceType      = "S3"
          sourceInfo      = jsonencode({ path = "https://s3.${var.region}.amazonaws.com/${local.releases_name}/${local.release_key}" })
          destinationPath = "/var/lib/gpu-on-demand/${local.release_hash}.tar.gz"
        }
      },
      {
        action = "aws:runShellScript"
        name   = "install"
        inputs = {
          timeoutSeconds = "900"
          runCommand = split("\n", templatefile("${path.module}/templates/install_adapter.sh.tftpl", {
            bundle      = "/var/lib/gpu-on-demand/${local.release_hash}.tar.gz"
            sha256      = local.release_hash
            environment = [for name in sort(keys(local.adapter_environment)) : "${name}=${local.adapter_environment[name]}"]
          }))
        }
      },
    ]
  })
}

# Applied when it changes: at once if the instance runs, else as soon as its agent reports after the next start. Without a
# schedule SSM never tries again what has failed, be it a package server's bad minute; what is in place already is left alone.
resource "aws_ssm_association" "adapter" {
  count = local.releases

  association_name = "${local.names.adapter}-install"
  name             = aws_ssm_document.adapter[0].name
  document_version = aws_ssm_document.adapter[0].latest_version

  schedule_expression = local.install_schedule

  targets {
    key    = "InstanceIds"
    values = [local.gpu_instance_id]
  }

  depends_on = [aws_s3_object.release, aws_iam_role_policy.adapter_release, aws_iam_role_policy.adapter_ssm]
}
