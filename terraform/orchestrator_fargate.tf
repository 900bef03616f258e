# The orchestrator on Fargate: 0.25 vCPU and 0.5 GB, $9.01 a month on x86, a fifth less on ARM.

resource "aws_ecr_repository" "orchestrator" {
  count = local.is_fargate ? 1 : 0

  name                 = local.names.orchestrator
  image_tag_mutability = "MUTABLE"
  force_delete         = true # images are built from the repository at any time

  image_scanning_configuration {
    scan_on_push = true
  }
}

# $0.10 per GB-month; an image has about 0.1 GB.
resource "aws_ecr_lifecycle_policy" "orchestrator" {
  count = local.is_fargate ? 1 : 0

  repository = aws_ecr_repository.orchestrator[0].name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Enough to roll back"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 10 }
      action       = { type = "expire" }
    }]
  })
}

# Container Insights stay off: they would cost more than the task. The balancer's and the service's own metrics are free.
resource "aws_ecs_cluster" "main" {
  count = local.is_fargate ? 1 : 0

  name = local.names.system
}

resource "aws_ecs_task_definition" "orchestrator" {
  count = local.is_fargate ? 1 : 0

  family                   = local.names.orchestrator
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.orchestrator_cpu
  memory                   = var.orchestrator_memory_mb
  execution_role_arn       = aws_iam_role.execution[0].arn
  task_role_arn            = aws_iam_role.orchestrator.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.orchestrator_architecture
  }

  container_definitions = jsonencode([{
    name                   = "orchestrator"
    image                  = var.orchestrator_image != null ? var.orchestrator_image : "${aws_ecr_repository.orchestrator[0].repository_url}:${var.orchestrator_version}"
    essential              = true
    readonlyRootFilesystem = true
    stopTimeout            = local.orchestrator_stop_timeout_s
    portMappings           = [{ containerPort = local.orchestrator_port, protocol = "tcp" }]
    environment            = [for name in sort(keys(local.orchestrator_environment)) : { name = name, value = local.orchestrator_environment[name] }]
    secrets                = [{ name = "API_KEYS", valueFrom = local.keys_arn }]
    dockerLabels           = { "api-keys" = local.keys_checksum }
    ulimits                = [{ name = "nofile", softLimit = 8192, hardLimit = 8192 }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.orchestrator[0].name
        awslogs-region        = var.region
        awslogs-stream-prefix = "orchestrator"
        # Lines are lost rather than requests held up, should CloudWatch not take them.
        mode            = "non-blocking"
        max-buffer-size = "4m"
      }
    }
  }])
}

resource "aws_ecs_service" "orchestrator" {
  count = local.is_fargate ? 1 : 0

  name                               = local.names.orchestrator
  cluster                            = aws_ecs_cluster.main[0].id
  task_definition                    = aws_ecs_task_definition.orchestrator[0].arn
  launch_type                        = "FARGATE"
  desired_count                      = 1
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 30

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = local.is_private ? aws_subnet.private[*].id : aws_subnet.public[*].id
    security_groups  = [aws_security_group.orchestrator.id]
    assign_public_ip = !local.is_private # $3.65 a month, the cheapest way out
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.orchestrator[0].arn
    container_name   = "orchestrator"
    container_port   = local.orchestrator_port
  }

  lifecycle {
    ignore_changes = [desired_count] # the autoscaling's
  }

  # Tasks that start without permissions or a way out fail, and a few of those are a failed deployment.
  depends_on = [
    aws_lb_listener.https,
    aws_iam_role_policy.orchestrator,
    aws_iam_role_policy.execution,
    aws_route_table_association.public,
    aws_route_table_association.private,
    aws_vpc_endpoint.gateway,
    aws_vpc_endpoint.interface,
    aws_vpc_security_group_ingress_rule.endpoints,
    aws_vpc_security_group_egress_rule.orchestrator_https,
    aws_vpc_security_group_egress_rule.orchestrator_endpoints,
    aws_vpc_security_group_egress_rule.orchestrator_gateways,
  ]
}

# $0.50 per GB taken in; a request is a line of about 400 bytes.
resource "aws_cloudwatch_log_group" "orchestrator" {
  count = local.is_fargate ? 1 : 0

  name              = "/ecs/${local.names.orchestrator}"
  retention_in_days = var.log_retention_days
}

locals {
  is_scaled = local.is_fargate && var.orchestrator_max_tasks > 1
}

resource "aws_appautoscaling_target" "orchestrator" {
  count = local.is_scaled ? 1 : 0

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.main[0].name}/${aws_ecs_service.orchestrator[0].name}"
  min_capacity       = 1
  max_capacity       = var.orchestrator_max_tasks
}

# Each makes two alarms of its own, $0.10 a month each.
resource "aws_appautoscaling_policy" "orchestrator" {
  for_each = local.is_scaled ? {
    cpu      = { metric = "ECSServiceAverageCPUUtilization", target = 60, label = null }
    requests = { metric = "ALBRequestCountPerTarget", target = 3000, label = "${aws_lb.main[0].arn_suffix}/${aws_lb_target_group.orchestrator[0].arn_suffix}" }
  } : {}

  name               = each.key
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.orchestrator[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.orchestrator[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.orchestrator[0].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.target # percent of the CPU; requests a minute and task
    scale_in_cooldown  = 300
    scale_out_cooldown = 60

    predefined_metric_specification {
      predefined_metric_type = each.value.metric
      resource_label         = each.value.label
    }
  }
}

# What ECS itself does before the process runs: pull, log, read the key hashes.
resource "aws_iam_role" "execution" {
  count = local.is_fargate ? 1 : 0

  name               = "${local.names.orchestrator}-execution"
  assume_role_policy = data.aws_iam_policy_document.orchestrator_trust.json
}

resource "aws_iam_role_policy" "execution" {
  count = local.is_fargate ? 1 : 0

  name   = "execution"
  role   = aws_iam_role.execution[0].id
  policy = data.aws_iam_policy_document.execution[0].json
}

data "aws_iam_policy_document" "execution" {
  count = local.is_fargate ? 1 : 0

  source_policy_documents = [data.aws_iam_policy_document.api_keys.json]

  statement {
    sid       = "LogInToEcr"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "PullTheImage"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [aws_ecr_repository.orchestrator[0].arn]
  }

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.orchestrator[0].arn}:*"]
  }
}
