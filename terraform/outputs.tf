output "api_url" {
  description = "Where clients send their requests; null without a name (instance without domain_name)."
  value       = var.domain_name != null ? "https://${var.domain_name}" : null
}

output "region" {
  description = "AWS region."
  value       = var.region
}

output "balancer_dns_name" {
  description = "What domain_name must point to if DNS is kept elsewhere (fargate)."
  value       = local.is_fargate ? aws_lb.main[0].dns_name : null
}

output "orchestrator_repository_url" {
  description = "Where the orchestrator's image is pushed to (fargate)."
  value       = local.is_fargate ? aws_ecr_repository.orchestrator[0].repository_url : null
}

output "queue_url" {
  description = "The task queue."
  value       = aws_sqs_queue.tasks.url
}

output "dead_letter_queue_url" {
  description = "The dead-letter queue."
  value       = aws_sqs_queue.dead_letters.url
}

output "table_name" {
  description = "The task table."
  value       = aws_dynamodb_table.tasks.name
}

output "gpu_instance_id" {
  description = "The GPU instance."
  value       = local.gpu_instance_id
}

output "idle_alarm_name" {
  description = "The alarm of rules A and B."
  value       = aws_cloudwatch_metric_alarm.idle.alarm_name
}

output "shutdown_function_name" {
  description = "The Lambda that stops the GPU instance."
  value       = aws_lambda_function.shutdown.function_name
}

output "alert_topic_arn" {
  description = "SNS topic of the alerts."
  value       = aws_sns_topic.alerts.arn
}

output "task_max_age_s" {
  description = "A task not finished by then fails as expired. Seconds."
  value       = var.task_max_age_s
}

output "adapter_environment" {
  description = "The adapter's environment file, for an installation by hand."
  value       = join("\n", [for name in sort(keys(local.adapter_environment)) : "${name}=${local.adapter_environment[name]}"])
}

output "gpu_profile_command" {
  description = "Gives an existing instance that has no instance profile the adapter's; null where nothing is to be done."
  value = (
    local.makes_gpu || !local.makes_adapter_role ? null :
    "aws ec2 associate-iam-instance-profile --region ${var.region} --instance-id ${local.gpu_instance_id} --iam-instance-profile Name=${aws_iam_instance_profile.adapter[0].name}"
  )
}
