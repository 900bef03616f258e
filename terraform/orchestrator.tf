# What both variants of the orchestrator share: identity, environment, API keys, security group.

locals {
  orchestrator_port = 8080

  # Fargate sends SIGTERM and waits this long; the drain must fit into it.
  orchestrator_stop_timeout_s = 30
  orchestrator_drain_s        = 25

  orchestrator_environment = {
    AWS_REGION                = var.region
    SQS_QUEUE_URL             = aws_sqs_queue.tasks.url
    SQS_DLQ_URL               = aws_sqs_queue.dead_letters.url
    DYNAMODB_TABLE            = aws_dynamodb_table.tasks.name
    GPU_INSTANCE_ID           = local.gpu_instance_id
    HOST                      = local.is_fargate ? "0.0.0.0" : "127.0.0.1"
    PORT                      = tostring(local.orchestrator_port)
    CORS_ORIGINS              = join(",", var.cors_origins)
    IMAGE_BUCKETS             = length(var.image_buckets) == 0 ? "none" : join(",", var.image_buckets)
    IMAGE_URL_PORTS           = join(",", var.image_url_ports)
    MAX_STEPS                 = tostring(var.max_steps)
    MAX_CFG                   = tostring(var.max_cfg)
    MAX_PROMPT                = tostring(var.max_prompt)
    TASK_MAX_AGE_S            = tostring(var.task_max_age_s)
    MAX_UNFINISHED_PER_CLIENT = tostring(var.max_unfinished_per_client)
    DRAIN_S                   = tostring(local.orchestrator_drain_s)
    LOG_FORMAT                = local.is_fargate ? "json" : "journal"
    LOG_LEVEL                 = var.log_level
    METRICS                   = local.orchestrator_metrics
    METRICS_NAMESPACE         = local.metrics_namespace
  }

  makes_keys     = var.api_keys_arn == null
  keys_arn       = local.makes_keys ? aws_ssm_parameter.api_keys[0].arn : var.api_keys_arn
  keys_in_secret = var.api_keys_arn == null ? false : strcontains(var.api_keys_arn, ":secretsmanager:")
  keys_service   = local.keys_in_secret ? "secretsmanager" : "ssm"

  # Keys are read when the process starts. A task definition or a boot script that holds this changes with them, and so a
  # new process starts. What stands behind api_keys_arn is not seen here.
  keys_checksum = sha256(join(",", [for name, hash in var.api_key_hashes : "${name}:${hash}"]))
}

# Hashes, never keys: who reads this (or the state) can check a key but not make one. Free up to 4 KB, which is some fifty
# clients, then $0.05 a month; a secret in Secrets Manager costs $0.40.
resource "aws_ssm_parameter" "api_keys" {
  count = local.makes_keys ? 1 : 0

  name        = "/${local.names.system}/api-keys"
  description = "Clients of the orchestrator: name:sha256hex, comma separated"
  type        = "SecureString"
  tier        = "Intelligent-Tiering"
  value       = join(",", [for name, hash in var.api_key_hashes : "${name}:${hash}"])

  lifecycle {
    precondition {
      condition     = alltrue([for hash in values(var.api_key_hashes) : can(regex("^[0-9a-fA-F]{64}$", hash))])
      error_message = "api_key_hashes must hold SHA-256 hashes (64 hexadecimal digits), never the keys themselves: printf %s \"$KEY\" | sha256sum"
    }

    precondition {
      condition     = alltrue([for name in keys(var.api_key_hashes) : can(regex("^[A-Za-z0-9._-]{1,64}$", name))])
      error_message = "Names in api_key_hashes must be 1 to 64 letters, digits, '.', '_' or '-'."
    }
  }
}

resource "aws_security_group" "orchestrator" {
  name        = local.names.orchestrator
  description = "The orchestrator"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "orchestrator" {
  count = local.is_fargate ? 1 : 0

  security_group_id            = aws_security_group.orchestrator.id
  description                  = "The load balancer, and nobody else"
  referenced_security_group_id = aws_security_group.balancer[0].id
  ip_protocol                  = "tcp"
  from_port                    = local.orchestrator_port
  to_port                      = local.orchestrator_port
}

resource "aws_vpc_security_group_egress_rule" "orchestrator_https" {
  count = local.is_private ? 0 : 1

  security_group_id = aws_security_group.orchestrator.id
  description       = "AWS by HTTPS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "orchestrator_endpoints" {
  count = local.is_private ? 1 : 0

  security_group_id            = aws_security_group.orchestrator.id
  description                  = "AWS by its endpoints"
  referenced_security_group_id = aws_security_group.endpoints[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

# DynamoDB, and the layers of the image in S3.
resource "aws_vpc_security_group_egress_rule" "orchestrator_gateways" {
  for_each = local.is_private ? aws_vpc_endpoint.gateway : {}

  security_group_id = aws_security_group.orchestrator.id
  description       = "AWS by its gateway: ${each.key}"
  prefix_list_id    = each.value.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_iam_role" "orchestrator" {
  name               = local.names.orchestrator
  assume_role_policy = data.aws_iam_policy_document.orchestrator_trust.json
}

resource "aws_iam_role_policy" "orchestrator" {
  name   = "orchestrator"
  role   = aws_iam_role.orchestrator.id
  policy = data.aws_iam_policy_document.orchestrator.json
}

data "aws_iam_policy_document" "orchestrator_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = [local.is_fargate ? "ecs-tasks.amazonaws.com" : "ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "orchestrator" {
  statement {
    sid       = "KeepTasks"
    actions   = ["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"]
    resources = [aws_dynamodb_table.tasks.arn]
  }

  statement {
    sid       = "ReadTheIndex"
    actions   = ["dynamodb:Query"]
    resources = ["${aws_dynamodb_table.tasks.arn}/index/${local.names.index}"]
  }

  statement {
    sid       = "QueueTasks" # and sweep away the messages of ended ones
    actions   = ["sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:DeleteMessage"]
    resources = [aws_sqs_queue.tasks.arn]
  }

  statement {
    sid       = "BuryDeadLetters"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }

  statement {
    sid       = "SeeInstances" # EC2 knows neither ARN nor tag for Describe
    actions   = ["ec2:DescribeInstances"]
    resources = ["*"]
  }

  statement {
    sid       = "StartTheGpu"
    actions   = ["ec2:StartInstances"]
    resources = [local.gpu_instance_arn]

    condition {
      test     = "StringEquals"
      variable = "ec2:ResourceTag/${local.gpu_tag.key}"
      values   = [local.gpu_tag.value]
    }
  }

  # EC2 asks in the caller's name for the key of an encrypted volume. Under AWS's own key nobody needs this; under a key of
  # one's own an instance whose start lacks it goes straight back to "stopped".
  statement {
    sid       = "UnlockItsVolumes"
    actions   = ["kms:CreateGrant"]
    resources = ["arn:${local.partition}:kms:${var.region}:${local.account_id}:key/*"]

    condition {
      test     = "Bool"
      variable = "kms:GrantIsForAWSResource"
      values   = ["true"]
    }

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["ec2.${var.region}.amazonaws.com"]
    }
  }
}

# Who starts the process reads the key hashes: ECS's agent, or the boot script of the instance.
data "aws_iam_policy_document" "api_keys" {
  statement {
    sid       = "ReadApiKeyHashes"
    actions   = local.keys_in_secret ? ["secretsmanager:GetSecretValue"] : local.is_fargate ? ["ssm:GetParameters"] : ["ssm:GetParameter"]
    resources = [local.keys_arn]
  }
}
