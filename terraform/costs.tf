# What the chosen variant costs a month in us-east-1 (on demand, 2026), whatever the GPU does; an output shows it. Prices
# of AWS: https://aws.amazon.com/pricing/
locals {
  hours_a_month = 730

  # x86; ARM is a fifth less.
  fargate_usd = local.hours_a_month * (0.04048 * var.orchestrator_cpu / 1024 + 0.004445 * var.orchestrator_memory_mb / 1024) * (var.orchestrator_architecture == "ARM64" ? 0.8 : 1)
  address_usd = local.hours_a_month * 0.005

  alarm_metrics = 3 + length([
    aws_cloudwatch_metric_alarm.shutdown_errors,
    aws_cloudwatch_metric_alarm.shutdown_silent,
    aws_cloudwatch_metric_alarm.dead_letters,
    aws_cloudwatch_metric_alarm.oldest_message,
    aws_cloudwatch_metric_alarm.gpu_running,
  ]) + 3 * length(aws_lb.main) + 2 * length(aws_cloudwatch_metric_alarm.failures) + length(aws_cloudwatch_metric_alarm.gpu_blocked) + 2 * length(aws_appautoscaling_policy.orchestrator)

  fixed_costs_usd = {
    alarms                = local.alarm_metrics * 0.1
    dns_zone              = var.route53_zone_id != null ? 0.5 : 0
    gpu_volume            = local.makes_gpu ? var.gpu_volume_gb * 0.08 : 0
    load_balancer         = local.is_fargate ? 16.43 + 2 * local.address_usd : 0
    orchestrator_fargate  = local.is_fargate ? local.fargate_usd + (local.is_private ? 0 : local.address_usd) : 0
    orchestrator_instance = local.is_fargate ? 0 : local.hours_a_month * 0.0168 + 8 * 0.08 + local.address_usd
    vpc_endpoints         = length(aws_vpc_endpoint.interface) * local.hours_a_month * 0.01
  }
}

output "fixed_costs_usd" {
  description = "What stands every month even if nobody sends a task, in US dollars (us-east-1); an existing GPU's volume comes on top."
  value       = merge({ for part, cost in local.fixed_costs_usd : part => format("%.2f", cost) if cost > 0 }, { total = format("%.2f", sum(values(local.fixed_costs_usd))) })
}

# Not a fixed cost: metrics are paid by the hour in which they are published, and without jobs none is.
output "metrics_usd_at_most" {
  description = "What the metrics would cost a month if each were published in every hour, in US dollars; in hours without jobs they cost nothing. The first ten of an account are free."
  value       = format("%.2f", 0.3 * ((var.metrics ? local.service_metric_count : 0) + length(local.gpu_measured) * local.gpu_agents))
}

output "gpu_hour_usd" {
  description = "What an hour of the GPU costs in US dollars while it runs (us-east-1); 0 for types whose price is not known here."
  value       = local.gpu_hour_usd
}

locals {
  gpu_prices_usd = { "g6e.2xlarge" = 2.24208, "g5.2xlarge" = 1.212 }
  gpu_type       = local.makes_gpu ? var.gpu_instance_type : data.aws_instance.gpu[0].instance_type
  gpu_hour_usd   = lookup(local.gpu_prices_usd, local.gpu_type, 0)
}
